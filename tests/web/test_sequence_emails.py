"""Olga looks after the emails of a sequence: held ones, and those in doubt."""

from datetime import datetime, timedelta

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from mcs.gateways import clock
from mcs.gateways.catcher import Box
from mcs.models import Action, Campaign, Delivery
from mcs.services import (
    deliveries,
    email_actions,
    email_starts,
    rescues,
    schedules,
    sequences,
    slice_claims,
    suppressions,
)
from mcs.services.definitions import SEND_EMAIL, Step
from mcs.services.schedules import Subject, subject_of
from tests.people import add_campaign, add_contact, add_scenario
from tests.web.visitor import Visitor, words

LEASE = timedelta(seconds=45)


@pytest.fixture(autouse=True)
def at_monday(monkeypatch: pytest.MonkeyPatch, now: datetime) -> None:
    monkeypatch.setattr(clock, "now", lambda: now)


@pytest.fixture
def campaign(app: Flask, session: Session, now: datetime) -> Campaign:
    """Ann's and Bob's emails are in doubt."""
    campaign = add_campaign(session, name="After purchase")
    hello = add_scenario(session, campaign, name="Welcome", date=None, time=None, state="draft")
    step = Step("hello", SEND_EMAIL, "0days", config={"scenario": hello.id})
    sequences.define(session, now, campaign.id, [step])
    for name in ("Ann", "Bob"):
        schedules.enrol(
            session, now, campaign.id, subject_of(add_contact(session, campaign, name).id)
        )
    email_starts.start(session, now)
    claim = slice_claims.claim(session, now, LEASE)
    assert claim is not None
    starts = [due.id for due in slice_claims.load(session, now, claim)]
    deliveries.advance(session, now, LEASE, [deliveries.Step(claim, starts=starts)])
    rescues.rescue(session, now + timedelta(minutes=1), "hold")
    return campaign


def states(session: Session) -> list[tuple[str, str]]:
    session.rollback()
    query = select(Action.state, Delivery.state).join(Delivery, Delivery.action_id == Action.id)
    return [(action, delivery) for action, delivery in session.execute(query.order_by(Action.id))]


def test_the_doubtful_are_found_from_home_and_settled(
    olga: Visitor, session: Session, campaign: Campaign
) -> None:
    base = f"/campaigns/{campaign.id}/sequence"
    assert f'href="{base}/doubts"' in olga.get("/").text
    assert f'href="{base}/doubts"' in olga.get(base).text
    page = words(olga.get(f"{base}/doubts"))
    assert "2 messages in doubt" in page
    assert "ann@people.example" in page
    ann = session.scalars(select(Delivery.id).order_by(Delivery.id)).first()
    answer = olga.post(f"{base}/doubts", {"delivery": ann, "answer": "sent"})
    assert answer.location == f"{base}/doubts"
    assert states(session) == [("completed", "sent"), ("processing", "in_doubt")]
    assert olga.post(f"{base}/doubts", {"answer": "failed"}).location == base
    assert states(session) == [("completed", "sent"), ("failed", "failed")]
    assert "Nothing of this sequence is in doubt." in words(olga.get(f"{base}/doubts"))


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, 422),
        ({"answer": "maybe"}, 422),
        ({"answer": "sent", "delivery": "abc"}, 404),
        ({"answer": "sent", "delivery": "999"}, 303),
    ],
)
def test_nonsense_settles_nothing(
    olga: Visitor, session: Session, campaign: Campaign, fields: dict[str, object], code: int
) -> None:
    path = f"/campaigns/{campaign.id}/sequence/doubts"
    olga.get(path)
    assert olga.post(path, fields).status_code == code
    assert states(session) == [("processing", "in_doubt")] * 2
    assert olga.get("/campaigns/999/sequence/doubts").status_code == 404


def test_held_emails_are_resumed_from_the_page_of_the_sequence(
    olga: Visitor, session: Session, now: datetime, campaign: Campaign
) -> None:
    base = f"/campaigns/{campaign.id}/sequence"
    assert "Resume its emails" not in words(olga.get(base))
    email_actions.hold(session, now, campaign.id, "The mail server refuses this sender: 535 no")
    assert "The mail server refuses this sender" in words(olga.get("/"))
    page = words(olga.get(base))
    assert "The mail server refuses this sender: 535 no" in page
    assert "Resume its emails" in page
    assert olga.post(f"{base}/resume").location == base
    session.refresh(campaign)
    assert campaign.held_at is None
    assert "Its emails go on." in words(olga.get(base))
    olga.post(f"{base}/resume")
    assert "there is nothing to resume" in words(olga.get(base))


def test_what_keeps_emails_from_going_out_is_said_before_they_are_due(
    olga: Visitor, session: Session, now: datetime
) -> None:
    new = add_campaign(session, name="Onboarding", from_email="", postal_address=" ")
    base = f"/campaigns/{new.id}/sequence"
    hello = add_scenario(session, new, name="Welcome", date=None, time=None, state="draft")
    hook = {"url": "https://shop.example/", "secret": "a secret of 24 characters"}
    steps = [Step("told", "webhook", "2days", config=hook)]
    sequences.define(session, now, new.id, steps)
    for kind, number in (("order", "1"), ("order", "2")):
        schedules.enrol(session, now, new.id, Subject(kind, number))
    schedules.enrol(session, now, new.id, subject_of(add_contact(session, new, "Carol").id))
    page = words(olga.get(base))
    assert "goes out before" not in page and "nobody to write to" not in page
    steps.append(Step("hello", SEND_EMAIL, "3days", config={"scenario": hello.id}))
    sequences.define(session, now, new.id, steps)
    answer = olga.get(base)
    missing = "The campaign still misses a From address and a postal address"
    assert f"{missing}: no email of its sequence goes out before. Fill it in" in words(answer)
    assert f'href="/campaigns/{new.id}/edit#from_name"' in answer.text
    assert "2 subjects have no contact, so there is nobody to write to" in words(answer)
    new.from_email, new.postal_address = "ada@shop.example", "1 Main Street, Berlin"
    session.commit()
    assert "still misses" not in words(olga.get(base))


def test_the_page_of_a_contact_shows_what_sequences_sent(
    olga: Visitor, session: Session, campaign: Campaign
) -> None:
    delivery = session.scalars(select(Delivery).order_by(Delivery.id)).first()
    assert delivery is not None
    page = words(olga.get(f"/contacts/{delivery.contact_id}"))
    assert "Welcome" in page
    assert "After purchase" in page


def test_a_step_leads_to_its_message_in_the_ledger_and_in_the_mailbox_and_back(
    olga: Visitor, app: Flask, session: Session, now: datetime, campaign: Campaign
) -> None:
    base = f"/campaigns/{campaign.id}/sequence"
    ann, bob = session.scalars(select(Delivery).order_by(Delivery.id)).all()
    one, other = f"/deliveries/{ann.id}", f"/deliveries/{bob.id}"
    for path in (f"{base}/subjects/1", f"/contacts/{ann.contact_id}"):
        page = olga.get(path).text
        assert f'href="{one}"' in page and f'href="{other}"' not in page, path
    letter = f"Subject: Hello\r\nX-MCS-Delivery: {ann.message_id}\r\n\r\nDear Ann\r\n".encode()
    box = Box(app.config["SETTINGS"].instance)
    box.add(now, "ada@shop.example", ["ann@people.example"], letter)
    box.add(now, "ada@shop.example", ["bob@people.example"], b"Subject: A test\r\n\r\nHello\r\n")
    row = olga.get(one)
    assert "Welcome In doubt What became of the message to" in words(row)
    assert ann.message_id in words(row)
    for href in ("/mailbox/1", f"{base}/subjects/1", f"/contacts/{ann.contact_id}"):
        assert f'href="{href}"' in row.text
    assert f'href="{one}"' in olga.get("/mailbox/1").text
    assert "/deliveries/" not in olga.get("/mailbox/2").text
    assert 'href="/mailbox/1"' not in olga.get(other).text
    assert olga.get("/deliveries/999").status_code == 404


def test_a_step_left_out_is_not_called_done(
    olga: Visitor, session: Session, now: datetime, campaign: Campaign
) -> None:
    base = f"/campaigns/{campaign.id}/sequence"
    charlie = add_contact(session, campaign, "Charlie")
    suppressions.suppress(session, now, charlie.email_key, suppressions.UNSUBSCRIBED)
    began = schedules.enrol(session, now, campaign.id, subject_of(charlie.id))
    email_starts.start(session, now)
    for path in (f"subjects/{began.schedule_id}", "actions?q=Charlie"):
        answer = olga.get(f"{base}/{path}")
        assert "Left out" in words(answer) and "unsubscribed" in words(answer)
        assert "</svg>Completed<" not in answer.text and " done " not in words(answer)
    doubtful = session.scalars(select(Delivery.id).order_by(Delivery.id)).first()
    olga.post(f"{base}/doubts", {"delivery": doubtful, "answer": "sent"})
    page = olga.get(f"{base}/actions?q=Ann")
    assert "</svg>Completed<" in page.text and "Left out" not in words(page)
