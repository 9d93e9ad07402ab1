"""The ledger's writes: claim a slice, start messages, record answers, rescue what a death left.

Every function here moves deliveries and their slice's counts in one transaction, under the slice's
row lock (the order of locks is campaigns, emailers, slices, actions, deliveries).
Holding a slice means knowing its ``claim_token``; each write names it, and zero rows updated means
the lease is lost. What is sent for a sequence moves its action in the same transaction.
"""

import secrets
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    case,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from mcs.core import sequences
from mcs.models import (
    Action,
    ActionDefinition,
    Campaign,
    Contact,
    Delivery,
    Emailer,
    Scenario,
    Schedule,
    Slice,
)
from mcs.services import audiences, email_actions, steps
from mcs.services.definitions import Plan
from mcs.services.steps import Outcome
from mcs.services.transactions import NO_SYNC, writing

# How the tokens begin of those who heed how far their slice reaches. A worker of an older release
# does not, and may still run during an upgrade: nothing is taken from it.
PARTABLE = "part."


class Parent(NamedTuple):
    """What a slice is of: an emailer; or a scenario that a campaign's sequence sends."""

    emailer_id: int | None
    scenario_id: int | None = None
    campaign_id: int | None = None


@dataclass(frozen=True)
class Claim:
    """A slice that is ours until the lease ends, which every ``advance`` renews.

    ``begun_at`` is when trying began, of a sequence's: an emailer knows it for all its slices.
    """

    slice_id: int
    parent: Parent
    low_id: int
    high_id: int
    token: str
    begun_at: datetime | None = None


class Due(NamedTuple):
    """A pending delivery that may go now, with its contact."""

    id: int
    attempts: int
    opaque: str
    email: str
    email_key: str
    name: str
    attributes: dict[str, str]
    contact_uid: str


def claim(
    session: Session,
    now: datetime,
    lease: timedelta,
    slice_id: int | None = None,
    not_of: Collection[Parent] = (),
) -> Claim | None:
    """Claim a slice with something due: the one asked for, or the one that waits longest.

    ``not_of`` names parents of which the caller holds enough, so that a large one does not keep
    the others waiting.
    """
    query = _claimable(now)
    if slice_id is not None:
        query = query.where(Slice.id == slice_id)
    if not_of:
        query = query.where(*_not_of(not_of))
    query = query.order_by(Slice.due_at, Slice.id).limit(1)
    if session.execute(query).first() is None:
        # A lane asks a few times a second, mostly for nothing: that must not take SQLite's one
        # lock from those who write.
        session.commit()
        return None
    with writing(session):
        found = session.execute(query.with_for_update(skip_locked=True, of=Slice)).first()
        if found is None:
            return None
        token = new_token()
        session.execute(
            update(Slice)
            .where(Slice.id == found.id)
            .values(claim_token=token, lease_until=now + lease)
            .execution_options(**NO_SYNC)
        )
        return _claimed(found, token)


def new_token() -> str:
    """What a claim is known by."""
    return PARTABLE + secrets.token_urlsafe(12)


def due_slices(session: Session, now: datetime, limit: int) -> Sequence[int]:
    """Slices that wait for a worker, longest first: what the clock rings for."""
    query = _claimable(now).order_by(Slice.due_at, Slice.id).limit(limit)
    return [row.id for row in session.execute(query)]


def load(session: Session, now: datetime, claim: Claim) -> list[Due]:
    """The due deliveries of a claimed slice, in the order of their ids."""
    rows = session.execute(
        select(
            Delivery.id,
            Delivery.attempts,
            Delivery.message_id,
            Contact.email,
            Contact.email_key,
            Contact.name,
            Contact.attributes,
            Contact.uid,
        )
        .join(Contact, Contact.id == Delivery.contact_id)
        .where(*_in_range(claim), Delivery.state == "pending", is_due(now))
        .order_by(Delivery.id)
    )
    due = [Due._make(row) for row in rows]
    session.commit()
    return due


def is_due(now: datetime) -> ColumnElement[bool]:
    """Whether a pending delivery may be tried. The first time it may at any time, even if the clock
    was set back since it was written."""
    return or_(Delivery.due_at <= now, Delivery.attempts == 0)


@dataclass
class Step:
    """What one slice's messages did since the last commit, and which want to start.

    ``refusals`` are attempts that ended before any content was sent: they start and end at once.
    Writing it down tells ``high_id``, the last delivery that is still of the slice: what comes
    after may have been taken by another worker (mcs.services.parting), and does not start here.
    """

    claim: Claim
    outcomes: list[Outcome] = field(default_factory=list)
    refusals: list[Outcome] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    high_id: int = field(init=False)

    def __post_init__(self) -> None:
        self.high_id = self.claim.high_id

    def owned(self, ids: Iterable[int]) -> list[int]:
        """Those of the deliveries that are still of the slice."""
        return [id for id in ids if id <= self.high_id]


def advance(
    session: Session,
    now: datetime,
    lease: timedelta,
    wanted: Iterable[Step],
    *,
    again: bool = False,
) -> tuple[set[int], list[Step]]:
    """Record answers and start the next messages of several slices, in one commit.

    Returns the deliveries that may go, and the steps whose lease is lost (nothing of those is
    written). A start is refused when the delivery is no longer pending (suppressed, cancelled) or
    of the slice, or its emailer is no longer sending. The leases of the slices are renewed.

    ``again`` is for a try whose COMMIT was cut off, so that nobody knows whether it happened: what
    it did stands, and is not done twice.
    """
    started: set[int] = set()
    lost = []
    ordered = sorted(wanted, key=lambda step: step.claim.slice_id)
    with writing(session):
        plans = _plans(session, [step.claim for step in ordered if step.outcomes or step.refusals])
        for step in ordered:
            claim = step.claim
            token = claim.token
            high_id = steps.hold(session.connection(), claim.slice_id, token, now + lease)
            if high_id is not None:
                step.high_id = high_id
                if again:
                    step, begun = _unwritten(session, step)
                    started |= begun
                started |= _take(session, now, step, plans)
            else:
                lost.append(step)
    return started, lost


def release(session: Session, now: datetime, claim: Claim, not_before: datetime | None) -> None:
    """Give a slice back.

    It is due again when the next of its pending deliveries is, and not before ``not_before``
    (a server that cannot be reached). A lease already lost is nothing to give back. A slice with
    messages in flight, whose answers nobody will record, keeps its lease until it is rescued.
    """
    with writing(session):
        held = session.execute(
            select(Slice.sending, Slice.high_id)
            .where(Slice.id == claim.slice_id, Slice.claim_token == claim.token)
            .with_for_update()
        ).first()
        if held is None or held.sending:
            return
        claim = replace(claim, high_id=held.high_id)
        due_at = session.scalars(
            select(func.min(Delivery.due_at)).where(*_in_range(claim), Delivery.state == "pending")
        ).one()
        due_at = max(moment for moment in (due_at, not_before, now) if moment is not None)
        session.execute(
            update(Slice)
            .where(Slice.id == claim.slice_id)
            .values(claim_token=None, lease_until=None, due_at=due_at)
            .execution_options(**NO_SYNC)
        )


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
        plans = _plans(session, [claim])
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
        steps.record(session.connection(), [accepted[row.id] for row in open_ones], {})
        for slice_id, counts in moved.items():
            steps.count(session.connection(), slice_id, counts)
        _follow(session, now, claim, plans, [row.id for row in open_ones])


def unwanted_of_sequence(
    session: Session, now: datetime, campaign_id: int, delivery_ids: Sequence[int]
) -> dict[int, str]:
    """Those of a sequence's deliveries that must not go again, and why: the address is suppressed,
    the subject or the campaign withdrawn, or its last day over."""
    suppressed = _suppressed(session, campaign_id, delivery_ids)
    return suppressed | _withdrawn(session, now, delivery_ids)


def _claimable(now: datetime) -> Select[Any]:
    return _slices().where(
        Slice.open,
        Slice.pending > 0,
        Slice.claim_token.is_(None),
        Slice.due_at <= now,
        or_(
            Emailer.state == "sending",
            and_(Slice.scenario_id.is_not(None), email_actions.may_go()),
        ),
    )


def _slices() -> Select[Any]:
    """Slices with what they are of: an emailer, or else a campaign's sequence."""
    columns: list[Any] = [Slice.id, Slice.emailer_id, Slice.scenario_id, Scenario.campaign_id]
    columns += [Slice.low_id, Slice.high_id, Slice.begun_at, Slice.claim_token]
    return (
        select(*columns)
        .outerjoin(Emailer, Emailer.id == Slice.emailer_id)
        .outerjoin(Scenario, Scenario.id == Slice.scenario_id)
        .outerjoin(Campaign, Campaign.id == Scenario.campaign_id)
    )


def _claimed(row: Any, token: str) -> Claim:
    parent = Parent(row.emailer_id, row.scenario_id, row.campaign_id)
    return Claim(row.id, parent, row.low_id, row.high_id, token, row.begun_at)


def _not_of(parents: Collection[Parent]) -> Iterable[ColumnElement[bool]]:
    # What is NULL is not among any others, which SQL does not say by itself.
    for column, ids in (
        (Slice.emailer_id, {parent.emailer_id for parent in parents}),
        (Slice.scenario_id, {parent.scenario_id for parent in parents}),
    ):
        yield or_(column.is_(None), column.not_in(ids - {None}))


def _in_range(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    if claim.parent.emailer_id is None:
        return (Delivery.slice_id == claim.slice_id,)
    # The emailer too: ids of two emailers that were started at once are interleaved.
    return (
        Delivery.id >= claim.low_id,
        Delivery.id <= claim.high_id,
        Delivery.emailer_id == claim.parent.emailer_id,
    )


def _hold_slices_of(session: Session, claim: Claim, delivery_ids: Collection[int]) -> None:
    """Hold the slices that these deliveries are in now: who took the claimed one over may have
    parted it, which the emailer's lock keeps anybody from doing meanwhile."""
    emailer_id = claim.parent.emailer_id
    if emailer_id is not None:
        session.execute(
            select(Emailer.id).where(Emailer.id == emailer_id).with_for_update(read=True)
        )
    session.execute(
        select(Slice.id)
        .join(Delivery, _holds(claim))
        .where(Delivery.id.in_(delivery_ids))
        .order_by(Slice.id)
        .with_for_update(of=Slice)
    )


def _holds(claim: Claim) -> ColumnElement[bool]:
    """Whether a slice of the claim's parent holds a delivery."""
    if claim.parent.emailer_id is None:
        return Slice.id == Delivery.slice_id
    return and_(
        Slice.emailer_id == Delivery.emailer_id,
        Delivery.id.between(Slice.low_id, Slice.high_id),
    )


def _plans(session: Session, claims: Iterable[Claim]) -> list[Plan]:
    """The sequences that deliveries of these slices belong to, locked before the slices are."""
    campaigns = {claim.parent.campaign_id for claim in claims}
    return email_actions.plans(session, {one for one in campaigns if one is not None})


def _unwritten(session: Session, step: Step) -> tuple[Step, set[int]]:
    """What of a step is not in the ledger yet, and those of its starts that are.

    What is still of the slice, which is ours, and ``sending`` was started by the step itself.
    """
    ids = [outcome.delivery_id for outcome in (*step.outcomes, *step.refusals)]
    rows = session.execute(
        select(Delivery.id, Delivery.state, Delivery.due_at).where(
            Delivery.id.in_(ids + step.starts)
        )
    ).all()
    sending = set(step.owned(row.id for row in rows if row.state == "sending"))
    written = {(row.id, row.state, row.due_at) for row in rows}
    left = Step(
        step.claim,
        outcomes=[o for o in step.outcomes if o.delivery_id in sending],
        refusals=[
            r for r in step.refusals if (r.delivery_id, r.state, r.due_at or r.at) not in written
        ],
        starts=[id for id in step.starts if id not in sending],
    )
    left.high_id = step.high_id
    return left, sending.intersection(step.starts)


def _take(session: Session, now: datetime, step: Step, plans: Sequence[Plan]) -> set[int]:
    connection = session.connection()
    claim = step.claim
    moved = _record(session, now, claim, step.outcomes)
    begun = [refusal.delivery_id for refusal in step.refusals]
    wanted = step.owned(begun + step.starts)
    if claim.parent.emailer_id is not None:
        started = steps.start(connection, now, claim.parent.emailer_id, wanted)
    else:
        started = steps.start_of_sequence(connection, now, claim.parent.campaign_id, wanted)
    moved["pending"] -= len(started)
    moved["sending"] += len(started)
    refused = [refusal for refusal in step.refusals if refusal.delivery_id in started]
    moved.update(_record(session, now, claim, refused))
    steps.count(connection, claim.slice_id, moved)
    ended = [outcome.delivery_id for outcome in (*step.outcomes, *refused)]
    _follow(session, now, claim, plans, ended)
    return started.difference(begun)


def _follow(
    session: Session,
    now: datetime,
    claim: Claim,
    plans: Sequence[Plan],
    delivery_ids: Collection[int],
) -> None:
    if claim.parent.campaign_id is not None and delivery_ids:
        mine = [plan for plan in plans if plan.campaign_id == claim.parent.campaign_id]
        email_actions.follow(session, now, mine, delivery_ids)


def _record(
    session: Session, now: datetime, claim: Claim, outcomes: Sequence[Outcome]
) -> Counter[str]:
    """Write the answers of messages in flight; the counts by which the states changed."""
    again = [outcome.delivery_id for outcome in outcomes if outcome.state == "pending"]
    unwanted = _unwanted_since(session, now, claim, again) if again else {}
    moved = Counter[str]()
    for outcome in outcomes:
        moved["skipped" if outcome.delivery_id in unwanted else outcome.state] += 1
    moved["sending"] -= len(outcomes)
    steps.record(session.connection(), outcomes, unwanted)
    return moved


def _unwanted_since(
    session: Session, now: datetime, claim: Claim, delivery_ids: Sequence[int]
) -> dict[int, str]:
    """Those of the deliveries that must not go again, and why: the emailer was cancelled, the
    subject or its campaign withdrawn, or the address suppressed, while they were in flight.
    """
    if claim.parent.campaign_id is not None:
        return unwanted_of_sequence(session, now, claim.parent.campaign_id, delivery_ids)
    state, campaign_id = session.execute(
        select(Emailer.state, Scenario.campaign_id)
        .join(Scenario, Scenario.id == Emailer.scenario_id)
        .where(Emailer.id == claim.parent.emailer_id)
    ).one()
    if state == "cancelled":
        return dict.fromkeys(delivery_ids, "cancelled")
    return _suppressed(session, campaign_id, delivery_ids)


def _suppressed(session: Session, campaign_id: int, delivery_ids: Sequence[int]) -> dict[int, str]:
    suppressed = audiences.suppressed_addresses(campaign_id)
    rows = session.execute(
        select(Delivery.id, suppressed.c.reason)
        .join(Contact, Contact.id == Delivery.contact_id)
        .join(suppressed, suppressed.c.email_key == Contact.email_key)
        .where(Delivery.id.in_(delivery_ids))
    )
    return dict(rows.all())


def _withdrawn(session: Session, now: datetime, delivery_ids: Sequence[int]) -> dict[int, str]:
    step = and_(
        ActionDefinition.campaign_id == Schedule.campaign_id, ActionDefinition.key == Action.key
    )
    rows = session.execute(
        select(
            Delivery.id,
            Campaign.end_date,
            Campaign.timezone,
            case(
                (~Schedule.active, sequences.UNSCHEDULED),
                (~Campaign.active | Campaign.archived_at.is_not(None), sequences.SWITCHED_OFF),
                (ActionDefinition.id.is_(None), sequences.REMOVED),
                (Contact.deleted_at.is_not(None), "deleted"),
                else_="",
            ).label("why"),
        )
        .join(Action, Action.id == Delivery.action_id)
        .join(Schedule, Schedule.id == Action.schedule_id)
        .join(Campaign, Campaign.id == Schedule.campaign_id)
        .join(Contact, Contact.id == Delivery.contact_id)
        .outerjoin(ActionDefinition, step)
        .where(Delivery.id.in_(delivery_ids))
    ).all()
    over = {
        row.id: sequences.TOO_LATE
        for row in rows
        if now >= email_actions.ends(row.end_date, row.timezone)
    }
    return over | {row.id: row.why for row in rows if row.why}


def _expired(session: Session, now: datetime) -> Sequence[Any]:
    # By the index on claims: what has no claim has no lease.
    expired = (Slice.claim_token.is_not(None), Slice.lease_until < now)
    return session.execute(_slices().where(*expired).order_by(Slice.id)).all()


def _rescue(session: Session, now: datetime, expired: Any, on_doubt: str) -> set[Parent]:
    claim = _claimed(expired, expired.claim_token or "")
    with writing(session):
        plans = _plans(session, [claim])
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
            select(Delivery.id).where(*_in_range(claim), Delivery.state == "sending")
        ).all()
        state = "pending" if on_doubt == "resend" else "in_doubt"
        reason = "the worker stopped before the server's answer was recorded"
        moved = _record(
            session, now, claim, [Outcome(id, state, now, reason=reason) for id in in_flight]
        )
        steps.count(session.connection(), claim.slice_id, moved)
        _follow(session, now, claim, plans, in_flight)
        session.execute(
            update(Slice)
            .where(Slice.id == claim.slice_id)
            .values(claim_token=None, lease_until=None, due_at=now)
            .execution_options(**NO_SYNC)
        )
        return {claim.parent}
