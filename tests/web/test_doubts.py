"""Olga settles what a crash left in doubt, and has the failed ones tried again."""

from datetime import datetime, timedelta

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from mcs.gateways import clock
from mcs.gateways.jobqueue import JobQueue
from mcs.models import Delivery, Emailer
from mcs.services import (
    deliveries,
    emailers,
    planning,
    rescues,
    slice_claims,
    suppressions,
)
from tests.people import add_campaign, add_contact, add_scenario
from tests.web.visitor import Visitor, words

LEASE = timedelta(seconds=45)


@pytest.fixture(autouse=True)
def at_monday(monkeypatch: pytest.MonkeyPatch, now: datetime) -> None:
    monkeypatch.setattr(clock, "now", lambda: now)


@pytest.fixture
def doubtful(app: Flask, session: Session, now: datetime) -> int:
    """Ann's and Bob's messages are in doubt, Cleo's failed."""
    queue: JobQueue = app.extensions["jobqueue"]
    campaign = add_campaign(session, name="Autumn sale")
    for name in ("Ann", "Bob", "Cleo"):
        add_contact(session, campaign, name)
    add_scenario(session, campaign, name="Opening")
    (emailer_id,) = planning.plan_campaign(session, now, queue, campaign.id)
    emailers.send(session, now, queue, emailer_id, timedelta(hours=2))
    claim = slice_claims.claim(session, now, LEASE)
    assert claim is not None
    ann, bob, cleo = (due.id for due in slice_claims.load(session, now, claim))
    failed = deliveries.Outcome(cleo, "failed", now, reason="the mailbox does not take mail")
    step = deliveries.Step(claim, starts=[ann, bob], refusals=[failed])
    deliveries.advance(session, now, LEASE, [step])
    rescues.rescue(session, now + timedelta(minutes=1), "hold")
    emailers.finish(session, now, emailer_id)
    return emailer_id


def states(session: Session) -> list[str]:
    session.rollback()
    return list(session.scalars(select(Delivery.state).order_by(Delivery.id)))


def test_each_doubt_is_shown_with_its_evidence(
    olga: Visitor, session: Session, doubtful: int
) -> None:
    assert f'href="/emailers/{doubtful}/doubts"' in olga.get(f"/emailers/{doubtful}").text
    page = words(olga.get(f"/emailers/{doubtful}/doubts"))
    assert "2 messages in doubt" in page
    assert "the worker stopped before the server's answer was recorded" in page
    message_id = session.scalars(select(Delivery.message_id).order_by(Delivery.id)).first()
    assert message_id is not None
    assert message_id in page


def test_one_is_settled_then_the_rest(olga: Visitor, session: Session, doubtful: int) -> None:
    path = f"/emailers/{doubtful}/doubts"
    olga.get(path)
    ann = session.scalars(select(Delivery.id).order_by(Delivery.id)).first()
    assert olga.post(path, {"delivery": ann, "answer": "sent"}).location == path
    assert states(session) == ["sent", "in_doubt", "failed"]
    assert olga.post(path, {"answer": "failed"}).location == f"/emailers/{doubtful}"
    assert states(session) == ["sent", "failed", "failed"]
    assert "Nothing of this sending is in doubt." in words(olga.get(path))


def test_again_sends_the_doubtful_again(olga: Visitor, session: Session, doubtful: int) -> None:
    olga.get(f"/emailers/{doubtful}/doubts")
    olga.post(f"/emailers/{doubtful}/doubts", {"answer": "again"})
    assert states(session) == ["pending", "pending", "failed"]
    assert session.get_one(Emailer, doubtful).state == "sending"


@pytest.mark.parametrize("delivery", ["", "abc", "1.0", "0", "-1", str(2**63), str(10**40)])
def test_what_is_no_delivery_is_not_taken_for_all(
    olga: Visitor, session: Session, doubtful: int, delivery: str
) -> None:
    olga.get(f"/emailers/{doubtful}/doubts")
    fields = {"answer": "sent", "delivery": delivery}
    assert olga.post(f"/emailers/{doubtful}/doubts", fields).status_code == 404
    assert states(session) == ["in_doubt", "in_doubt", "failed"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [({}, 422), ({"answer": "maybe"}, 422), ({"answer": "sent", "delivery": "999"}, 303)],
)
def test_nonsense_settles_nothing(
    olga: Visitor, session: Session, doubtful: int, fields: dict[str, object], code: int
) -> None:
    olga.get(f"/emailers/{doubtful}/doubts")
    assert olga.post(f"/emailers/{doubtful}/doubts", fields).status_code == code
    assert states(session) == ["in_doubt", "in_doubt", "failed"]


def test_the_failed_are_tried_again_after_a_question(
    olga: Visitor, session: Session, doubtful: int
) -> None:
    asked = words(olga.get(f"/emailers/{doubtful}/retry"))
    assert "1 message failed." in asked
    assert "1 message will be tried once more" in asked
    assert "suppressed" not in asked
    assert states(session)[2] == "failed"
    assert olga.post(f"/emailers/{doubtful}/retry").status_code == 303
    assert states(session) == ["in_doubt", "in_doubt", "pending"]


def test_the_only_one_in_doubt_is_not_settled_twice_over(
    olga: Visitor, session: Session, doubtful: int
) -> None:
    page = words(olga.get(f"/emailers/{doubtful}/doubts"))
    assert "Settle all 2 at once" in page
    first = session.scalars(select(Delivery.id).order_by(Delivery.id)).first()
    session.rollback()
    olga.post(f"/emailers/{doubtful}/doubts", {"answer": "sent", "delivery": first})
    page = words(olga.get(f"/emailers/{doubtful}/doubts"))
    assert "1 message in doubt" in page
    assert "at once" not in page
    assert page.count("It arrived") == 1


def test_what_cannot_be_tried_again_is_not_offered(
    olga: Visitor, session: Session, now: datetime, doubtful: int
) -> None:
    assert "Retry the failed" in words(olga.get(f"/emailers/{doubtful}"))
    suppressions.suppress(session, now, "cleo@people.example", "bounced")
    assert "Retry the failed" not in words(olga.get(f"/emailers/{doubtful}"))
    olga.post(f"/emailers/{doubtful}/retry")
    assert "Nothing can be tried again" in words(olga.get(f"/emailers/{doubtful}"))
    assert states(session) == ["in_doubt", "in_doubt", "failed"]


def test_what_somebody_has_settled_meanwhile_is_not_settled_again(
    olga: Visitor, session: Session, doubtful: int
) -> None:
    olga.get(f"/emailers/{doubtful}/doubts")
    olga.post(f"/emailers/{doubtful}/doubts", {"answer": "sent"})
    olga.post(f"/emailers/{doubtful}/doubts", {"answer": "again"})
    assert "it has been settled already" in words(olga.get(f"/emailers/{doubtful}"))
    assert states(session) == ["sent", "sent", "failed"]


def test_an_emailer_that_is_not_there(olga: Visitor, doubtful: int) -> None:
    for path in ("/emailers/999/doubts", "/emailers/999/retry"):
        assert olga.get(path).status_code == 404
        olga.get(f"/emailers/{doubtful}")
        assert olga.post(path, {"answer": "sent"}).status_code == 404
