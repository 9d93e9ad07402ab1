"""Headway: how far an emailer has come, from its slices' counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from mcs.models import Delivery, Emailer, Slice
from mcs.services import emailers

# A pace is told of so many messages, or more.
FEWEST = 10
# Lately is so long, or longer, with so many messages; or where twice as many were to be expected.
SHORTEST = timedelta(seconds=15)
ENOUGH = 30
# How long a mark stays: lately is between half of this and the whole, once somebody has looked on
# for as long.
LATELY = timedelta(minutes=1)


class Mark(NamedTuple):
    """How many were sent by an instant."""

    at: datetime
    sent: int


def marks(seen: Sequence[Mark], now: Mark) -> list[Mark]:
    """What who follows a pace remembers until the next look: two marks, of which ``per_second`` is
    given the older one. ``seen`` is what was remembered until now."""
    kept = [mark for mark in seen if now.at - LATELY <= mark.at <= now.at][-2:]
    if not kept or now.at - kept[-1].at >= LATELY / 2:
        return [*kept[-1:], now]
    return kept


@dataclass(frozen=True)
class Progress:
    """Where an emailer stands. The numbers always add up to ``recipients`` once it is started."""

    state: str
    recipients: int
    pending: int
    sending: int
    sent: int
    failed: int
    in_doubt: int
    skipped: int
    skipped_by_reason: dict[str, int]
    scheduled_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    next_due_at: datetime | None
    paced_from: datetime | None
    paced_sent: int
    notice: str

    @property
    def to_go(self) -> int:
        return self.pending + self.sending

    def per_second(self, now: datetime, since: Mark | None = None) -> float | None:
        """Messages sent a second since the mark; None when too few to tell, or none lately.

        Without a mark, with one of before it last began to move, and where little was to be
        expected since: on the whole since it last began to move.
        """
        sent = self.sent - self.paced_sent
        if self.paced_from is None or sent < FEWEST:
            return None
        whole = sent / max((now - self.paced_from).total_seconds(), 1.0)
        if since is None or not self.paced_from <= since.at <= now - SHORTEST:
            return whole
        seconds, lately = (now - since.at).total_seconds(), self.sent - since.sent
        if lately >= ENOUGH or whole * seconds >= 2 * ENOUGH:
            return lately / seconds if lately > 0 else None
        return whole

    @property
    def late_by(self) -> timedelta | None:
        """How long after its instant it started."""
        return None if self.started_at is None else self.started_at - self.scheduled_at


@dataclass(frozen=True)
class Retrying:
    """How many messages wait for another try, when the next one is, and when trying ends."""

    number: int
    next_at: datetime | None
    give_up_at: datetime


def progress(session: Session, emailer_id: int) -> Progress:
    """How an emailer stands, from its slices' counts: no count over the ledger."""
    emailer = session.get_one(Emailer, emailer_id, populate_existing=True)
    states = ("pending", "sending", "sent", "failed", "in_doubt", "skipped")
    counts = session.execute(
        select(*(func.coalesce(func.sum(getattr(Slice, state)), 0) for state in states)).where(
            Slice.emailer_id == emailer_id
        )
    ).one()
    reasons = session.execute(
        select(Delivery.reason, func.count())
        .where(Delivery.emailer_id == emailer_id, Delivery.exception == "skipped")
        .group_by(Delivery.reason)
        .order_by(Delivery.reason)
    )
    next_due_at = session.scalars(
        select(func.min(Slice.due_at)).where(Slice.emailer_id == emailer_id, Slice.pending > 0)
    ).one()
    return Progress(
        state=emailer.state,
        recipients=emailer.recipients or 0,
        **{state: int(number) for state, number in zip(states, counts, strict=True)},
        skipped_by_reason=dict(reasons.all()),
        scheduled_at=emailer.scheduled_at,
        started_at=emailer.started_at,
        finished_at=emailer.finished_at,
        next_due_at=next_due_at,
        paced_from=emailer.paced_from,
        paced_sent=emailer.paced_sent,
        notice=emailer.notice,
    )


def retrying(session: Session, now: datetime, emailer_id: int) -> Retrying:
    """The emailer's messages that wait for another try, as their slices know it."""
    number, next_at = session.execute(
        select(func.coalesce(func.sum(Slice.pending), 0), func.min(Slice.due_at)).where(
            Slice.emailer_id == emailer_id,
            Slice.pending > 0,
            Slice.claim_token.is_(None),
            Slice.due_at > now,
        )
    ).one()
    return Retrying(int(number), next_at, emailers.give_up_at(session.get_one(Emailer, emailer_id)))
