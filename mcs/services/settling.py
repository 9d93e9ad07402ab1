"""Settling: what a person decides about deliveries that MCS cannot, or will not, decide itself."""

from bisect import bisect
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, func, select, update
from sqlalchemy.orm import Session

from mcs.gateways.jobqueue import JobQueue
from mcs.models import AuditEntry, Contact, Delivery, Emailer, Slice
from mcs.services import audiences, emailers
from mcs.services.emailers import NotPossible
from mcs.services.transactions import writing

ANSWERS = ("sent", "failed", "again")
BY_PERSON = "settled by a person"


def settle(
    session: Session,
    now: datetime,
    queue: JobQueue,
    emailer_id: int,
    answer: str,
    delivery_id: int | None = None,
    *,
    user_id: int | None = None,
) -> int:
    """Settle one delivery in doubt, or all of an emailer; how many.

    ``answer``: it was ``sent``, it ``failed``, or send it ``again`` with the same Message-ID, so
    that a server or a person can see that the two are one. Settled ones are left alone.
    """
    if answer not in ANSWERS:
        raise ValueError(f"answer is one of {', '.join(ANSWERS)}, not {answer!r}")
    wanted = Delivery.exception == "in_doubt"
    if delivery_id is not None:
        wanted &= Delivery.id == delivery_id
    with writing(session):
        number = _change(session, now, emailer_id, wanted, answer, f"settled as {answer}", user_id)
    emailers.ring(session, now, queue, emailer_id)
    return number


def retry_failed(
    session: Session,
    now: datetime,
    queue: JobQueue,
    emailer_id: int,
    *,
    user_id: int | None = None,
) -> int:
    """Try an emailer's failed deliveries once more; how many go again.

    Addresses suppressed meanwhile (a mailbox that does not exist is) are skipped instead.
    """
    with writing(session):
        failed = Delivery.exception == "failed"
        number = _change(session, now, emailer_id, failed, "again", "retried", user_id)
    emailers.ring(session, now, queue, emailer_id)
    return number


def _change(
    session: Session,
    now: datetime,
    emailer_id: int,
    wanted: ColumnElement[bool],
    answer: str,
    verb: str,
    user_id: int | None,
) -> int:
    emailer = emailers.locked(session, emailer_id)
    if answer == "again" and emailer.state == "cancelled":
        raise NotPossible("This sending has been cancelled: nobody of it can be written to again.")
    slices = session.scalars(
        select(Slice).where(Slice.emailer_id == emailer_id).order_by(Slice.id).with_for_update()
    ).all()
    these = and_(Delivery.emailer_id == emailer_id, wanted)
    if answer == "again":
        unwanted = audiences.suppressed_addresses(emailer.scenario.campaign_id)
        reasons = (
            select(unwanted.c.reason)
            .join(Contact, Contact.email_key == unwanted.c.email_key)
            .where(Contact.id == Delivery.contact_id)
            .scalar_subquery()
        )
        _move(session, slices, and_(these, reasons.is_not(None)), "skipped", reason=reasons)
        number = _move(session, slices, these, "pending", reason="", due_at=now)
    elif answer == "sent":
        sent_at = func.coalesce(Delivery.started_at, now)
        number = _move(session, slices, these, "sent", reason=BY_PERSON, sent_at=sent_at)
    else:
        number = _move(session, slices, these, "failed", reason=BY_PERSON)
    _reopen(session, now, emailer, slices)
    session.add(
        AuditEntry(
            at=now,
            user_id=user_id,
            verb=verb,
            noun="emailer",
            noun_id=emailer_id,
            detail={"deliveries": number},
        )
    )
    return number


def _move(
    session: Session,
    slices: Sequence[Slice],
    these: ColumnElement[bool],
    state: str,
    **values: Any,
) -> int:
    """Move deliveries to a state, and their slices' counts with them; how many."""
    before = session.execute(select(Delivery.id, Delivery.state).where(these)).all()
    if not before:
        return 0
    session.execute(
        update(Delivery)
        .where(these)
        .values(state=state, **values)
        .execution_options(synchronize_session=False)
    )
    starts = [piece.low_id for piece in slices]
    for row in before:
        piece = slices[bisect(starts, row.id) - 1]
        setattr(piece, row.state, getattr(piece, row.state) - 1)
        setattr(piece, state, getattr(piece, state) + 1)
        if state == "pending":
            piece.due_at = min(piece.due_at, values["due_at"])
    return len(before)


def _reopen(session: Session, now: datetime, emailer: Emailer, slices: Sequence[Slice]) -> None:
    if emailer.state == "sent" and any(piece.pending for piece in slices):
        emailer.state, emailer.finished_at = "sending", None
        emailer.paced_from = now
        emailer.paced_sent = sum(piece.sent for piece in slices)
    session.flush()
    emailers.record_served(session, emailer.id)
