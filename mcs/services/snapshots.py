"""Snapshots: an emailer's recipients as they are when it starts, and the slices it is sent in."""

import math
import secrets
from datetime import datetime

from sqlalchemy import Insert, case, func, insert, literal, select
from sqlalchemy.orm import Session

from mcs.models import Batch, Delivery, Emailer, Slice, UtcDateTime
from mcs.models.sql import random_hex
from mcs.services import audiences

# A slice is all that a second worker can help with, so an emailer is parted among so many.
SHARES = 8
# To claim one and give it back takes 20 ms of processor time; to send this many near the server 50.
SMALLEST_SLICE = 250
# Large enough that a worker rarely asks for the next, small enough that several share the end.
LARGEST_SLICE = 2000


def write(session: Session, now: datetime, emailer: Emailer) -> None:
    """Freeze the recipients and write the ledger: one delivery per contact of the batch."""
    scenario = emailer.scenario
    # Held against an import that adds to the batch between the count and the insert (a foreign
    # key takes a share lock on this row).
    session.execute(
        select(Batch.id).where(Batch.campaign_id == scenario.campaign_id).with_for_update()
    )
    recipients = audiences.size(session, scenario.campaign_id, scenario.excludes_id)
    session.execute(_deliveries(now, emailer.id, scenario.campaign_id, scenario.excludes_id))
    session.execute(_slices(now, emailer.id, slice_size(recipients)))
    written = session.scalars(
        select(func.coalesce(func.sum(Slice.pending + Slice.skipped), 0)).where(
            Slice.emailer_id == emailer.id
        )
    ).one()
    if written != recipients:
        # A contact left the batch in between: nothing is committed, the bell rings again.
        raise RuntimeError(f"{written} deliveries for {recipients} recipients")
    emailer.recipients, emailer.started_at, emailer.paced_from = recipients, now, now
    session.flush()


def slice_size(recipients: int) -> int:
    """How many deliveries a slice of an emailer holds, at most."""
    return min(LARGEST_SLICE, max(SMALLEST_SLICE, math.ceil(recipients / SHARES)))


def _deliveries(
    now: datetime, emailer_id: int, campaign_id: int, excludes_id: int | None
) -> Insert:
    """One delivery per contact of the batch; those left out are born skipped, with the reason."""
    member = audiences.members(campaign_id, excludes_id).subquery()
    rows = select(
        literal(emailer_id),
        member.c.contact_id,
        case((member.c.reason == "", "pending"), else_="skipped"),
        member.c.reason,
        literal(0),
        literal(now, type_=UtcDateTime()),
        random_hex(secrets.token_hex(16), member.c.contact_id),
        literal(""),
    ).order_by(member.c.contact_id)
    columns = [
        "emailer_id",
        "contact_id",
        "state",
        "reason",
        "attempts",
        "due_at",
        "message_id",
        "reply_text",
    ]
    return insert(Delivery).from_select(columns, rows, include_defaults=False)


def _slices(now: datetime, emailer_id: int, size: int) -> Insert:
    """The ranges of the emailer's deliveries, with their counts."""
    numbered = (
        select(
            Delivery.id,
            case((Delivery.state == "pending", 1), else_=0).label("pending"),
            ((func.row_number().over(order_by=Delivery.id) - 1) // size).label("part"),
        )
        .where(Delivery.emailer_id == emailer_id)
        .subquery()
    )
    pending = func.sum(numbered.c.pending)
    rows = (
        select(
            literal(emailer_id),
            func.min(numbered.c.id),
            func.max(numbered.c.id),
            literal(now, type_=UtcDateTime()),
            pending,
            func.count() - pending,
            *(literal(0) for _ in range(4)),
        )
        .group_by(numbered.c.part)
        .order_by(func.min(numbered.c.id))
    )
    columns = ["emailer_id", "low_id", "high_id", "due_at", "pending", "skipped"]
    columns += ["sending", "sent", "failed", "in_doubt"]
    return insert(Slice).from_select(columns, rows, include_defaults=False)
