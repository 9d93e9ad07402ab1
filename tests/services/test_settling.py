"""What a person settles: in doubt, one or all; and the failed ones, tried again."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from mcs.gateways.jobqueue import JobQueue
from mcs.models import AuditEntry, Campaign, Contact, Delivery, Emailer, Scenario
from mcs.services import (
    deliveries,
    emailers,
    headway,
    planning,
    rescues,
    settling,
    slice_claims,
    suppressions,
)
from tests.people import add_campaign, add_contact, add_scenario

LEASE = timedelta(seconds=45)


@pytest.fixture
def campaign(session: Session) -> Campaign:
    return add_campaign(session)


@pytest.fixture
def doubtful(session: Session, now: datetime, queue: JobQueue, campaign: Campaign) -> int:
    """An emailer whose worker died with Ann's and Bob's messages in flight; Cleo's failed."""
    for name in ("Ann", "Bob", "Cleo"):
        add_contact(session, campaign, name)
    add_scenario(session, campaign)
    (emailer_id,) = planning.plan_day(session, now, queue)
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


def states(session: Session, emailer_id: int) -> dict[str, str]:
    session.rollback()
    rows = session.execute(
        select(Contact.name, Delivery.state)
        .join(Contact, Contact.id == Delivery.contact_id)
        .where(Delivery.emailer_id == emailer_id)
    )
    found = dict(rows.all())
    progress = headway.progress(session, emailer_id)
    for state in ("pending", "sent", "failed", "in_doubt", "skipped"):
        assert getattr(progress, state) == list(found.values()).count(state)
    return found


def test_one_is_settled_as_sent_and_the_rest_as_failed(
    session: Session, now: datetime, queue: JobQueue, doubtful: int
) -> None:
    assert states(session, doubtful) == {"Ann": "in_doubt", "Bob": "in_doubt", "Cleo": "failed"}
    ann = session.scalars(
        select(Delivery.id)
        .join(Contact, Contact.id == Delivery.contact_id)
        .where(Contact.name == "Ann")
    ).one()
    assert settling.settle(session, now, queue, doubtful, "sent", ann) == 1
    with pytest.raises(emailers.NotPossible, match="settled already"):
        settling.settle(session, now, queue, doubtful, "sent", ann)
    assert settling.settle(session, now, queue, doubtful, "failed") == 1
    assert states(session, doubtful) == {"Ann": "sent", "Bob": "failed", "Cleo": "failed"}
    scenario = session.scalars(select(Scenario)).one()
    assert scenario.contacts_served == 1


def test_again_reopens_the_emailer_and_keeps_the_message_id(
    session: Session, now: datetime, queue: JobQueue, doubtful: int
) -> None:
    before = dict(session.execute(select(Delivery.id, Delivery.message_id)).all())
    assert session.get_one(Emailer, doubtful).state == "sent"
    assert settling.settle(session, now, queue, doubtful, "again") == 2
    assert states(session, doubtful) == {"Ann": "pending", "Bob": "pending", "Cleo": "failed"}
    assert session.get_one(Emailer, doubtful).state == "sending"
    claim = slice_claims.claim(session, now, LEASE)
    assert claim is not None
    assert {due.opaque for due in slice_claims.load(session, now, claim)} <= set(before.values())


def test_the_failed_are_tried_again_but_for_the_suppressed(
    session: Session, now: datetime, queue: JobQueue, doubtful: int
) -> None:
    settling.settle(session, now, queue, doubtful, "failed")
    suppressions.suppress(session, now, "bob@people.example", "blocked")
    assert settling.retriable(session, doubtful) == 2
    assert settling.retry_failed(session, now, queue, doubtful) == 2
    assert states(session, doubtful) == {"Ann": "pending", "Bob": "failed", "Cleo": "pending"}
    assert settling.retriable(session, doubtful) == 0
    with pytest.raises(emailers.NotPossible, match="Nothing can be tried again"):
        settling.retry_failed(session, now, queue, doubtful)
    audited = session.scalars(select(AuditEntry.detail).where(AuditEntry.verb == "retried")).all()
    assert audited == [{"deliveries": 2}]


def test_the_doubtful_to_a_suppressed_address_are_skipped_not_sent_again(
    session: Session, now: datetime, queue: JobQueue, doubtful: int
) -> None:
    suppressions.suppress(session, now, "bob@people.example", "blocked")
    assert settling.settle(session, now, queue, doubtful, "again") == 1
    assert states(session, doubtful) == {"Ann": "pending", "Bob": "skipped", "Cleo": "failed"}


def test_nobody_of_a_cancelled_emailer_is_written_to_again(
    session: Session, now: datetime, queue: JobQueue, doubtful: int
) -> None:
    settling.settle(session, now, queue, doubtful, "again")
    emailers.cancel(session, now, doubtful)
    with pytest.raises(emailers.NotPossible):
        settling.retry_failed(session, now, queue, doubtful)
    assert states(session, doubtful) == {"Ann": "skipped", "Bob": "skipped", "Cleo": "failed"}
