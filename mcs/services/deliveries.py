"""The ledger's writes on the sending path: start messages, and record what became of them.

All that moves deliveries moves their slice's counts in the same transaction, under the slice's row
lock (the order of locks is campaigns, scenarios, emailers, slices, actions, deliveries). What is
sent for a sequence moves its action, too.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from mcs.models import Delivery
from mcs.services import email_actions, steps, unwanted
from mcs.services.definitions import Plan
from mcs.services.slice_claims import Claim
from mcs.services.steps import Outcome
from mcs.services.transactions import writing


@dataclass(eq=False)
class Step:
    """What one slice's messages did since the last commit, and which want to start.

    ``refusals`` are attempts that ended before any content was sent: they start and end at once.
    """

    claim: Claim
    outcomes: list[Outcome] = field(default_factory=list)
    refusals: list[Outcome] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)


class Standing(NamedTuple):
    """How a slice stands after a step: the deliveries that may go, and the last one that is still
    of the slice. What comes after that may have been taken by another worker
    (mcs.services.parting), and does not start here."""

    started: set[int]
    high_id: int


Standings = dict[Step, Standing]


def advance(
    session: Session,
    now: datetime,
    lease: timedelta,
    wanted: Iterable[Step],
    *,
    again: bool = False,
) -> Standings:
    """Record answers and start the next messages of several slices, in one commit.

    A step whose lease is lost has no standing: nothing of it is written. A start is refused when
    the delivery is no longer pending (suppressed, cancelled) or of the slice, or its emailer is no
    longer sending. The leases of the slices are renewed.

    ``again`` is for a try whose COMMIT was cut off, so that nobody knows whether it happened: what
    it did stands, and is not done twice.
    """
    standings: Standings = {}
    ordered = sorted(wanted, key=lambda step: step.claim.slice_id)
    with writing(session):
        ended = [step.claim for step in ordered if step.outcomes or step.refusals]
        held = plans(session, ended)
        for step in ordered:
            slice_id, token = step.claim.slice_id, step.claim.token
            high_id = steps.hold(session.connection(), slice_id, token, now + lease)
            if high_id is not None:
                left, begun = _unwritten(session, step, high_id) if again else (step, set[int]())
                begun |= _take(session, now, left, high_id, held)
                standings[step] = Standing(begun, high_id)
    return standings


def plans(session: Session, claims: Iterable[Claim]) -> list[Plan]:
    """The sequences that deliveries of these slices belong to, locked before the slices are."""
    campaigns = {claim.parent.campaign_id for claim in claims}
    return email_actions.plans(session, {one for one in campaigns if one is not None})


def record(
    session: Session, now: datetime, claim: Claim, outcomes: Sequence[Outcome]
) -> Counter[str]:
    """Write the answers of messages in flight, in the caller's transaction; the counts by which the
    states changed."""
    again = [outcome.delivery_id for outcome in outcomes if outcome.state == "pending"]
    if again:
        reasons = unwanted.since(session, now, claim, again)
        outcomes = [_wanted(outcome, reasons.get(outcome.delivery_id)) for outcome in outcomes]
    moved = Counter(outcome.state for outcome in outcomes)
    moved["sending"] -= len(outcomes)
    steps.record(session.connection(), outcomes)
    return moved


def _wanted(outcome: Outcome, reason: str | None) -> Outcome:
    """What must not go again, for this reason, is skipped; but in doubt if it may have arrived."""
    if reason is None:
        return outcome
    if outcome.doubted:
        return outcome._replace(state="in_doubt", due_at=None)
    return outcome._replace(state="skipped", reason=reason)


def follow(
    session: Session,
    now: datetime,
    claim: Claim,
    plans: Sequence[Plan],
    delivery_ids: Collection[int],
) -> None:
    """Bring the actions of these deliveries in line with them, in the caller's transaction."""
    if claim.parent.campaign_id is not None and delivery_ids:
        mine = [plan for plan in plans if plan.campaign_id == claim.parent.campaign_id]
        email_actions.follow(session, now, mine, delivery_ids)


def _unwritten(session: Session, step: Step, high_id: int) -> tuple[Step, set[int]]:
    """What of a step is not in the ledger yet, and those of its starts that are.

    What is still of the slice, which is ours, and ``sending`` was started by the step itself.
    """
    ids = [outcome.delivery_id for outcome in (*step.outcomes, *step.refusals)]
    rows = session.execute(
        select(Delivery.id, Delivery.state, Delivery.due_at).where(
            Delivery.id.in_(ids + step.starts)
        )
    ).all()
    sending = {row.id for row in rows if row.state == "sending" and row.id <= high_id}
    written = {(row.id, row.state, row.due_at) for row in rows}
    left = Step(
        step.claim,
        outcomes=[o for o in step.outcomes if o.delivery_id in sending],
        refusals=[
            r for r in step.refusals if (r.delivery_id, r.state, r.due_at or r.at) not in written
        ],
        starts=[id for id in step.starts if id not in sending],
    )
    return left, sending.intersection(step.starts)


def _take(
    session: Session, now: datetime, step: Step, high_id: int, plans: Sequence[Plan]
) -> set[int]:
    """Write a step; which of its starts may go."""
    connection = session.connection()
    claim = step.claim
    moved = record(session, now, claim, step.outcomes)
    begun = [refusal.delivery_id for refusal in step.refusals]
    wanted = [id for id in begun + step.starts if id <= high_id]
    if claim.emailer_id is not None:
        started = steps.start(connection, now, claim.emailer_id, wanted)
    else:
        started = steps.start_of_sequence(connection, now, claim.parent.campaign_id, wanted)
    moved["pending"] -= len(started)
    moved["sending"] += len(started)
    refused = [refusal for refusal in step.refusals if refusal.delivery_id in started]
    moved.update(record(session, now, claim, refused))
    steps.count(connection, claim.slice_id, moved)
    ended = [outcome.delivery_id for outcome in (*step.outcomes, *refused)]
    follow(session, now, claim, plans, ended)
    return started.difference(begun)
