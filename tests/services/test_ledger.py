"""The ledger's transactions when something is cut off, held up, stopped or cancelled in between."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from mcs.gateways.jobqueue import JobQueue
from mcs.models import Delivery, Scenario, Slice
from mcs.services import deliveries, due, emailers, planning
from mcs.services.deliveries import Claim, Due, Outcome, Step
from tests.people import add_campaign, add_contact, add_scenario

LEASE = timedelta(seconds=45)


@pytest.fixture
def emailer_id(session: Session, now: datetime, queue: JobQueue) -> int:
    """Ann, Bob and Cleo are about to be written to."""
    campaign = add_campaign(session)
    for name in ("Ann", "Bob", "Cleo"):
        add_contact(session, campaign, name)
    add_scenario(session, campaign)
    (emailer_id,) = planning.plan_day(session, now, queue)
    emailers.send(session, now, queue, emailer_id, timedelta(minutes=120))
    return emailer_id


@pytest.fixture
def held(session: Session, now: datetime, emailer_id: int) -> tuple[Claim, list[Due]]:
    """Their slice, claimed."""
    claim = deliveries.claim(session, now, LEASE)
    assert claim is not None
    return claim, deliveries.load(session, now, claim)


def counts(session: Session, emailer_id: int) -> dict[str, int]:
    """What the pages show, which is what the rows say."""
    session.rollback()
    shown = emailers.progress(session, emailer_id)
    states = ("pending", "sending", "sent", "failed", "in_doubt", "skipped")
    found = {state: getattr(shown, state) for state in states if getattr(shown, state)}
    rows = session.scalars(select(Delivery.state).where(Delivery.emailer_id == emailer_id)).all()
    assert found == {state: rows.count(state) for state in rows}
    return found


def test_a_commit_whose_answer_was_cut_off_is_not_done_twice(
    session: Session, now: datetime, emailer_id: int, held: tuple[Claim, list[Due]]
) -> None:
    claim, (ann, bob, cleo) = held
    assert deliveries.advance(session, now, LEASE, [Step(claim, starts=[ann.id])])[0] == {ann.id}
    step = Step(
        claim,
        outcomes=[Outcome(ann.id, "sent", now, reply_code=250)],
        refusals=[Outcome(cleo.id, "pending", now, due_at=now + timedelta(minutes=1))],
        starts=[bob.id],
    )
    for again in (False, True, True):
        started, lost = deliveries.advance(session, now, LEASE, [step], again=again)
        assert (started, lost) == ({bob.id}, [])
        assert counts(session, emailer_id) == {"sent": 1, "sending": 1, "pending": 1}
    attempts = select(Delivery.attempts).where(Delivery.emailer_id == emailer_id)
    assert session.scalars(attempts).all() == [1, 1, 1]


def test_a_commit_that_did_not_happen_is_done_the_second_time(
    session: Session, now: datetime, emailer_id: int, held: tuple[Claim, list[Due]]
) -> None:
    claim, (ann, bob, _cleo) = held
    step = Step(claim, starts=[ann.id], refusals=[Outcome(bob.id, "failed", now, reason="no")])
    started, _lost = deliveries.advance(session, now, LEASE, [step], again=True)
    assert started == {ann.id}
    assert counts(session, emailer_id) == {"sending": 1, "failed": 1, "pending": 1}


def test_a_slice_with_a_message_in_flight_is_not_given_back(
    session: Session, now: datetime, emailer_id: int, held: tuple[Claim, list[Due]]
) -> None:
    """Nobody would record its answer any more, and nobody would rescue it."""
    claim, (ann, *_rest) = held
    deliveries.advance(session, now, LEASE, [Step(claim, starts=[ann.id])])
    assert not deliveries.release(session, now, claim, None)
    assert deliveries.rescue(session, now + LEASE * 2, "hold") == {deliveries.Parent(emailer_id)}
    assert counts(session, emailer_id) == {"in_doubt": 1, "pending": 2}


@pytest.mark.parametrize("ending", ["refused", "rescued"])
def test_nothing_goes_back_to_pending_in_a_cancelled_emailer(
    session: Session, now: datetime, emailer_id: int, held: tuple[Claim, list[Due]], ending: str
) -> None:
    claim, dues = held
    deliveries.advance(session, now, LEASE, [Step(claim, starts=[each.id for each in dues])])
    emailers.cancel(session, now, emailer_id)
    if ending == "refused":
        later = [Outcome(each.id, "pending", now, due_at=now) for each in dues]
        deliveries.advance(session, now, LEASE, [Step(claim, outcomes=later)])
    else:
        deliveries.rescue(session, now + LEASE * 2, "resend")
    assert counts(session, emailer_id) == {"skipped": 3}
    assert emailers.progress(session, emailer_id).skipped_by_reason == {"cancelled": 3}


def test_a_worker_that_dies_after_a_cancel_leaves_right_numbers(
    session: Session,
    now: datetime,
    queue: JobQueue,
    emailer_id: int,
    held: tuple[Claim, list[Due]],
) -> None:
    claim, (ann, *_rest) = held
    deliveries.advance(session, now, LEASE, [Step(claim, starts=[ann.id])])
    emailers.cancel(session, now, emailer_id)
    accepted = Step(claim, outcomes=[Outcome(ann.id, "sent", now, reply_code=250)])
    deliveries.advance(session, now, LEASE, [accepted])
    due.tick(session, now + LEASE * 2, queue, "hold")
    assert counts(session, emailer_id) == {"sent": 1, "skipped": 2}
    assert session.scalars(select(Scenario.contacts_served)).one() == 1


def test_a_late_acceptance_spares_the_second_message(
    session: Session, now: datetime, emailer_id: int, held: tuple[Claim, list[Due]]
) -> None:
    claim, (ann, *_rest) = held
    deliveries.advance(session, now, LEASE, [Step(claim, starts=[ann.id])])
    later = now + LEASE * 2
    deliveries.rescue(session, later, "resend")
    assert counts(session, emailer_id) == {"pending": 3}
    deliveries.settle_late(session, claim, [Outcome(ann.id, "sent", later, reply_code=250)])
    assert counts(session, emailer_id) == {"sent": 1, "pending": 2}


def test_the_token_proves_the_claim_even_after_its_lease(
    session: Session, now: datetime, emailer_id: int, held: tuple[Claim, list[Due]]
) -> None:
    """A database that was away for longer than a lease: if nobody took the slice, it is ours."""
    claim, (ann, *_rest) = held
    later = now + LEASE * 2
    started, _lost = deliveries.advance(session, later, LEASE, [Step(claim, starts=[ann.id])])
    assert started == {ann.id}
    deliveries.rescue(session, later, "hold")
    taken = replace(claim, token="somebody else's")
    step = Step(taken, starts=[ann.id])
    assert deliveries.advance(session, later, LEASE, [step]) == (set(), [step])


def test_what_is_too_long_for_its_column_is_cut(
    session: Session, now: datetime, emailer_id: int, held: tuple[Claim, list[Due]]
) -> None:
    claim, (ann, *_rest) = held
    long = Outcome(
        ann.id, "failed", now, reason="why " * 100, reply_code=554, reply_text="x" * 9999
    )
    deliveries.advance(session, now, LEASE, [Step(claim, refusals=[long])])
    emailers.note(session, emailer_id, "oh " * 1000)
    emailers.pause(session, now, emailer_id, notice="oh " * 1000)
    assert counts(session, emailer_id) == {"failed": 1, "pending": 2}
    assert session.scalars(select(Slice.failed)).one() == 1
