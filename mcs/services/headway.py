"""Headway: how far an emailer has come, from its slices' counts."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from mcs.models import Delivery, Emailer, Slice
from mcs.services import emailers


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

    def per_second(self, now: datetime) -> float | None:
        """Messages sent a second since it last began to move; None when too few to tell."""
        sent = self.sent - self.paced_sent
        if self.paced_from is None or sent < 10:
            return None
        return sent / max((now - self.paced_from).total_seconds(), 1.0)

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
