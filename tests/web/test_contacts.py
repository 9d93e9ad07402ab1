"""The people Olga writes to: finding them, holding back, forgetting them."""

import csv
import io
from datetime import datetime, timedelta

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from mcs.config import Settings
from mcs.core.addresses import tombstone_key
from mcs.gateways import clock
from mcs.models import Action, BatchContact, Campaign, Contact, Delivery, Slice, Suppression
from mcs.services import emailers, planning, schedules, sequences
from mcs.services.definitions import SEND_EMAIL, Step
from mcs.services.schedules import subject_of
from tests.people import add_campaign, add_contact, add_scenario
from tests.web.test_emailers import LIMIT
from tests.web.visitor import Visitor, words


@pytest.fixture(autouse=True)
def at_monday(monkeypatch: pytest.MonkeyPatch, now: datetime) -> None:
    monkeypatch.setattr(clock, "now", lambda: now)


@pytest.fixture
def autumn(session: Session) -> Campaign:
    return add_campaign(session, name="Autumn sale")


@pytest.fixture
def ann(session: Session, autumn: Campaign) -> Contact:
    return add_contact(session, autumn, "Ann", company="Acme")


@pytest.fixture
def charlie(session: Session, autumn: Campaign, now: datetime) -> Contact:
    contact = add_contact(session, autumn, "Charlie")
    session.add(Suppression(email_key=contact.email_key, reason="unsubscribed", created_at=now))
    session.commit()
    return contact


def suppressed(session: Session) -> list[tuple[str, int | None, str]]:
    session.rollback()
    rows = session.scalars(select(Suppression).order_by(Suppression.id))
    return [(row.email_key, row.campaign_id, row.reason) for row in rows]


def test_people_are_found_by_name_and_address(
    olga: Visitor, session: Session, autumn: Campaign, ann: Contact, charlie: Contact
) -> None:
    add_contact(session, None, "Bob")
    here = f"/campaigns/{autumn.id}/contacts"
    for path, seen in (
        ("/contacts/", {"Ann", "Bob", "Charlie"}),
        (here, {"Ann", "Charlie"}),
        (here + "/", {"Ann", "Charlie"}),
        ("/contacts/?q=bo", {"Bob"}),
        ("/contacts/?q=ANN@people.example", {"Ann"}),
        ("/contacts/?state=unsubscribed", {"Charlie"}),
        (f"{here}?state=subscribed", {"Ann"}),
        ("/contacts/?q=%25", set()),
        ("/contacts/?q=%27+OR+1%3D1--&after=x", set()),
    ):
        text = olga.get(path).text
        found = {name for name in ("Ann", "Bob", "Charlie") if f">{name}</a>" in text}
        assert found == seen, path
    page = words(olga.get(here))
    assert "2 contacts, minus 1 not to be written to, makes 1." in page


def test_the_page_says_what_they_got_and_will_get(
    olga: Visitor, app: Flask, session: Session, autumn: Campaign, ann: Contact, now: datetime
) -> None:
    add_scenario(session, autumn, name="Opening")
    add_scenario(session, autumn, name="Last days", date=autumn.end_date)
    queue = app.extensions["jobqueue"]
    (emailer_id, *_) = planning.plan_campaign(session, now, queue, autumn.id)
    emailers.send(session, now, queue, emailer_id, LIMIT)
    delivery = session.scalars(select(Delivery)).one()
    delivery.state, delivery.sent_at = "sent", now
    session.commit()
    page = words(olga.get(f"/contacts/{ann.id}"))
    will, got = page.split("What they got")
    assert "Last days" in will and "Mon 30 Nov 2026, 10:00 Berlin" in will
    assert "Opening" in got and "Acme" in got
    assert "Opening" not in will


def test_what_has_begun_and_is_still_to_go_to_them_is_to_come(
    olga: Visitor, app: Flask, session: Session, autumn: Campaign, ann: Contact, now: datetime
) -> None:
    add_scenario(session, autumn, name="Opening")
    queue = app.extensions["jobqueue"]
    (emailer_id,) = planning.plan_campaign(session, now, queue, autumn.id)
    emailers.send(session, now, queue, emailer_id, LIMIT)
    here = f"/contacts/{ann.id}"

    def will_get() -> str:
        will, got = words(olga.get(here)).split("What they got")
        assert got.startswith(" Nothing yet.")
        return will

    assert will_get().endswith("Opening Autumn sale Pending Being sent ")
    delivery = session.scalars(select(Delivery)).one()
    delivery.attempts, delivery.due_at = 1, now + timedelta(hours=1)
    session.commit()
    assert will_get().endswith("Pending Tried again Mon 23 Nov 2026, 11:00 Berlin ")
    emailers.pause(session, now, emailer_id)
    assert will_get().endswith("Opening Autumn sale Pending Its sending is paused ")
    assert f'href="/emailers/{emailer_id}?q=ann%40people.example#ledger"' in olga.get(here).text
    assert "1 email that would have gone to them is left out." in words(
        olga.get(f"{here}/suppress")
    )
    assert "1 email to come will not go to them." in words(olga.get(f"{here}/delete"))
    remove = f"{here}/remove?campaign={autumn.id}"
    assert "1 email of it will not go to them." in words(olga.get(remove))
    olga.post(f"{here}/suppress")
    will, got = words(olga.get(here)).split("What they got")
    assert "Nothing is scheduled for them." in will and "Opening Autumn sale · blocked" in got


def test_a_message_of_a_sequence_that_is_tried_again_is_to_come(
    olga: Visitor, session: Session, autumn: Campaign, ann: Contact, now: datetime
) -> None:
    hello = add_scenario(session, autumn, name="Welcome", date=None, time=None, state="draft")
    step = Step("hello", SEND_EMAIL, "1hour", config={"scenario": hello.id})
    sequences.define(session, now, autumn.id, [step])
    began = schedules.enrol(session, now, autumn.id, subject_of(ann.id))
    action = session.scalars(select(Action)).one()
    action.state, later = "processing", now + timedelta(hours=2)
    part = Slice(scenario_id=hello.id, low_id=1, high_id=1, due_at=later, pending=1)
    session.add(part)
    session.flush()
    session.add(
        Delivery(
            action_id=action.id,
            slice_id=part.id,
            contact_id=ann.id,
            state="pending",
            attempts=1,
            due_at=later,
        )
    )
    session.commit()
    answer = olga.get(f"/contacts/{ann.id}")
    will, _got = words(answer).split("What they got")
    assert "Welcome Autumn sale Pending Tried again Mon 23 Nov 2026, 12:00 Berlin" in will
    assert f"/campaigns/{autumn.id}/sequence/subjects/{began.schedule_id}" in answer.text


def test_what_sequences_owe_them_is_to_come_too(
    olga: Visitor, session: Session, autumn: Campaign, ann: Contact, now: datetime
) -> None:
    hello, bye = (
        add_scenario(session, autumn, name=name, date=None, time=None, state="draft")
        for name in ("Welcome", "How was it?")
    )
    steps = [
        Step("hello", SEND_EMAIL, "2days", time="10:00", config={"scenario": hello.id}),
        Step("bye", SEND_EMAIL, "1day", after="hello", config={"scenario": bye.id}),
        Step(
            "post", "webhook", "1day", config={"url": "https://shop.example/", "secret": "s" * 16}
        ),
    ]
    sequences.define(session, now, autumn.id, steps)
    began = schedules.enrol(session, now, autumn.id, subject_of(ann.id))
    add_scenario(session, autumn, name="Last days", date=autumn.end_date)
    answer = olga.get(f"/contacts/{ann.id}")
    will, _ = words(answer).split("What they got")
    assert "Welcome Autumn sale Wed 25 Nov 2026, 10:00 Berlin" in will
    assert "How was it? Autumn sale Once another step is done" in will
    assert will.index("Welcome") < will.index("Last days") < will.index("How was it?")
    assert "Nothing is scheduled" not in will and "Webhook" not in will
    assert f"/campaigns/{autumn.id}/sequence/subjects/{began.schedule_id}" in answer.text
    assert "3 emails that would have gone" in words(olga.get(f"/contacts/{ann.id}/suppress"))
    asked = words(olga.get(f"/contacts/{ann.id}/delete"))
    assert "1 email to come will not go to them. 3 actions of a sequence will not happen." in asked
    olga.post(f"/contacts/{ann.id}/suppress")
    assert words(olga.get(f"/contacts/{ann.id}")).count("left out, since they are not to be") == 3


def test_where_nothing_is_to_come_the_questions_say_so(
    olga: Visitor, autumn: Campaign, ann: Contact
) -> None:
    for path in ("delete", f"remove?campaign={autumn.id}", "suppress"):
        asked = words(olga.get(f"/contacts/{ann.id}/{path}"))
        assert "Nothing is to come for them." in asked and " 0 " not in asked, path


def test_hold_back_and_write_again(
    olga: Visitor, session: Session, autumn: Campaign, ann: Contact
) -> None:
    path = f"/contacts/{ann.id}"
    assert "Write to ann@people.example no more?" in words(olga.get(f"{path}/suppress"))
    assert suppressed(session) == []
    olga.post(f"{path}/suppress?campaign={autumn.id}")
    assert suppressed(session) == [("ann@people.example", autumn.id, "blocked")]
    olga.post(f"{path}/suppress")
    assert "Gets no email." in words(olga.get(path))
    assert "Blocked by hand." in words(olga.get(f"{path}/allow"))
    olga.post(f"{path}/allow")
    assert suppressed(session) == [("ann@people.example", autumn.id, "blocked")]
    olga.post(f"{path}/allow?campaign={autumn.id}")
    assert suppressed(session) == []


def test_removing_from_a_campaign_skips_what_is_still_to_go(
    olga: Visitor, app: Flask, session: Session, autumn: Campaign, ann: Contact, now: datetime
) -> None:
    add_contact(session, autumn, "Bob")
    add_scenario(session, autumn)
    queue = app.extensions["jobqueue"]
    (emailer_id,) = planning.plan_campaign(session, now, queue, autumn.id)
    emailers.send(session, now, queue, emailer_id, LIMIT)
    asked = words(olga.get(f"/contacts/{ann.id}/remove?campaign={autumn.id}"))
    assert "from Autumn sale?" in asked
    assert olga.post(f"/contacts/{ann.id}/remove?campaign={autumn.id}").status_code == 303
    session.rollback()
    states = dict(session.execute(select(Delivery.contact_id, Delivery.reason)).all())
    assert states[ann.id] == "removed"
    part = session.scalars(select(Slice)).one()
    assert (part.pending, part.skipped) == (1, 1)
    assert session.get(BatchContact, (autumn.batch.id, ann.id)) is None


def test_deleting_leaves_a_tombstone_and_the_suppression_holds(
    olga: Visitor, settings: Settings, session: Session, autumn: Campaign, charlie: Contact
) -> None:
    asked = words(olga.get(f"/contacts/{charlie.id}/delete"))
    assert "in 1 campaign; this cannot be undone" in asked
    assert olga.post(f"/contacts/{charlie.id}/delete").location == "/contacts/"
    grave = tombstone_key(settings.secret_key, "charlie@people.example")
    assert suppressed(session) == [(grave, None, "unsubscribed")]
    session.expire_all()
    assert (charlie.email, charlie.name, charlie.email_key, charlie.attributes) == (
        "",
        "",
        grave,
        {},
    )
    assert olga.get(f"/contacts/{charlie.id}").status_code == 404
    assert olga.post(f"/contacts/{charlie.id}/delete").status_code == 404
    olga.get(f"/campaigns/{autumn.id}/contacts/new")
    olga.post(f"/campaigns/{autumn.id}/contacts/new", {"email": "Charlie@people.example"})
    assert suppressed(session) == [("charlie@people.example", None, "unsubscribed")]
    session.expire_all()
    assert (charlie.email, charlie.deleted_at) == ("Charlie@people.example", None)


def test_one_contact_is_added_by_hand(
    olga: Visitor, session: Session, autumn: Campaign, ann: Contact
) -> None:
    path = f"/campaigns/{autumn.id}/contacts/new"
    assert "company" in words(olga.get(path))
    bad = olga.post(path, {"email": "no address", "name": "Dora"})
    assert bad.status_code == 422 and "Dora" in bad.text
    twice = olga.post(path, {"email": "dora@@people.example"})
    assert "There is more than one @." in words(twice)
    assert olga.post(path, {"name": "Dora"}).status_code == 422
    done = olga.post(path, {"email": "dora@people.example", "attribute-company": "Globex"})
    assert done.status_code == 303
    again = olga.post(
        path, {"email": "DORA@people.example", "name": "Dora", "attribute-company": ""}
    )
    assert again.location == done.location
    session.rollback()
    dora = session.scalars(select(Contact).where(Contact.email_key == "dora@people.example")).one()
    assert (dora.name, dora.attributes) == ("Dora", {"company": "Globex"})


def test_the_export_is_a_csv_without_formulas(
    olga: Visitor, session: Session, autumn: Campaign, ann: Contact, charlie: Contact
) -> None:
    add_contact(session, autumn, "=cmd|calc", company="@SUM(1)", city="Łódź\nPoland")
    answer = olga.get(f"/campaigns/{autumn.id}/contacts.csv")
    assert (
        answer.headers["Content-Disposition"] == 'attachment; filename="autumn-sale-contacts.csv"'
    )
    text = answer.data.decode("utf-8-sig")
    head, *people = csv.reader(io.StringIO(text))
    assert head == ["email", "name", "company", "city", "status"]
    assert people[0] == ["ann@people.example", "Ann", "Acme", "", "subscribed"]
    assert people[1][-1] == "unsubscribed"
    assert people[2][1:4] == ["'=cmd|calc", "'@SUM(1)", "Łódź\nPoland"]


def test_nothing_typed_scripts_a_page(olga: Visitor, session: Session, autumn: Campaign) -> None:
    evil = add_contact(session, autumn, "<script>alert(1)</script>", note="<img src=x>")
    for path in ("/contacts/", f"/contacts/{evil.id}", f"/contacts/{evil.id}/delete"):
        text = olga.get(path).text
        assert "<script>alert" not in text and "<img" not in text
