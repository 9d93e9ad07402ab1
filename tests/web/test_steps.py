"""The pages of a sequence's steps, as Olga writes, edits, moves and removes them."""

import re
from datetime import date, datetime, timedelta

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from mcs.gateways import clock
from mcs.models import Action, ActionDefinition, AuditEntry, Campaign, Scenario
from mcs.services import schedules
from tests.people import add_campaign, add_contact
from tests.web.visitor import Visitor, words

DAY = timedelta(days=1)
SECRET = "a secret of 24 characters"
HOOK = {
    "key": "told",
    "offset": "0days",
    "time": "",
    "excluded": "",
    "repeat": "",
    "after": "",
    "on_failure": "wait",
    "attempts": "3",
    "url": "https://hooks.example.com/mcs",
    "secret": SECRET,
}
EMAIL = {
    "key": "hello",
    "offset": "2days",
    "time": "10:00",
    "name": "Two days on",
    "subject": "How is it, {{ first_name }}?",
    "content": "Dear {{ name }}, do you like it?",
    "format": "text",
}


class Clock:
    """What time it is for the pages."""

    def __init__(self, now: datetime) -> None:
        self.now = now


@pytest.fixture(autouse=True)
def time(monkeypatch: pytest.MonkeyPatch, now: datetime) -> Clock:
    told = Clock(now)
    monkeypatch.setattr(clock, "now", lambda: told.now)
    return told


@pytest.fixture
def campaign(session: Session) -> Campaign:
    return add_campaign(session, name="After purchase", end_date=date(2026, 12, 31))


@pytest.fixture
def here(campaign: Campaign) -> str:
    return f"/campaigns/{campaign.id}/sequence"


def fresh(session: Session) -> Session:
    """What is committed by now."""
    session.rollback()
    return session


def add(visitor: Visitor, here: str, fields: dict[str, object], **changes: object) -> None:
    """Add a step; a confirmation is given."""
    kind = "send_email" if "content" in fields else "webhook"
    path = f"{here}/steps/new?kind={kind}"
    visitor.get(path)
    answer = visitor.post(path, fields | changes)
    if answer.status_code == 200:
        answer = visitor.post(path, fields | changes | {"past": "skip"})
    assert answer.status_code == 303, words(answer)


def enrol(session: Session, at: datetime, campaign: Campaign, *names: str) -> dict[str, int]:
    """Their schedules' ids by name."""
    ids = {}
    for name in names:
        contact = add_contact(fresh(session), campaign, name)
        done = schedules.enrol(session, at, campaign.id, schedules.subject_of(contact.id))
        ids[name] = done.schedule_id
    return ids


def actions(session: Session) -> list[str]:
    rows = fresh(session).scalars(
        select(Action)
        .order_by(Action.schedule_id, Action.key)
        .execution_options(populate_existing=True)
    )
    return [
        f"{row.key} {row.state} {row.expected_at:%d %H:%M}" if row.expected_at
        else f"{row.key} {row.state}"
        for row in rows
    ]  # fmt: skip


def test_an_empty_sequence_says_what_it_is_and_offers_the_first_step(
    olga: Visitor, here: str
) -> None:
    page = words(olga.get(here))
    assert "A sequence is a series of messages" in page
    assert "Add the first step" in page
    checklist = words(olga.get(here.removesuffix("/sequence")))
    assert "Sequence Several messages to each contact" in checklist


def test_what_is_at_once_waits_for_the_first_day_of_an_upcoming_campaign(
    olga: Visitor, here: str, time: Clock
) -> None:
    add(olga, here, HOOK)
    add(olga, here, HOOK, key="thanks", offset="0days", after="told")
    assert "At once Mon 23 Nov" in words(olga.get(here))
    time.now -= 3 * DAY
    page = words(olga.get(here))
    assert "When the campaign begins Mon 23 Nov 2026, 00:00 Berlin , in 2 days" in page
    assert "At once" not in page
    assert "Right after “Webhook to hooks.example.com (told)”" in page
    assert "When the campaign begins" in words(olga.get(f"{here}/steps/told"))
    assert "When the campaign begins" in words(
        olga.post(f"{here}/check?kind=webhook", HOOK | {"key": "new"})
    )


def test_steps_show_their_interval_and_the_dates_of_who_joins_now(olga: Visitor, here: str) -> None:
    add(olga, here, HOOK)
    add(olga, here, EMAIL)
    add(olga, here, HOOK, key="later", offset="4days", time="10:00-15:00", days=["mon", "fri"])
    add(olga, here, HOOK, key="thanks", offset="1day", after="hello")
    page = words(olga.get(here))
    assert "Webhook to hooks.example.com told At once Mon 23 Nov 2026, 10:00 Berlin" in page
    assert "Email: Two days on hello How is it" in page
    assert "2 days later, at 10:00 Wed 25 Nov 2026, 10:00 Berlin , in 2 days" in page
    assert "4 days later, between 10:00 and 15:00, on Mon and Fri only Fri 27 Nov 2026" in page
    assert "1 day after “Email: Two days on” Thu 26 Nov 2026, 10:00 Berlin" in page
    assert "If “Email: Two days on” fails: waits until somebody tries that one again." in page
    assert SECRET not in olga.get(f"{here}/steps/told").text


def test_the_message_of_a_step_is_written_with_it_and_is_no_draft_of_the_campaign(
    olga: Visitor, session: Session, campaign: Campaign, here: str
) -> None:
    add(olga, here, EMAIL)
    scenario = fresh(session).scalars(select(Scenario)).one()
    assert (scenario.subject, scenario.date, scenario.time) == (EMAIL["subject"], None, None)
    step = fresh(session).scalars(select(ActionDefinition)).one()
    assert step.config == {"scenario": scenario.id}
    assert "The step “Email: Two days on” is saved." in words(olga.get(here))
    assert "Two days on" not in words(olga.get("/scenarios/"))
    assert "No message yet" in words(olga.get(f"/campaigns/{campaign.id}"))
    assert olga.get(f"/scenarios/{scenario.id}").location == f"{here}/steps/hello"
    for verb in ("edit", "schedule", "delete", "unschedule"):
        answer = olga.post(f"/scenarios/{scenario.id}/{verb}", {"name": "x"})
        assert answer.status_code == 409, verb
        assert "written with its sequence" in words(answer)
    form = olga.get(f"{here}/steps/hello")
    assert "do you like it?" in form.text
    olga.post(f"{here}/steps/hello", EMAIL | {"content": "Dear {{ name }}, still?"})
    assert fresh(session).scalars(select(Scenario.content)).one() == "Dear {{ name }}, still?"


def test_the_preview_follows_what_is_typed(olga: Visitor, campaign: Campaign, here: str) -> None:
    olga.get(f"{here}/steps/new")
    part = words(olga.post(f"{here}/check?kind=send_email", EMAIL))
    assert "For a contact joining now" in part
    assert "Wed 25 Nov 2026, 10:00 Berlin" in part
    assert "How is it, Ann?" in part
    part = words(olga.post(f"{here}/check?kind=webhook", HOOK | {"offset": "2 dogs"}))
    assert "'dogs' in '2 dogs' is no unit" in part
    frame = olga.post(f"/campaigns/{campaign.id}/scenarios/preview", EMAIL)
    assert "do you like it?" in frame.text


@pytest.mark.parametrize(
    ("changes", "field", "complaint"),
    [
        ({"key": "a step"}, "key", "is no id"),
        ({"key": ""}, "key", "is no id"),
        ({"offset": ""}, "offset", "Say how long after, such as 2days."),
        ({"offset": "soon"}, "offset", "'soon' cannot be read"),
        ({"offset": "-2days"}, "offset", "lies in the past"),
        ({"time": "25:00"}, "time", "is no time of a day"),
        ({"days": ["someday"]}, "days", "is no weekday"),
        ({"excluded": "Christmas"}, "excluded", "is no date"),
        ({"repeat": "every 1month"}, "repeat", "has no end"),
        ({"after": "nothing"}, "after", "There is no step 'nothing'"),
        ({"after": "told"}, "after", "comes after it: break the ring"),
        ({"on_failure": "panic"}, "on_failure", "use wait, skip or go_on"),
        ({"attempts": "21"}, "attempts", "try 1 to 20 times"),
        ({"attempts": "many"}, "attempts", "Not a valid integer value."),
        ({"url": ""}, "url", "Enter the address that is told"),
        ({"url": "http://127.0.0.1/x"}, "url", ""),
        ({"url": "ftp://hooks.example.com"}, "url", ""),
        ({"secret": "short"}, "secret", "16"),
    ],
)
def test_what_cannot_be_is_said_at_its_field_and_nothing_typed_is_lost(
    olga: Visitor, session: Session, here: str, changes: dict[str, object], field: str,
    complaint: str,
) -> None:  # fmt: skip
    path = f"{here}/steps/new?kind=webhook"
    olga.get(path)
    answer = olga.post(path, HOOK | {"excluded": "2026-12-25"} | changes)
    assert answer.status_code == 422, words(answer)
    assert f'href="#{field}"' in answer.text, words(answer)
    assert words(answer).count(complaint) >= 2, words(answer)
    if "excluded" not in changes:
        assert "2026-12-25" in answer.text
    assert fresh(session).scalars(select(ActionDefinition)).all() == []


@pytest.mark.parametrize(
    ("kind", "changes", "fields"),
    [
        (
            "send_email",
            {"key": "no id", "offset": "soon", "time": "25:00", "excluded": "Christmas",
             "repeat": "often", "name": "", "subject": "Hello {{ name", "content": "{% if %}"},
            ["key", "offset", "time", "excluded", "repeat", "name", "subject", "content"],
        ),
        (
            "webhook",
            {"offset": "", "after": "nothing", "attempts": "99", "url": "http://shop.example/",
             "secret": "short"},
            ["offset", "after", "attempts", "url", "secret"],
        ),
        ("notify", {"time": "noon", "service": "json://localhost", "text": ""},
         ["time", "service", "text"]),
    ],
)  # fmt: skip
def test_all_that_is_wrong_is_said_at_once(
    olga: Visitor, here: str, kind: str, changes: dict[str, object], fields: list[str]
) -> None:
    path = f"{here}/steps/new?kind={kind}"
    olga.get(path)
    answer = olga.post(path, (EMAIL if kind == "send_email" else HOOK) | changes)
    assert answer.status_code == 422
    box = answer.text.partition('class="error-summary"')[2].partition("</ul>")[0]
    assert sorted(re.findall(r'href="#([^"]+)"', box)) == sorted(fields), words(answer)
    assert f"Please check these {len(fields)} things" in words(answer)


def test_the_box_at_the_top_names_the_field(olga: Visitor, here: str) -> None:
    path = f"{here}/steps/new?kind=webhook"
    olga.get(path)
    page = words(olga.post(path, HOOK | {"url": "http://shop.example/"}))
    assert "Please check one thing Address: it is not encrypted: use https" in page
    assert "Address It is not encrypted: use https" in page


def test_a_message_that_cannot_be_sent_is_refused(olga: Visitor, here: str) -> None:
    path = f"{here}/steps/new?kind=send_email"
    olga.get(path)
    answer = olga.post(path, EMAIL | {"subject": "Hello {{ name"})
    assert answer.status_code == 422
    assert 'href="#subject"' in answer.text
    answer = olga.post(path, EMAIL | {"name": "", "content": ""})
    assert answer.status_code == 422
    assert "Give the message a name" in words(answer)


def test_a_notice_keeps_its_service_to_itself(olga: Visitor, session: Session, here: str) -> None:
    path = f"{here}/steps/new?kind=notify"
    olga.get(path)
    fields = HOOK | {"service": "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV", "text": "Sold!"}
    assert olga.post(path, fields | {"service": "json://localhost"}).status_code == 422
    answer = olga.post(path, fields)
    assert answer.status_code == 303, words(answer)
    for page in (here, f"{here}/steps/told"):
        assert "JHMHI8" not in olga.get(page).text
    assert "Post to Discord told Sold!" in words(olga.get(here))
    olga.post(f"{here}/steps/told", fields | {"service": "", "text": "Sold again!"})
    config = fresh(session).scalars(select(ActionDefinition)).one().config
    assert (config["url"], config["text"]) == (fields["service"], "Sold again!")


def test_the_same_step_added_twice_is_one_step(olga: Visitor, session: Session, here: str) -> None:
    for fields in (HOOK, EMAIL):
        add(olga, here, fields)
        add(olga, here, fields)
    assert set(fresh(session).scalars(select(ActionDefinition.key))) == {"told", "hello"}
    assert len(fresh(session).scalars(select(Scenario)).all()) == 1
    path = f"{here}/steps/new?kind=webhook"
    answer = olga.post(path, HOOK | {"offset": "9days"})
    assert answer.status_code == 422
    assert "There is a step of this id already" in words(answer)


def test_an_edit_says_in_numbers_what_moves_before_it_is_saved(
    olga: Visitor, session: Session, now: datetime, campaign: Campaign, here: str
) -> None:
    add(olga, here, HOOK, key="first", offset="1day")
    add(olga, here, HOOK, key="second", offset="4days", time="10:00")
    enrol(session, now, campaign, "Ann", "Bob")
    before = actions(session)
    olga.get(f"{here}/steps/second")
    typed = HOOK | {"key": "second", "offset": "5days", "time": "11:00", "secret": ""}
    question = olga.post(f"{here}/steps/second", typed)
    assert question.status_code == 200
    page = words(question)
    name = "Webhook to hooks.example.com (second)"
    assert f"Save the step “{name}”? This changes what 2 subjects in the sequence get." in page
    assert (
        "Webhook to hooks.example.com second 2 move"
        " Fri 27 Nov 2026, 10:00 Berlin Sat 28 Nov 2026, 11:00 Berlin"
    ) in page
    assert "2 actions move to another moment." in page
    assert "What then?" not in page
    assert actions(session) == before
    back = olga.post(f"{here}/steps/second", typed | {"past": "skip", "back": "1"})
    assert back.status_code == 200
    assert 'value="5days"' in back.text
    assert actions(session) == before
    saved = olga.post(f"{here}/steps/second", typed | {"past": "skip"})
    assert saved.status_code == 303
    assert "2 actions move to another moment." in words(olga.get(here))
    assert actions(session) == ["first pending 24 09:00", "second pending 28 10:00"] * 2
    # Pressed twice: nothing is left to move.
    assert olga.post(f"{here}/steps/second", typed | {"past": "skip"}).status_code == 303
    assert actions(session) == ["first pending 24 09:00", "second pending 28 10:00"] * 2
    config = fresh(session).scalars(select(ActionDefinition.config)).all()
    assert [one["secret"] for one in config] == [SECRET, SECRET]
    entries = fresh(session).scalars(select(AuditEntry.verb)).all()
    assert entries.count("edited a step of") == 2


@pytest.mark.parametrize("past", ["skip", "run"])
def test_a_moment_that_has_passed_is_skipped_or_run_and_what_comes_after_is_counted(
    olga: Visitor, session: Session, now: datetime, campaign: Campaign, here: str, time: Clock,
    past: str,
) -> None:  # fmt: skip
    add(olga, here, HOOK, key="ask", offset="9days")
    add(olga, here, HOOK, key="again", offset="1day", after="ask", on_failure="skip")
    add(olga, here, HOOK, key="at-last", offset="1day", after="again", on_failure="skip")
    enrol(session, now, campaign, "Ann", "Bob", "Carol")
    time.now = now + 3 * DAY
    typed = HOOK | {"key": "ask", "offset": "2days", "secret": ""}
    olga.get(f"{here}/steps/ask")
    page = words(olga.post(f"{here}/steps/ask", typed))
    assert "ask 3 move Wed 2 Dec 2026, 10:00 Berlin Wed 25 Nov 2026, 10:00 Berlin" in page
    assert "For some, the new moment has passed already. What then?" in page
    assert "Leave it out for them 6 actions vanish. 3 actions are left out for good." in page
    assert (
        "Run it at once for them 3 actions move to another moment. 3 of them run at once." in page
    )
    olga.post(f"{here}/steps/ask", typed | {"past": past})
    told = words(olga.get(here))
    if past == "skip":
        assert "6 actions vanish. 3 actions are left out for good." in told
        assert actions(session) == [
            "again cancelled", "ask cancelled 25 09:00", "at-last cancelled"
        ] * 3  # fmt: skip
    else:
        assert actions(session) == ["again pending", "ask pending 25 09:00", "at-last pending"] * 3


def test_what_an_edit_does_to_another_step_is_said_by_that_ones_name(
    olga: Visitor, session: Session, here: str
) -> None:
    add(olga, here, HOOK)
    add(olga, here, EMAIL, after="told")
    before = actions(session)
    typed = HOOK | {"offset": "1day", "repeat": "every 1week, 3 times", "secret": ""}
    olga.get(f"{here}/steps/told")
    answer = olga.post(f"{here}/steps/told", typed)
    assert answer.status_code == 422
    page = words(answer)
    assert page.count("“Email: Two days on”: told repeats: name one of its occurrences") == 2
    assert "hello:" not in page
    assert "“Email: Two days on”: told repeats" in words(
        olga.post(f"{here}/check?step=told", typed)
    )
    assert actions(session) == before


def test_a_step_after_the_last_day_is_said_never_to_fall_due(
    olga: Visitor, session: Session, now: datetime, campaign: Campaign, here: str
) -> None:
    add(olga, here, HOOK)
    enrol(session, now, campaign, "Ann", "Bob")
    path = f"{here}/steps/new?kind=send_email"
    olga.get(path)
    page = words(olga.post(path, EMAIL | {"offset": "60days"}))
    assert "Nobody in the sequence gets anything else by this." in page
    assert (
        "Email: Two days on hello 2 never fall due – not at all: after the campaign’s last day"
        in page.replace("'", "’")
    )
    assert "2 new actions never fall due." in page
    assert "vanish" not in page
    assert olga.post(path, EMAIL | {"offset": "60days", "past": "skip"}).status_code == 303
    assert "is saved. 2 new actions never fall due." in words(olga.get(here))


def test_a_new_step_appears_for_those_under_way(
    olga: Visitor, session: Session, now: datetime, campaign: Campaign, here: str
) -> None:
    add(olga, here, HOOK)
    enrol(session, now, campaign, "Ann", "Bob")
    path = f"{here}/steps/new?kind=send_email"
    olga.get(path)
    question = olga.post(path, EMAIL)
    assert question.status_code == 200
    assert "2 actions appear." in words(question)
    assert "Email: Two days on hello 2 appear – Wed 25 Nov 2026, 10:00 Berlin" in words(question)
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', question.text))
    assert hidden["content"] == EMAIL["content"]
    assert olga.post(path, EMAIL | {"past": "skip"}).status_code == 303
    assert olga.post(path, EMAIL | {"past": "skip"}).status_code == 303
    assert actions(session) == ["hello pending 25 09:00", "told pending 23 09:00"] * 2


def test_steps_move_up_and_down_and_a_second_press_changes_nothing(
    olga: Visitor, session: Session, here: str
) -> None:
    for key in ("a", "b", "c"):
        add(olga, here, HOOK, key=key)
    keys = select(ActionDefinition.key).order_by(ActionDefinition.place)
    for _ in range(2):
        assert olga.post(f"{here}/steps/c/move", {"place": "1"}).status_code == 303
        assert fresh(session).scalars(keys).all() == ["a", "c", "b"]
    assert olga.post(f"{here}/steps/c/move", {"place": "x"}).status_code == 400
    assert olga.post(f"{here}/steps/z/move", {"place": "1"}).status_code == 404


def test_a_step_is_removed_after_a_question_with_numbers(
    olga: Visitor, session: Session, now: datetime, campaign: Campaign, here: str
) -> None:
    add(olga, here, HOOK)
    add(olga, here, EMAIL)
    add(olga, here, HOOK, key="thanks", offset="1day", after="hello")
    enrol(session, now, campaign, "Ann", "Bob")
    answer = olga.get(f"{here}/steps/hello/remove")
    assert answer.location == here
    assert (
        "“Webhook to hooks.example.com (thanks)” comes after “Email: Two days on”: change or remove"
        " that one first."
    ) in words(olga.get(here))
    olga.post(f"{here}/steps/thanks/remove")
    question = words(olga.get(f"{here}/steps/hello/remove"))
    assert "Remove the step “Email: Two days on”?" in question
    assert "2 actions of 2 subjects will not happen ( Wed 25 Nov 2026, 10:00 Berlin )." in question
    assert "Its message stays among the scenarios, as a draft." in question
    assert olga.post(f"{here}/steps/hello/remove").status_code == 303
    assert olga.post(f"{here}/steps/hello/remove").status_code == 404
    assert "Two days on" in words(olga.get("/scenarios/"))
    assert (
        actions(session)
        == [
            "hello cancelled 25 09:00",
            "thanks cancelled",
            "told pending 23 09:00",
        ]
        * 2
    )


def test_a_new_step_never_takes_the_id_of_one_that_was_removed(
    olga: Visitor, session: Session, now: datetime, campaign: Campaign, here: str
) -> None:
    add(olga, here, HOOK, key="step1")
    add(olga, here, EMAIL, key="step2")
    enrol(session, now, campaign, "Ann", "Bob")
    olga.post(f"{here}/steps/step2/remove")
    path = f"{here}/steps/new?kind=webhook"
    assert 'value="step3"' in olga.get(path).text
    before = actions(session)
    for fields in (HOOK | {"key": "step2"}, HOOK | {"key": "step2", "past": "skip"}):
        answer = olga.post(path, fields)
        assert answer.status_code == 422
        assert "A step that was removed had this id" in words(answer)
    assert actions(session) == before


def test_two_people_who_edit_two_steps_both_get_what_they_wanted(
    olga: Visitor, marie: Visitor, session: Session, here: str
) -> None:
    add(olga, here, HOOK, key="a")
    add(olga, here, HOOK, key="b")
    olga.get(f"{here}/steps/a")
    marie.get(f"{here}/steps/b")
    olga.post(f"{here}/steps/a", HOOK | {"offset": "1day", "secret": ""})
    marie.post(f"{here}/steps/b", HOOK | {"offset": "2days", "secret": ""})
    offsets = select(ActionDefinition.offset).order_by(ActionDefinition.key)
    assert fresh(session).scalars(offsets).all() == ["1day", "2days"]


def test_a_step_of_somebodys_own_callback_keeps_its_config(
    app: Flask, olga: Visitor, session: Session, now: datetime, campaign: Campaign, here: str
) -> None:
    app.extensions["callbacks"]["print"] = lambda call: None
    session.add(
        ActionDefinition(
            campaign_id=campaign.id, key="own", place=0, callback="print", offset="1day",
            config={"tray": 2}, created_at=now, updated_at=now,
        )
    )  # fmt: skip
    session.commit()
    assert "print own" in words(olga.get(here))
    olga.get(f"{here}/steps/own")
    assert olga.post(f"{here}/steps/own", HOOK | {"offset": "3days"}).status_code == 303
    step = fresh(session).scalars(select(ActionDefinition)).one()
    assert (step.offset, step.config, step.callback) == ("3days", {"tray": 2}, "print")


def test_a_step_cannot_script_a_page(olga: Visitor, here: str) -> None:
    add(olga, here, EMAIL, name="<script>alert(1)</script>", subject="<b>x</b>")
    for path in (here, f"{here}/steps/hello", f"{here}/enrol", f"{here}/steps/hello/remove"):
        assert "<script>alert" not in olga.get(path).text, path


def test_a_test_of_the_message_goes_to_olga(
    olga: Visitor, here: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    olga.get(f"{here}/steps/new")
    answer = olga.post(f"{here}/test?kind=send_email", EMAIL)
    page = words(answer)
    assert "The test was not sent." in page or "A test is on its way" in page
    assert "How is it, {{ first_name }}?" in answer.text
