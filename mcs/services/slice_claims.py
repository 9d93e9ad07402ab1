"""Slices claimed by workers: a lane claims one, loads its letters, and gives it back.

Holding a slice means knowing its ``claim_token``; each write names it, and zero rows updated means
the lease is lost.
"""

import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, update
from sqlalchemy.orm import Session

from mcs.models import Campaign, Contact, Delivery, Emailer, Scenario, Slice
from mcs.services import email_actions
from mcs.services.slices import lies_in
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

    @property
    def emailer_id(self) -> int | None:
        """The emailer whose slice it is; None for a sequence's."""
        return self.parent.emailer_id


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
        return claimed(found, token)


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
        .where(its_deliveries(claim), Delivery.state == "pending", is_due(now))
        .order_by(Delivery.id)
    )
    due = [Due._make(row) for row in rows]
    session.commit()
    return due


def is_due(now: datetime) -> ColumnElement[bool]:
    """Whether a pending delivery may be tried. The first time it may at any time, even if the clock
    was set back since it was written."""
    return or_(Delivery.due_at <= now, Delivery.attempts == 0)


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
            select(func.min(Delivery.due_at)).where(
                its_deliveries(claim), Delivery.state == "pending"
            )
        ).one()
        due_at = max(moment for moment in (due_at, not_before, now) if moment is not None)
        session.execute(
            update(Slice)
            .where(Slice.id == claim.slice_id)
            .values(claim_token=None, lease_until=None, due_at=due_at)
            .execution_options(**NO_SYNC)
        )


def _claimable(now: datetime) -> Select[Any]:
    return with_parents().where(
        Slice.open,
        Slice.pending > 0,
        Slice.claim_token.is_(None),
        Slice.due_at <= now,
        or_(
            Emailer.state == "sending",
            and_(Slice.scenario_id.is_not(None), email_actions.may_go()),
        ),
    )


def with_parents() -> Select[Any]:
    """Slices with what they are of: an emailer, or else a campaign's sequence."""
    columns: list[Any] = [Slice.id, Slice.emailer_id, Slice.scenario_id, Scenario.campaign_id]
    columns += [Slice.low_id, Slice.high_id, Slice.begun_at, Slice.claim_token]
    return (
        select(*columns)
        .outerjoin(Emailer, Emailer.id == Slice.emailer_id)
        .outerjoin(Scenario, Scenario.id == Slice.scenario_id)
        .outerjoin(Campaign, Campaign.id == Scenario.campaign_id)
    )


def claimed(row: Any, token: str) -> Claim:
    """The claim that a row of ``with_parents`` is."""
    parent = Parent(row.emailer_id, row.scenario_id, row.campaign_id)
    return Claim(row.id, parent, row.low_id, row.high_id, token, row.begun_at)


def _not_of(parents: Collection[Parent]) -> Iterable[ColumnElement[bool]]:
    # What is NULL is not among any others, which SQL does not say by itself.
    for column, ids in (
        (Slice.emailer_id, {parent.emailer_id for parent in parents}),
        (Slice.scenario_id, {parent.scenario_id for parent in parents}),
    ):
        yield or_(column.is_(None), column.not_in(ids - {None}))


def its_deliveries(claim: Claim) -> ColumnElement[bool]:
    """Which deliveries a claimed slice holds."""
    return Delivery.slice_id == claim.slice_id if claim.emailer_id is None else lies_in(claim)
