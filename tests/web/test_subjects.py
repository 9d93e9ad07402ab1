"""Who is in a sequence: enrolling, subjects, their timelines, actions, what failed and again."""

from dataclasses import asdict
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from rq import Queue
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from mcs.core.calls import Call
from mcs.gateways.jobqueue import JOBS
from mcs.models import Action, Campaign, Contact, Schedule
from mcs.services import bulk, due, enrolling, runners, schedules, sequences
from mcs.services.campaigns import fields_of
from mcs.services.definitions import Step
from mcs.services.runners import Surroundings
from mcs.services.schedules import Subject
from tests.people import add_campaign, add_contact, add_contacts, add_scenario
from tests.web.test_steps import DAY, HOOK, Clock, actions, add, enrol, fresh, time
from tests.web.visitor import Visitor, words

__all__ = ["time"]

STEPS = [
    Step("action1", "webhook", "0days", config={"url": HOOK["url"], "secret": HOOK["secret"]}),
    Step("action2", "webhook", "2days", "10:00", config={"url": HOOK["url"]}),
    Step("action3", "webhook", "4days", "10:00", config={"url": HOOK["url"]}),
]


@pytest.fixture
def campaign(session: Session, now: datetime) -> Campaign:
    campaign = add_campaign(session, name="After purchase", end_date=date(2026, 12, 31))
    sequences.define(session, now, campaign.id, STEPS)
    return campaign


@pytest.fixture
def here(campaign: Campaign) -> str:
    return f"/campaigns/{campaign.id}/sequence"


def run(sessions: sessionmaker[Session], at: datetime, failing: str = "") -> list[str]:
    """Run what is due at a moment; what was called for whom. ``failing`` is the key that fails."""
    called = []

    def webhook(call: Call) -> Any:
        if call.key == failing:
            raise RuntimeError("the shop answered 503\nand a page of HTML")
        called.append(f"{call.contact['name'] if call.contact else call.subject_id} {call.key}")

    runners.run_due(Surroundings(sessions, {"webhook": webhook}, lambda: at, 60))
    return called


def test_three_customers_each_on_their_own_days_through_the_pages(
    olga: Visitor, session: Session, sessions: sessionmaker[Session], now: datetime, time: Clock
) -> None:
    """The steps written on pages, each customer enrolled on the day they bought."""
    campaign = add_campaign(session, name="Shop", end_date=date(2026, 12, 31))
    here = f"/campaigns/{campaign.id}/sequence"
    for key, offset, at in (
        ("action1", "0days", ""),
        ("action2", "2days", "10:00"),
        ("action3", "4days", "10:00"),
    ):
        add(olga, here, HOOK, key=key, offset=offset, time=at)
    bought = {"Jane": 1, "Julie": 2, "Jenny": 5}
    for name in bought:
        add_contact(fresh(session), campaign, name)
    session.rollback()
    happened: dict[str, list[int]] = {name: [] for name in bought}
    for hour in range(24 * 10):
        time.now = now + timedelta(hours=hour)
        day = hour // 24 + 1
        for name, on in bought.items():
            if (day, hour % 24) == (on, 0):
                answer = olga.post(f"{here}/enrol", {"email": f"{name}@people.example"})
                assert answer.status_code == 303
        for line in run(sessions, time.now):
            happened[line.split()[0]].append(day)
    assert happened == {"Jane": [1, 3, 5], "Julie": [2, 4, 6], "Jenny": [5, 7, 9]}
    page = words(olga.get(f"{here}/subjects?state=done"))
    assert all(name in page for name in bought)
    assert "Done 9 actions" in words(olga.get(here))


def test_the_batch_is_enrolled_by_a_button_that_says_the_number(
    olga: Visitor, session: Session, campaign: Campaign, here: str
) -> None:
    add_contacts(session, campaign, 5)
    enrol(session, campaign.created_at, campaign, "Ann")
    page = words(olga.get(f"{here}/enrol"))
    assert "Enrol 5 contacts now" in page
    assert "Wed 25 Nov 2026, 10:00 Berlin" in page
    for said in ("5 contacts have begun the sequence.", "Everybody in the batch is in"):
        assert olga.post(f"{here}/enrol/batch").status_code == 303
        assert said in words(olga.get(here))
    assert fresh(session).scalar(select(func.count()).select_from(Schedule)) == 6
    assert session.scalar(select(func.count()).select_from(Action)) == 18


def test_a_large_batch_is_left_to_a_worker(
    app: Flask, olga: Visitor, session: Session, campaign: Campaign, here: str,
    monkeypatch: pytest.MonkeyPatch, now: datetime,
) -> None:  # fmt: skip
    monkeypatch.setattr(enrolling, "CHUNK", 2)
    monkeypatch.setattr(enrolling, "AT_ONCE", 4)
    add_contacts(session, campaign, 7)
    campaign_id = campaign.id
    session.rollback()
    olga.get(here)
    olga.post(f"{here}/enrol/batch")
    page = words(olga.get(here))
    assert "The batch is being enrolled: 3 contacts to go." in page
    assert _waiting(app) == [f"enrol-{campaign_id}"]
    due.tick(fresh(session), now, app.extensions["jobqueue"], "hold")
    for _ in range(2):
        enrolling.enrol_batch(session, now, campaign_id)
    assert "being enrolled" not in words(olga.get(here))
    assert fresh(session).scalar(select(func.count()).select_from(Schedule)) == 7


def _waiting(app: Flask) -> list[str]:
    kind = JOBS["mcs.jobs.enrol_batch"]
    return list(Queue(kind.queue, connection=app.extensions["jobqueue"].connection).job_ids)


def test_who_is_not_known_is_not_enrolled(olga: Visitor, here: str) -> None:
    olga.get(f"{here}/enrol")
    for address, said in (
        ("", "Enter the contact’s email address."),
        ("nonsense", "This is not an email address"),
        ("eve@people.example", "Nobody has this address yet"),
    ):
        answer = olga.post(f"{here}/enrol", {"email": address})
        assert answer.status_code == 422
        assert words(answer).count(said) == 2


def test_everyone_who_is_added_begins_where_the_campaign_says_so(
    olga: Visitor, session: Session, campaign: Campaign, here: str
) -> None:
    base = f"/campaigns/{campaign.id}"
    olga.get(f"{base}/contacts/new")
    olga.post(f"{base}/contacts/new", {"email": "ann@people.example"})
    olga.post(f"{here}/enrol/added", {"on": "1"})
    assert "Everyone who is added from now on begins at that moment." in words(olga.get(here))
    for _ in range(2):
        olga.post(f"{base}/contacts/new", {"email": "bob@people.example"})
        olga.post(f"{base}/contacts/new", {"email": "ann@people.example"})
    assert _enrolled(session) == ["bob@people.example"]
    olga.post(f"{here}/enrol/added", {"on": "0"})
    olga.post(f"{base}/contacts/new", {"email": "carol@people.example"})
    assert _enrolled(session) == ["bob@people.example"]


def _enrolled(session: Session) -> list[str]:
    query = select(Contact.email).join(Schedule, Schedule.contact_id == Contact.id)
    return list(fresh(session).scalars(query.order_by(Contact.id)))


def test_subjects_are_found_by_state_step_and_search(
    olga: Visitor, session: Session, sessions: sessionmaker[Session], now: datetime,
    campaign: Campaign, here: str, time: Clock,
) -> None:  # fmt: skip
    enrol(session, now, campaign, "Ann", "Bob")
    schedules.enrol(fresh(session), now, campaign.id, Subject("order", "A-17"))
    run(sessions, now)
    schedules.unschedule(fresh(session), now, campaign.id, "order", "A-17")
    enrol(session, now + DAY, campaign, "Carol")
    run(sessions, now + DAY, failing="action1")

    def found(query: str) -> set[str]:
        page = words(olga.get(f"{here}/subjects?{query}"))
        return {name for name in ("Ann", "Bob", "Carol", "order A-17") if name in page}

    assert found("") == {"Ann", "Bob", "Carol", "order A-17"}
    assert found("state=withdrawn") == {"order A-17"}
    assert found("state=failed") == {"Carol"}
    assert found("state=under+way") == {"Ann", "Bob"}
    assert found("state=done") == set()
    assert found("step=action2") == {"Ann", "Bob", "Carol"}
    assert found("step=action1") == set()
    assert found("q=bob@people.example") == {"Bob"}
    assert found("q=aro") == {"Carol"}
    assert found("q=a-17") == {"order A-17"}
    assert "Nobody matches" in words(olga.get(f"{here}/subjects?q=zz"))


def test_lists_are_paged(
    olga: Visitor, session: Session, now: datetime, campaign: Campaign, here: str
) -> None:
    contacts = add_contacts(session, campaign, 55)
    people = [Subject("contact", str(one.id), one.id) for one in contacts]
    bulk.enrol(session, now, campaign.id, people)
    for path, number in ((f"{here}/subjects", 55), (f"{here}/actions?state=pending", 165)):
        seen, page = 0, olga.get(path)
        while True:
            seen += page.text.count('<tr><th scope="row">')
            following = page.text.partition('rel="next" href="')[2].partition('"')[0]
            if not following:
                break
            page = olga.get(following.replace("&amp;", "&"))
        assert seen == number
        assert 'rel="prev"' in page.text


def test_a_timeline_from_the_past_to_what_is_to_come(
    olga: Visitor, session: Session, sessions: sessionmaker[Session], now: datetime,
    campaign: Campaign, here: str, time: Clock,
) -> None:  # fmt: skip
    ids = enrol(session, now, campaign, "Ann")
    run(sessions, now)
    time.now = now + 3 * DAY
    run(sessions, time.now, failing="action2")
    path = f"{here}/subjects/{ids['Ann']}"
    answer = olga.get(path)
    page = words(answer)
    told = ("action1", "done Mon 23 Nov, 10:00", "action2", "the shop answered 503", "Now, Thu 26")
    places = [page.index(part) for part in (*told, "action3")]
    assert places == sorted(places)
    assert "and a page of HTML" in answer.text and "<details" in answer.text
    assert "Fri 27 Nov 2026, 10:00 Berlin , in 1 day" in page
    assert "Ann" in words(olga.get("/contacts/1")) and path in olga.get("/contacts/1").text


def test_withdrawn_resumed_and_restarted(
    olga: Visitor, session: Session, sessions: sessionmaker[Session], now: datetime,
    campaign: Campaign, here: str, time: Clock,
) -> None:  # fmt: skip
    path = f"{here}/subjects/{enrol(session, now, campaign, 'Ann')['Ann']}"
    run(sessions, now)
    time.now = now + DAY
    assert "2 actions to come will not happen." in words(olga.get(f"{path}/withdraw"))
    for _ in range(2):
        assert olga.post(f"{path}/withdraw").status_code == 303
    page = words(olga.get(path))
    assert "Withdrawn: nothing more happens for them." in page and "Resume" in page
    assert run(sessions, now + 3 * DAY) == []
    for _ in range(2):
        assert olga.post(f"{path}/resume").status_code == 303
    assert actions(session) == [
        "action1 completed 23 09:00", "action2 pending 25 09:00", "action3 pending 27 09:00",
    ]  # fmt: skip
    assert "A new run begins now, with 3 steps" in words(olga.get(f"{path}/restart"))
    places = [olga.post(f"{path}/restart").location for _ in range(2)]
    assert places[0] == places[1] != path
    assert "Run 2 of 2" in words(olga.get(places[0]))
    assert len(actions(session)) == 6
    # A run that is over has no buttons, and cannot be made to go on.
    assert not {"Resume", "Withdraw", "Restart"} & set(words(olga.get(path)).split())
    answers = [
        olga.get(f"{path}/withdraw"),
        olga.post(f"{path}/withdraw"),
        olga.post(f"{path}/resume"),
    ]
    assert {answer.location for answer in answers} == {places[0]}
    page = words(olga.get(places[0]))
    assert page.count("That run was over already: they were restarted.") == len(answers)
    assert len([one for one in actions(session) if "pending" in one]) == 3


def test_failed_actions_are_tried_again_one_or_all(
    olga: Visitor, session: Session, sessions: sessionmaker[Session], now: datetime,
    campaign: Campaign, here: str, time: Clock,
) -> None:  # fmt: skip
    ids = enrol(session, now, campaign, "Ann", "Bob", "Carol", "Dan")
    run(sessions, now, failing="action1")
    home = words(olga.get("/"))
    assert "After purchase 4 actions of its sequence failed: see why, and try again." in home
    page = words(olga.get(f"{here}/actions?state=failed"))
    assert "Retry 4 failed" in page and "the shop answered 503" in page
    schedules.unschedule(fresh(session), now, campaign.id, "contact", "4")
    session.rollback()
    assert olga.post(f"{here}/actions/1/retry", {"subject": "1"}).location.endswith("/subjects/1")
    assert run(sessions, now) == ["Ann action1"]
    olga.post(f"{here}/actions/1/retry")
    assert "It is not tried again" in words(olga.get(here))
    assert "2 actions of After purchase failed" in words(olga.get(f"{here}/retry"))
    assert "2 actions of" in words(olga.get(f"{here}/retry?step=action1"))
    assert olga.get(f"{here}/retry?step=nothing").status_code == 404
    for number in (2, 0):
        assert olga.post(f"{here}/retry").status_code == 303
        verb = "action is" if number == 1 else "actions are"
        assert f"{number} {verb} tried again." in words(olga.get(here))
    assert sorted(run(sessions, now)) == ["Bob action1", "Carol action1"]
    assert ids["Dan"] == 4


def test_switching_off_and_on_says_in_numbers_what_it_does_to_actions(
    olga: Visitor, session: Session, sessions: sessionmaker[Session], now: datetime,
    campaign: Campaign, here: str, time: Clock,
) -> None:  # fmt: skip
    enrol(session, now, campaign, "Ann", "Bob")
    run(sessions, now)
    base = f"/campaigns/{campaign.id}"
    question = words(olga.get(f"{base}/deactivate"))
    assert (
        "4 pending actions of 2 subjects in its sequence will not happen"
        " ( Wed 25 Nov, 10:00 to Fri 27 Nov 2026, 10:00 Berlin )."
    ) in question
    olga.post(f"{base}/deactivate")
    assert "switched off, so nothing of its sequence happens" in words(olga.get(here))
    time.now = now + 3 * DAY
    question = words(olga.get(f"{base}/activate"))
    assert "4 actions of its sequence come back, of 2 subjects, counted from when" in question
    assert "( Wed 25 Nov, 10:00 to Fri 27 Nov 2026, 10:00 Berlin )" in question
    assert "2 of them are late and run at once." in question
    olga.post(f"{base}/activate")
    assert (
        "4 actions of its sequence are planned again, of 2 subjects, counted from when each began."
        " 2 of them are late and run at once."
    ) in words(olga.get(base))
    assert sorted(run(sessions, time.now)) == ["Ann action2", "Bob action2"]


@pytest.mark.parametrize("past", ["skip", "run"])
def test_other_days_or_another_zone_say_in_numbers_what_moves_in_the_sequence(
    olga: Visitor, session: Session, sessions: sessionmaker[Session], now: datetime,
    campaign: Campaign, here: str, time: Clock, past: str,
) -> None:  # fmt: skip
    enrol(session, now, campaign, "Ann", "Bob")
    run(sessions, now)
    before = actions(session)
    path = f"/campaigns/{campaign.id}/edit"
    olga.get(path)
    typed: dict[str, object] = {
        name: value or "" for name, value in asdict(fields_of(campaign)).items()
    }

    def change(**given: object) -> str:
        """The question that comes first; it is answered, and nothing was saved before."""
        standing = actions(session)
        page = olga.post(path, typed | given)
        assert page.status_code == 200
        assert f"Save the days and zone of {campaign.name}?" in words(page)
        back = olga.post(path, typed | given | {"past": past, "back": "1"})
        assert all(f'value="{value}"' in back.text for value in given.values())
        assert actions(session) == standing
        typed.update(given)
        assert olga.post(path, typed | {"past": past}).status_code == 303
        return words(page)

    # 10:00 in New York is 15:00 UTC; in Berlin it is 09:00.
    question = change(timezone="America/New_York")
    assert "This changes what 2 subjects in the sequence get." in question
    assert (
        "action2 2 move Wed 25 Nov 2026, 10:00 Berlin Wed 25 Nov 2026, 10:00 New York" in question
    )
    assert "4 actions move to another moment." in question
    assert "4 actions move to another moment." in words(olga.get(here))
    assert actions(session) == [
        "action1 completed 23 09:00", "action2 pending 25 15:00", "action3 pending 27 15:00",
    ] * 2  # fmt: skip
    assert "4 actions vanish." in change(end_date="2026-11-24")
    assert actions(session)[1] == "action2 cancelled 25 15:00"
    time.now = now + 3 * DAY
    question = change(end_date="2026-12-31", timezone="Europe/Berlin")
    assert "Leave it out for them 2 actions appear. 2 actions are left out for good." in question
    assert "Run it at once for them 4 actions appear. 2 of them run at once." in question
    left_out = "action2 cancelled 25 09:00" if past == "skip" else "action2 pending 25 09:00"
    assert actions(session) == [before[0], left_out, before[2]] * 2
    # Nothing moves: nothing is asked.
    assert olga.post(path, typed | {"name": "Before purchase"}).status_code == 303


def test_home_has_the_steps_of_the_next_7_days_and_what_is_overdue(
    olga: Visitor, session: Session, now: datetime, campaign: Campaign, here: str, time: Clock
) -> None:
    enrol(session, now, campaign, "Ann", "Bob")
    enrol(session, now + DAY, campaign, "Carol")
    time.now = now + timedelta(minutes=1)
    page = words(olga.get("/"))
    assert (
        "Tue 24 Nov 10:00 Berlin Webhook to hooks.example.com (action1) After purchase 1 action"
        in page
    )
    assert (
        "Wed 25 Nov 10:00 Berlin Webhook to hooks.example.com (action2) After purchase 2 actions"
        in page
    )
    assert "Sat 28 Nov 10:00 Berlin Webhook to hooks.example.com (action3)" in page
    assert "overdue" not in page
    time.now = now + timedelta(minutes=6)
    assert "2 actions of its sequence should have run by now" in words(olga.get("/"))
    checklist = words(olga.get(f"/campaigns/{campaign.id}"))
    assert "3 steps, 3 subjects enrolled" in checklist


def test_a_campaign_needs_scenarios_or_a_sequence_not_both(
    olga: Visitor, session: Session, campaign: Campaign
) -> None:
    page = f"/campaigns/{campaign.id}"
    assert "To do: Sequence 3 steps, 0 subjects" in words(olga.get(page))
    assert "Scenarios optional No message yet" in words(olga.get(page))
    other = add_campaign(session, name="Autumn sale")
    page = f"/campaigns/{other.id}"
    assert "To do: Scenarios" in words(olga.get(page))
    assert "To do: Sequence" in words(olga.get(page))
    add_scenario(session, other)
    assert "Done: Scenarios 1 scheduled" in words(olga.get(page))
    assert "Sequence optional Several messages" in words(olga.get(page))


def test_who_leaves_the_campaign_leaves_its_sequence(
    olga: Visitor, session: Session, now: datetime, campaign: Campaign, here: str
) -> None:
    enrol(session, now, campaign, "Ann", "Bob")
    question = words(olga.get(f"/contacts/1/remove?campaign={campaign.id}"))
    assert "3 actions of a sequence will not happen." in question
    olga.post(f"/contacts/1/remove?campaign={campaign.id}")
    assert "3 actions of a sequence will not happen." in words(olga.get("/contacts/2/delete"))
    olga.post("/contacts/2/delete")
    assert [line.split()[1] for line in actions(session)] == ["cancelled"] * 6
    page = words(olga.get(f"{here}/subjects"))
    assert "Deleted contact" in page
    assert page.count("Withdrawn") == 3  # Two rows, and the filter.
    # Who was deleted is not there to go on with; an old page still has the buttons.
    gone = words(olga.get(f"{here}/subjects/2"))
    assert "Resume" not in gone
    assert "Restart" not in gone
    for verb in ("resume", "restart"):
        assert olga.post(f"{here}/subjects/2/{verb}").status_code == 303
        assert "This contact was deleted" in words(olga.get(f"{here}/subjects/2"))
    assert [line.split()[1] for line in actions(session)] == ["cancelled"] * 6


def test_an_action_of_another_campaign_is_not_found(
    olga: Visitor, session: Session, now: datetime, campaign: Campaign, here: str
) -> None:
    enrol(session, now, campaign, "Ann")
    other = add_campaign(fresh(session)).id
    session.rollback()
    olga.get("/")
    for path in ("subjects/1", "subjects/1/withdraw", "subjects/1/restart", "steps/action1"):
        assert olga.get(f"/campaigns/{other}/sequence/{path}").status_code == 404, path
    for path in ("actions/1/retry", "subjects/1/withdraw", "subjects/1/resume"):
        assert olga.post(f"/campaigns/{other}/sequence/{path}").status_code == 404, path
