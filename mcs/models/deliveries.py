"""Deliveries: the ledger. What became of an emailer, or of an action, for one contact."""

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from mcs.core.states import DELIVERY_EXCEPTIONS, DELIVERY_STATES
from mcs.models.base import Base, UtcDateTime
from mcs.models.checks import one_of
from mcs.models.sql import random_hex

_IS_EXCEPTION = text("exception IS NOT NULL")
_IS_ACTIONS = text("action_id IS NOT NULL")


class Delivery(Base):
    """The ledger row: written before the first message, never dropped.

    ``started_at`` is when its latest attempt was marked ``sending``, ``sent_at`` when a server
    accepted it. ``message_id`` is drawn when the row is born, so equal on every attempt. An
    action's delivery names its ``slice_id``; an emailer's are found by their range. ``exception``
    is the state where it is one that people look for, one of DELIVERY_EXCEPTIONS.
    """

    __tablename__ = "deliveries"
    __table_args__ = (
        CheckConstraint(one_of("state", DELIVERY_STATES), name="state"),
        CheckConstraint("(emailer_id IS NULL) <> (action_id IS NULL)", name="one_parent"),
        CheckConstraint("state <> 'sent' OR sent_at IS NOT NULL", name="sent_has_time"),
        CheckConstraint("state <> 'skipped' OR reason <> ''", name="skipped_has_reason"),
        # On PostgreSQL triggers see to these two, for all rows of a statement at once: a million
        # lookups of their own were half of a snapshot (docs/adr/0017-parents-looked-up-at-once.md).
        ForeignKeyConstraint(["emailer_id"], ["emailers.id"]).ddl_if(dialect="sqlite"),
        ForeignKeyConstraint(["contact_id"], ["contacts.id"]).ddl_if(dialect="sqlite"),
        # The constraint that makes a double impossible, whatever runs twice.
        Index("uq_deliveries_emailer_id_contact_id", "emailer_id", "contact_id", unique=True),
        Index(
            "uq_deliveries_action_id",
            "action_id",
            unique=True,
            sqlite_where=_IS_ACTIONS,
            postgresql_where=_IS_ACTIONS,
        ),
        Index("ix_deliveries_contact_id", "contact_id"),
        Index(
            "ix_deliveries_slice_id",
            "slice_id",
            sqlite_where=text("slice_id IS NOT NULL"),
            postgresql_where=text("slice_id IS NOT NULL"),
        ),
        # Not on the state itself: every change of an indexed column writes all indexes anew on
        # PostgreSQL, which is twice per message on the sending path.
        Index(
            "ix_deliveries_exception",
            "exception",
            "emailer_id",
            "id",
            sqlite_where=_IS_EXCEPTION,
            postgresql_where=_IS_EXCEPTION,
        ),
        # Room for a row's next versions beside it, without which there is no such saving.
        {"postgresql_with": {"fillfactor": 70}},
    )

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    emailer_id: Mapped[int | None]
    action_id: Mapped[int | None] = mapped_column(ForeignKey("actions.id"))
    slice_id: Mapped[int | None] = mapped_column(ForeignKey("slices.id"))
    contact_id: Mapped[int]
    state: Mapped[str] = mapped_column(String(10), default="pending")
    reason: Mapped[str] = mapped_column(String(200), default="")
    attempts: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    sent_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    message_id: Mapped[str] = mapped_column(String(64), insert_default=random_hex())
    reply_code: Mapped[int | None]
    reply_text: Mapped[str] = mapped_column(String(1000), default="")
    exception: Mapped[str | None] = mapped_column(
        String(10),
        Computed(
            f"CASE WHEN {one_of('state', DELIVERY_EXCEPTIONS)} THEN state END", persisted=True
        ),
    )
