"""Emailers: one planned sending of a scenario to its batch, and the slices it is sent in."""

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    ForeignKey,
    Index,
    Integer,
    String,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from mcs.core.states import EMAILER_LIVE, EMAILER_STATES
from mcs.models.base import Base, UtcDateTime
from mcs.models.checks import one_of
from mcs.models.scenarios import Scenario

_DELIVERY_ID = BigInteger().with_variant(Integer, "sqlite")


class Emailer(Base):
    """One sending of one scenario at one instant.

    ``recipients`` is counted independently of the deliveries and frozen when sending starts.
    ``notice`` is a sentence for people: why MCS paused it, missed it, or cannot go on right now.
    ``paced_from`` is when it last began to move, with ``paced_sent`` served by then: what a pace is
    reckoned from, so that a night's pause does not count. ``cuts`` is how often in a row
    its server broke off in the middle (mcs.core.breaker).
    """

    __tablename__ = "emailers"
    __table_args__ = (
        CheckConstraint(one_of("state", EMAILER_STATES), name="state"),
        # A scenario is never in two sendings at once, whoever plans, however often.
        Index(
            "uq_emailers_live_scenario",
            "scenario_id",
            unique=True,
            sqlite_where=text(one_of("state", EMAILER_LIVE)),
            postgresql_where=text(one_of("state", EMAILER_LIVE)),
        ),
        Index("ix_emailers_scenario_id", "scenario_id"),
        Index("ix_emailers_state_scheduled_at", "state", "scheduled_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    scenario_id: Mapped[int] = mapped_column(ForeignKey("scenarios.id"))
    state: Mapped[str] = mapped_column(String(10), default="planned")
    scheduled_at: Mapped[datetime] = mapped_column(UtcDateTime)
    recipients: Mapped[int | None]
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    paced_from: Mapped[datetime | None] = mapped_column(UtcDateTime)
    paced_sent: Mapped[int] = mapped_column(default=0, server_default="0")
    notice: Mapped[str] = mapped_column(String(500), default="")
    cuts: Mapped[int] = mapped_column(default=0, server_default="0")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

    scenario: Mapped[Scenario] = relationship()

    @property
    def active(self) -> bool:
        """The seed's word: still to be sent, or being sent."""
        return self.state in EMAILER_LIVE

    @property
    def sent(self) -> bool:
        """The seed's word: sent to the end."""
        return self.state == "sent"


class Slice(Base):
    """Deliveries that one worker sends at a time, with their counts.

    They are a range of an emailer's, whose end another worker may take (mcs.services.parting); or
    those that a sequence's step, sending the scenario, bore in one commit: these name their slice,
    and ``begun_at`` is when trying them began.

    The row is the lease: who holds ``claim_token`` before ``lease_until`` may start its deliveries.
    It also carries their counts by state, moved in the same transaction as the deliveries, so that
    totals never need a count over the ledger. ``due_at`` is when the next of the pending ones may
    go; a slice is ``open`` while something of it is pending or sending.
    """

    __tablename__ = "slices"
    __table_args__ = (
        CheckConstraint("(emailer_id IS NULL) <> (scenario_id IS NULL)", name="one_parent"),
        Index("ix_slices_emailer_id", "emailer_id"),
        Index("ix_slices_scenario_id", "scenario_id"),
        # Of a sequence there may be as many as moments at which something is due.
        Index(
            "ix_slices_claim_token",
            "claim_token",
            sqlite_where=text("claim_token IS NOT NULL"),
            postgresql_where=text("claim_token IS NOT NULL"),
        ),
        Index(
            "ix_slices_open",
            "due_at",
            sqlite_where=text("open"),
            postgresql_where=text("open"),
        ),
        {"postgresql_with": {"fillfactor": 50}},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    emailer_id: Mapped[int | None] = mapped_column(ForeignKey("emailers.id"))
    scenario_id: Mapped[int | None] = mapped_column(ForeignKey("scenarios.id"))
    low_id: Mapped[int] = mapped_column(_DELIVERY_ID)
    high_id: Mapped[int] = mapped_column(_DELIVERY_ID)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)
    begun_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    claim_token: Mapped[str | None] = mapped_column(String(22))
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    pending: Mapped[int] = mapped_column(default=0)
    sending: Mapped[int] = mapped_column(default=0)
    sent: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)
    in_doubt: Mapped[int] = mapped_column(default=0)
    skipped: Mapped[int] = mapped_column(default=0)
    # A column, so that the index on it is not written with every count.
    open: Mapped[bool] = mapped_column(Computed("pending + sending > 0", persisted=True))
