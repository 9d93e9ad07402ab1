"""Actions: one step owed to one subject."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.mysql import LONGTEXT
from sqlalchemy.orm import Mapped, mapped_column

from mcs.core.states import ACTION_STATES
from mcs.models.base import BINARY_ON_MYSQL, Base, UtcDateTime
from mcs.models.checks import one_of


class Action(Base):
    """``expected_at`` is when it is to be, by the sequence; none yet while it waits for another.

    ``due_at`` is when it is next to be claimed: ``expected_at``, until a retry moves it.
    ``started_at`` is when its callback was first called, ``ended_at`` when it was completed,
    failed or cancelled. ``reason`` says why it was cancelled, or completed without an email. Who
    holds ``claim_token`` before ``lease_until`` may run it; ``attempts`` counts the claims. One
    that sends email is processing without a lease: it follows its delivery.
    """

    __tablename__ = "actions"
    __table_args__ = (
        UniqueConstraint("schedule_id", "key", "occurrence"),
        CheckConstraint(one_of("state", ACTION_STATES), name="state"),
        CheckConstraint(
            "state <> 'completed' OR completed_at IS NOT NULL", name="completed_has_time"
        ),
        CheckConstraint("state <> 'cancelled' OR reason <> ''", name="cancelled_has_reason"),
        CheckConstraint("occurrence > 0", name="occurrence"),
        # What is due is asked every second, oldest first. On PostgreSQL each change of a row writes
        # all indexes anew that it is in: what runs and what is completed is not in this one. (What
        # has failed is asked for by the home page.)
        Index(
            "ix_actions_state_due_at",
            "state",
            "due_at",
            postgresql_where=text("state IN ('pending', 'failed')"),
        ),
        # And whose lease has ended. (MySQL has no partial indexes: there it is a whole one.)
        Index(
            "ix_actions_lease_until",
            "lease_until",
            sqlite_where=text("lease_until IS NOT NULL"),
            postgresql_where=text("lease_until IS NOT NULL"),
        ),
        BINARY_ON_MYSQL,
    )

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    schedule_id: Mapped[int] = mapped_column(ForeignKey("schedules.id"))
    key: Mapped[str] = mapped_column(String(100))
    occurrence: Mapped[int] = mapped_column(default=1)
    state: Mapped[str] = mapped_column(String(10), default="pending")
    reason: Mapped[str] = mapped_column(String(200), default="")
    expected_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    due_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    attempts: Mapped[int] = mapped_column(default=0)
    claim_token: Mapped[str | None] = mapped_column(String(22))
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    error: Mapped[str | None] = mapped_column(Text().with_variant(LONGTEXT(), "mysql", "mariadb"))
    result: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
