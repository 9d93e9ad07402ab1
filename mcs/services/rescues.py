"""Rescues: what dead and frozen workers left is taken over, and what they hear late is heeded."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from mcs.models import Delivery, Scenario, Slice
from mcs.services import deliveries, email_actions, emailers, slice_claims, steps
from mcs.services.slice_claims import Claim, Parent
from mcs.services.slices import lies_in
from mcs.services.steps import Outcome
from mcs.services.transactions import NO_SYNC, writing


def rescue(session: Session, now: datetime, on_doubt: str) -> set[Parent]:
    """Take over the slices whose worker died; what they are of.

    What was pending stays so. What was started and not answered is in doubt: nobody can know
    (RFC 1047). With ``on_doubt`` "resend" it goes again, with the same Message-ID.
    """
    rescued: set[Parent] = set()
    for expired in _expired(session, now):
        rescued |= _rescue(session, now, expired, on_doubt)
    return rescued


def settle_late(session: Session, now: datetime, claim: Claim, outcomes: Iterable[Outcome]) -> None:
    """Acceptances that reached a worker after its lease: they settle what was put in doubt.

    Only acceptances: a late refusal may belong to an attempt that has been made again since. One
    that was to go again by itself need not any more.
    """
    accepted = {outcome.delivery_id: outcome for outcome in outcomes if outcome.state == "sent"}
    if not accepted:
        return
    with writing(session):
        plans = deliveries.plans(session, [claim])
        scenario_id = _hold_scenario_of(session, claim)
        _hold_slices_of(session, claim, accepted)
        open_ones = session.execute(
            select(Delivery.id, Delivery.state, Slice.id.label("slice_id"))
            .join(Slice, _holds(claim))
            .where(Delivery.id.in_(accepted), Delivery.state.in_(("in_doubt", "pending")))
        ).all()
        moved = defaultdict[int, Counter[str]](Counter)
        for row in open_ones:
            moved[row.slice_id][row.state] -= 1
            moved[row.slice_id]["sent"] += 1
        steps.record(session.connection(), [accepted[row.id] for row in open_ones])
        for slice_id, counts in moved.items():
            steps.count(session.connection(), slice_id, counts)
        deliveries.follow(session, now, claim, plans, [row.id for row in open_ones])
        email_actions.record_served(session, scenario_id)


def _expired(session: Session, now: datetime) -> Sequence[Any]:
    # By the index on claims: what has no claim has no lease.
    expired = (Slice.claim_token.is_not(None), Slice.lease_until < now)
    return session.execute(slice_claims.with_parents().where(*expired).order_by(Slice.id)).all()


def _rescue(session: Session, now: datetime, expired: Any, on_doubt: str) -> set[Parent]:
    claim = slice_claims.claimed(expired, expired.claim_token or "")
    with writing(session):
        plans = deliveries.plans(session, [claim])
        high_id = session.scalar(
            select(Slice.high_id)
            .where(Slice.id == claim.slice_id, Slice.lease_until < now)
            # A worker that froze in the middle of a commit holds the lock: the clock must not wait.
            .with_for_update(skip_locked=True)
        )
        if high_id is None:
            return set()
        claim = replace(claim, high_id=high_id)
        in_flight = session.scalars(
            select(Delivery.id).where(
                slice_claims.its_deliveries(claim), Delivery.state == "sending"
            )
        ).all()
        state = "pending" if on_doubt == "resend" else "in_doubt"
        reason = "the worker stopped before the server's answer was recorded"
        outcomes = [Outcome(id, state, now, reason=reason, doubted=True) for id in in_flight]
        moved = deliveries.record(session, now, claim, outcomes)
        steps.count(session.connection(), claim.slice_id, moved)
        deliveries.follow(session, now, claim, plans, in_flight)
        session.execute(
            update(Slice)
            .where(Slice.id == claim.slice_id)
            .values(claim_token=None, lease_until=None, due_at=now)
            .execution_options(**NO_SYNC)
        )
        return {claim.parent}


def _hold_scenario_of(session: Session, claim: Claim) -> int:
    """Hold the scenario, whose number of contacts served moves, and the emailer."""
    if claim.emailer_id is not None:
        return emailers.locked(session, claim.emailer_id).scenario_id
    query = select(Scenario.id).where(Scenario.id == claim.parent.scenario_id)
    return session.scalars(query.with_for_update(key_share=True)).one()


def _hold_slices_of(session: Session, claim: Claim, delivery_ids: Collection[int]) -> None:
    """Hold the slices that these deliveries are in now: who took the claimed one over may have
    parted it, which the emailer's lock keeps anybody from doing meanwhile."""
    session.execute(
        select(Slice.id)
        .join(Delivery, _holds(claim))
        .where(Delivery.id.in_(delivery_ids))
        .order_by(Slice.id)
        .with_for_update(of=Slice)
    )


def _holds(claim: Claim) -> ColumnElement[bool]:
    """Whether a slice of the claim's parent holds a delivery."""
    return Slice.id == Delivery.slice_id if claim.emailer_id is None else lies_in(Slice)
