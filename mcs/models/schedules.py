"""Schedules: a subject's enrolment in a campaign's sequence."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from mcs.models.base import BINARY_ON_MYSQL, Base, UtcDateTime


class Schedule(Base):
    """One run of a subject (a kind and an id, such as order A-17) through a sequence.

    ``started_at`` is when it began: every one of its actions is counted from there, for ever.
    ``contact_id`` is whom to write to.
    """

    __tablename__ = "schedules"
    __table_args__ = (
        UniqueConstraint("campaign_id", "subject", "subject_id", "run"),
        CheckConstraint("run > 0", name="run"),
        # Subjects that are written to have one, others need no entry.
        Index(
            "ix_schedules_contact_id",
            "contact_id",
            sqlite_where=text("contact_id IS NOT NULL"),
            postgresql_where=text("contact_id IS NOT NULL"),
        ),
        BINARY_ON_MYSQL,
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"))
    subject: Mapped[str] = mapped_column(String(100))
    subject_id: Mapped[str] = mapped_column(String(255))
    run: Mapped[int] = mapped_column(default=1)
    active: Mapped[bool] = mapped_column(default=True)
    contact_id: Mapped[int | None] = mapped_column(ForeignKey("contacts.id"))
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
