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
# Lately is since the latest mark that is so old, and since which so many were sent.
SHORTEST = timedelta(seconds=5)
ENOUGH = 100
# Where there were never so many: since the oldest, with so many, or where twice as many were to be
# expected.
FEW = 30
# Who follows a pace makes a mark so often, and keeps it for so long.
STEP = timedelta(seconds=10)
LATELY = timedelta(minutes=1)
MOST_MARKS = LATELY // STEP


class Mark(NamedTuple):
    """How many were sent by an instant."""

    at: datetime
    sent: int


def marks(seen: Sequence[Mark], now: Mark) -> list[Mark]:
    """What who follows a pace remembers until the next look, the oldest first. ``seen`` is what was
    remembered until now."""
    kept = [mark for mark in seen if now.at - LATELY <= mark.at <= now.at]
    if not kept or now.at - kept[-1].at >= STEP:
        kept.append(now)
    return kept[-MOST_MARKS:]


@dataclass(frozen=True)
class Progress:
    """Where an emailer stands. The numbers always add up to ``recipients`` once it is started.

    ``paced_from`` is when it last began to move; what was never held, with its first message.
    """

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

    @property
    def moved(self) -> bool:
        """Whether anything was sent since it last began to move."""
        return self.sent > self.paced_sent

    def per_second(self, now: datetime, seen: Sequence[Mark] = ()) -> float | None:
        """Messages sent a second lately, by the marks that were seen, the oldest first; None when
        too few to tell, or none lately.

        Without a mark, with those of before it last began to move, and where little was to be
        expected since: on the whole since it last began to move.
        """
        sent = self.sent - self.paced_sent
        if self.paced_from is None or sent < FEWEST:
            return None
        whole = sent / max((now - self.paced_from).total_seconds(), 1.0)
        usable = [mark for mark in seen if self.paced_from <= mark.at <= now - SHORTEST]
        paces = [((now - mark.at).total_seconds(), self.sent - mark.sent) for mark in usable]
        for seconds, lately in reversed(paces):
            if lately >= ENOUGH:
                return lately / seconds
        if not paces:
            return whole
        seconds, lately = paces[0]
        if lately >= FEW or whole * seconds >= 2 * FEW:
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
    sums = (func.coalesce(func.sum(getattr(Slice, state)), 0) for state in states)
    *counts, first_id = session.execute(
        select(*sums, func.min(Slice.low_id)).where(Slice.emailer_id == emailer_id)
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
        paced_from=_moving_from(session, emailer, first_id),
        paced_sent=emailer.paced_sent,
        notice=emailer.notice,
    )


def _moving_from(session: Session, emailer: Emailer, first_id: int | None) -> datetime | None:
    """When it last began to move. What was never held begins with its first message: to write a
    large ledger takes seconds, which say nothing of the pace."""
    if emailer.paced_sent or first_id is None:
        return emailer.paced_from
    first_try = select(Delivery.started_at).where(Delivery.id == first_id, Delivery.attempts == 1)
    return session.scalars(first_try).one_or_none() or emailer.paced_from


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
