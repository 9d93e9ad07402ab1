"""Olga writes what goes out: drafts, scheduling, and what is said before harm is done."""

import re
from datetime import UTC, date, datetime, time, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from mcs.gateways import clock
from mcs.models import Campaign, Contact, Delivery, Emailer, Scenario
from mcs.services import scenarios, suppressions
from tests.people import add_campaign, add_contact, add_scenario
from tests.web.visitor import Visitor, words

HELLO = {
    "name": "Opening",
    "subject": "Hello {{ first_name }}",
    "content": "Dear {{ name }},\r\n\r\nwe open on Tuesday.",
    "date": "2026-11-24",
    "time": "10:00",
}


@pytest.fixture(autouse=True)
def at_monday(monkeypatch: pytest.MonkeyPatch, now: datetime) -> None:
    monkeypatch.setattr(clock, "now", lambda: now)


@pytest.fixture
def autumn(session: Session) -> Campaign:
    campaign = add_campaign(session, name="Autumn sale")
    for name in ("Ann", "Bob", "Charlie"):
        add_contact(session, campaign, name, company="Acme")
    return campaign


def new(olga: Visitor, campaign: Campaign, **changes: str) -> TestResponse:
    """What an outsider posts: the contract's fields and nothing else."""
    return olga.post(f"/campaigns/{campaign.id}/scenarios/new", HELLO | changes)


def only(session: Session) -> Scenario:
    session.rollback()
    return session.scalars(select(Scenario).execution_options(populate_existing=True)).one()


def test_the_button_says_the_number_and_the_time(olga: Visitor, autumn: Campaign) -> None:
    page = words(olga.get(f"/campaigns/{autumn.id}/scenarios/new"))
    assert "Schedule 3 emails for Tue 24 Nov, 10:00 Berlin" in page


@pytest.mark.parametrize("change", [{"date": "2026-11-22"}, {"content": "{{ compny }}"}])
def test_the_button_promises_nothing_that_would_be_refused(
    olga: Visitor, autumn: Campaign, change: dict[str, str]
) -> None:
    path = f"/campaigns/{autumn.id}/scenarios/check"
    assert "data-not-yet" not in olga.post(path, HELLO).text
    page = olga.post(path, HELLO | change).text
    assert "Cannot be scheduled yet: see above" in page and "data-not-yet" in page


def test_a_scenario_is_scheduled_and_planned_at_once(
    olga: Visitor, session: Session, autumn: Campaign
) -> None:
    answer = new(olga, autumn)
    scenario = only(session)
    assert (answer.status_code, answer.location) == (303, f"/scenarios/{scenario.id}")
    assert (scenario.state, scenario.format) == ("scheduled", "text")
    assert (scenario.date, scenario.time) == (date(2026, 11, 24), time(10, 0))
    assert scenario.content == "Dear {{ name }},\n\nwe open on Tuesday."
    emailer = session.scalars(select(Emailer)).one()
    assert emailer.scheduled_at == datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
    page = words(olga.get(answer.location))
    assert "is scheduled for Tue 24 Nov, 10:00 Berlin." in page
    assert "Tue 24 Nov 2026, 10:00 Berlin" in page


def test_a_draft_is_kept_as_it_is_and_nothing_is_planned(
    olga: Visitor, session: Session, autumn: Campaign
) -> None:
    answer = new(olga, autumn, draft="1", subject="", content="{{ nobody_has }}", date="", time="")
    assert answer.status_code == 303
    scenario = only(session)
    assert (scenario.state, scenario.date, scenario.content) == ("draft", None, "{{ nobody_has }}")
    assert session.scalars(select(Emailer)).all() == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"date": "2026-12-01"}, "is after the campaign's last day, Mon 30 Nov"),
        ({"date": "2026-11-22"}, "is before the campaign's first day, Mon 23 Nov"),
        ({"date": "2026-11-23", "time": "09:00"}, "Mon 23 Nov, 09:00 Berlin has passed"),
        ({"date": ""}, "The date at which it goes out is missing."),
        ({"time": ""}, "The time at which it goes out is missing."),
        ({"date": "tomorrow"}, "Write the date as year-month-day"),
        ({"time": "25:00"}, "Write the time as hours:minutes"),
        ({"subject": " "}, "The subject is empty."),
        ({"content": ""}, "The content is empty."),
        ({"content": "{{ compnay }}"}, "did you mean company?"),
        ({"content": "{{ name.upper() }}"}, "is not allowed"),
        ({"subject": "Hi {{"}, "Hi {{"),
        ({"name": ""}, "Give the scenario a name"),
        ({"name": "x" * 201}, "up to 200 characters"),
        ({"subject": "x" * 501}, "up to 500 characters"),
        ({"format": "html"}, "Not a valid choice"),
    ],
)
def test_what_cannot_go_out_is_refused_with_the_form_and_nothing_is_lost(
    olga: Visitor, session: Session, autumn: Campaign, changes: dict[str, str], sentence: str
) -> None:
    answer = new(olga, autumn, **changes)
    assert answer.status_code == 422
    assert sentence in words(answer) or sentence in answer.text
    for value in (HELLO | changes).values():
        if len(value) < 60 and "{" not in value and value.strip() and value != "html":
            assert value.split("\r\n")[0] in answer.text
    assert session.scalars(select(Scenario)).all() == []


def test_a_minute_that_has_only_just_passed_still_counts(
    olga: Visitor, session: Session, autumn: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    noon = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
    monkeypatch.setattr(clock, "now", lambda: noon + timedelta(seconds=61))
    assert new(olga, autumn).status_code == 422
    monkeypatch.setattr(clock, "now", lambda: noon + timedelta(seconds=59))
    assert new(olga, autumn).status_code == 303


def test_a_campaign_without_a_postal_address_cannot_schedule(
    olga: Visitor, session: Session
) -> None:
    campaign = add_campaign(session, postal_address="", from_email="")
    answer = new(olga, campaign)
    assert answer.status_code == 422
    assert "The campaign has no sender address." in words(answer)
    assert "no postal address" in words(answer)


def test_an_empty_batch_is_only_a_warning(olga: Visitor, session: Session) -> None:
    campaign = add_campaign(session)
    answer = new(olga, campaign, content="From {{ company }}")
    assert answer.status_code == 303
    page = words(olga.get(answer.location))
    assert "The campaign has no contacts yet" in page
    assert "{{ company }} cannot be checked" in page


def test_a_time_that_does_not_exist_says_when_it_goes_out(olga: Visitor, session: Session) -> None:
    spring = add_campaign(session, start_date=date(2027, 3, 1), end_date=date(2027, 4, 1))
    answer = new(olga, spring, date="2027-03-28", time="02:30")
    assert answer.status_code == 303
    page = words(olga.get(answer.location))
    assert "02:30 does not exist that day in Berlin" in page
    assert "it goes out at 03:00" in page


def test_editing_moves_what_is_planned_and_a_draft_withdraws_it(
    olga: Visitor, session: Session, autumn: Campaign
) -> None:
    scenario = add_scenario(session, autumn, date=date(2026, 11, 24))
    path = f"/scenarios/{scenario.id}"
    olga.get(path)
    assert olga.post(f"{path}/edit", HELLO | {"time": "09:45"}).status_code == 303
    session.rollback()
    emailer = session.scalars(select(Emailer)).one()
    assert emailer.scheduled_at == datetime(2026, 11, 24, 8, 45, tzinfo=UTC)
    assert olga.post(f"{path}/unschedule").status_code == 303
    session.rollback()
    assert session.scalars(select(Emailer)).all() == []
    assert only(session).state == "draft"
    assert olga.post(f"{path}/schedule").status_code == 303
    assert only(session).state == "scheduled"


def begin(session: Session, scenario: Scenario, now: datetime) -> Emailer:
    emailer = Emailer(
        scenario_id=scenario.id,
        state="sending",
        scheduled_at=now,
        started_at=now,
        recipients=3,
        created_at=now,
    )
    session.add(emailer)
    session.commit()
    return emailer


def test_once_sending_has_begun_it_is_frozen(
    olga: Visitor, session: Session, autumn: Campaign, now: datetime
) -> None:
    scenario = add_scenario(session, autumn)
    begin(session, scenario, now)
    path = f"/scenarios/{scenario.id}"
    olga.get(path)
    for verb, fields in (
        ("edit", HELLO),
        ("edit", HELLO | {"draft": "1"}),
        ("unschedule", {}),
        ("schedule", {}),
        ("delete", {}),
    ):
        answer = olga.post(f"{path}/{verb}", fields)
        assert answer.status_code == 409, verb
        assert "not changed any more" in words(answer)
        assert f"{path}/duplicate" in answer.text
    assert olga.get(f"{path}/edit").status_code == 409
    assert only(session).subject == "Hello {{ name }}"


def test_those_added_since_get_a_scenario_of_their_own_once(
    olga: Visitor, session: Session, autumn: Campaign, now: datetime
) -> None:
    scenario = add_scenario(session, autumn)
    begin(session, scenario, now)
    page = olga.get(f"/scenarios/{scenario.id}")
    assert "Send to the 3 added since" in words(page)
    first = olga.post(f"/scenarios/{scenario.id}/added")
    second = olga.post(f"/scenarios/{scenario.id}/added")
    assert first.location == second.location
    session.rollback()
    made = session.scalars(select(Scenario).order_by(Scenario.id.desc()).limit(1)).one()
    assert (made.excludes_id, made.state, made.date) == (scenario.id, "draft", None)


def test_duplicate_and_delete(olga: Visitor, session: Session, autumn: Campaign) -> None:
    path = f"/scenarios/{add_scenario(session, autumn).id}"
    olga.get(path)
    assert olga.post(f"{path}/duplicate").status_code == 303
    asked = words(olga.get(f"{path}/delete"))
    assert "3 emails that are scheduled will not go out" in asked
    assert olga.post(f"{path}/delete").status_code == 303
    assert only(session).name == "Hello (copy)"
    assert olga.get(path).status_code == 404


@pytest.mark.parametrize(
    ("name", "copies"),
    [
        ("Hello", ["Hello (copy)", "Hello (copy 2)", "Hello (copy 3)"]),
        ("Hello (copy 7)", ["Hello (copy)", "Hello (copy 2)", "Hello (copy 3)"]),
        ("x" * 200, ["x" * 193 + " (copy)", "x" * 191 + " (copy 2)", "x" * 191 + " (copy 3)"]),
    ],
)
def test_each_duplicate_has_a_name_of_its_own(
    session: Session, autumn: Campaign, now: datetime, name: str, copies: list[str]
) -> None:
    original = add_scenario(session, autumn, name=name).id
    # Of another campaign: it may be called the same.
    add_scenario(session, add_campaign(session), name="Hello (copy)")
    made = [scenarios.duplicate(session, now, original) for _ in copies]
    assert [session.get_one(Scenario, one).name for one in made] == copies


def test_the_duplicate_of_a_duplicate_is_the_next_one(
    session: Session, autumn: Campaign, now: datetime
) -> None:
    first = scenarios.duplicate(session, now, add_scenario(session, autumn).id)
    second = scenarios.duplicate(session, now, first)
    assert session.get_one(Scenario, second).name == "Hello (copy 2)"


def test_the_preview_is_what_the_chosen_contact_gets_and_can_do_nothing(
    olga: Visitor, autumn: Campaign
) -> None:
    olga.get(f"/campaigns/{autumn.id}/scenarios/new")
    typed = HELLO | {
        "reader": "bob@people.example",
        "content": "# Hi {{ name }}",
        "format": "markdown",
    }
    answer = olga.post(f"/campaigns/{autumn.id}/scenarios/preview", typed)
    assert answer.status_code == 200
    assert "Hi Bob</h1>" in answer.text
    policy = answer.headers["Content-Security-Policy"]
    assert policy.endswith("sandbox") and "default-src 'none'" in policy and "script" not in policy
    text = olga.post(f"/campaigns/{autumn.id}/scenarios/preview", typed | {"view": "text"})
    assert "<pre>" in text.text and "Hi Bob" in text.text
    broken = olga.post(f"/campaigns/{autumn.id}/scenarios/preview", typed | {"content": "{{"})
    assert broken.status_code == 200
    part = words(olga.post(f"/campaigns/{autumn.id}/scenarios/check", typed))
    assert "Hello Bob" in part and "Tue 24 Nov, 10:00 Berlin" in part


@pytest.mark.parametrize("everywhere", [True, False])
def test_the_preview_is_of_somebody_who_gets_the_mail(
    olga: Visitor, session: Session, now: datetime, autumn: Campaign, everywhere: bool
) -> None:
    scope = None if everywhere else autumn.id
    suppressions.suppress(session, now, "ann@people.example", "unsubscribed", scope)
    other = add_campaign(session, name="Spring sale")
    suppressions.suppress(session, now, "bob@people.example", "blocked", other.id)
    page = olga.get(f"/campaigns/{autumn.id}/scenarios/new").text
    assert "ann@people.example" not in page
    assert 'placeholder="bob@people.example"' in page


def test_what_goes_to_those_added_since_is_shown_as_one_of_them_gets_it(
    olga: Visitor, session: Session, now: datetime, autumn: Campaign
) -> None:
    """Ann, Bob and Charlie have had it; Dora came after."""
    original = add_scenario(session, autumn)
    emailer = begin(session, original, now)
    for contact in session.scalars(select(Contact)):
        session.add(Delivery(emailer_id=emailer.id, contact_id=contact.id, due_at=now))
    add_contact(session, autumn, "Dora", company="Acme")
    made = olga.post(f"/scenarios/{original.id}/added").location.removesuffix("/edit")
    for page in (made, f"{made}/edit"):
        shown = olga.get(page).text
        assert 'placeholder="dora@people.example"' in shown, page
        assert "ann@people.example" not in shown, page
    assert "Dora" in olga.get(f"{made}/preview").text
    base, of = f"/campaigns/{autumn.id}/scenarios", f"?scenario={made.rpartition('/')[2]}"
    assert f'hx-get="{base}/readers{of}"' in olga.get(f"{made}/edit").text
    assert "Dear Dora" in olga.post(f"{base}/preview{of}", HELLO).text
    assert "Hello Dora" in words(olga.post(f"{base}/check{of}", HELLO))
    assert olga.get(f"{base}/readers{of}").text.count("<option") == 1
    assert "option" not in olga.get(f"{base}/readers{of}&reader=ann").text
    # What went to all is shown as any of them got it.
    assert 'placeholder="ann@people.example"' in olga.get(f"/scenarios/{original.id}").text


def test_a_preview_link_cannot_unsubscribe_anybody(olga: Visitor, autumn: Campaign) -> None:
    olga.get(f"/campaigns/{autumn.id}/scenarios/new")
    answer = olga.post(f"/campaigns/{autumn.id}/scenarios/preview", HELLO)
    links = set(re.findall(r'href="([^"]*/u/[^"]*)"', answer.text))
    assert links == {"http://mcs.example/u/preview"}
    assert olga.get("/u/preview").status_code == 404


def test_what_is_typed_scripts_no_page(olga: Visitor, session: Session, autumn: Campaign) -> None:
    evil = "<script>alert(1)</script>"
    answer = new(olga, autumn, name=evil, subject=evil, content=evil)
    for path in (
        answer.location,
        f"{answer.location}/preview",
        "/scenarios/",
        f"{answer.location}/edit",
    ):
        assert evil not in olga.get(path).text


def test_the_list_is_searched_filtered_and_paged(
    olga: Visitor, session: Session, autumn: Campaign
) -> None:
    for number in range(60):
        add_scenario(session, autumn, name=f"Letter {number}", date=date(2026, 11, 24))
    add_scenario(session, add_campaign(session, name="Winter"), name="Snow", state="draft")
    first = olga.get("/scenarios/")
    assert first.text.count('href="/scenarios/') - first.text.count('href="/scenarios/"') >= 50
    following = re.search(r'rel="next" href="([^"]+)"', first.text)
    assert following
    second = olga.get(following[1].replace("&amp;", "&"))
    assert "Letter 0" in words(second) and "Letter 59" not in words(second)
    assert "Letter" not in words(olga.get("/scenarios/?q=snow"))
    assert "Snow" not in words(olga.get("/scenarios/?state=scheduled"))
    assert "Snow" not in words(olga.get(f"/campaigns/{autumn.id}/scenarios/"))
    for query in (
        "after=%00",
        "after=x_y_z",
        "campaign=99999999999999999999",
        "q=%25'--",
        "state=x",
    ):
        assert olga.get(f"/scenarios/?{query}").status_code == 200


@pytest.mark.parametrize(
    "path", ["/scenarios/7", "/scenarios/99999999999999999999", "/scenarios/7/edit"]
)
def test_what_is_not_there_is_not_found(olga: Visitor, path: str) -> None:
    assert olga.get(path).status_code == 404


def test_one_that_others_leave_out_can_be_deleted_before_it_began(
    olga: Visitor, session: Session, autumn: Campaign
) -> None:
    assert new(olga, autumn).status_code == 303
    original = only(session).id
    assert olga.post(f"/scenarios/{original}/added").status_code == 303
    assert olga.post(f"/scenarios/{original}/delete").status_code == 303
    assert only(session).excludes_id is None


def test_nul_is_never_stored(olga: Visitor, session: Session, autumn: Campaign) -> None:
    assert new(olga, autumn, name="A\x00B", content="C\x00D").status_code == 303
    assert (only(session).name, only(session).content) == ("AB", "CD")
