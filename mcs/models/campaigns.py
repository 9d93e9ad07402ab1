"""Campaigns, and the batch of recipients each one has."""

import secrets
from datetime import date, datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from mcs.models.base import BINARY_ON_MYSQL, Base, UtcDateTime
from mcs.models.contacts import Contact


def new_edition() -> str:
    """A mark that no campaign has had yet."""
    return secrets.token_urlsafe(12)


class Campaign(Base):
    """A named drive with a first and a last day, both included, in its own time zone.

    ``uid`` is what the outside world sees of it (List-Id, Feedback-ID, unsubscribe links); ids stay
    inside. ``send_rate`` is its own limit in messages a second. ``enrols_added``: who is added to
    the batch is enrolled in the sequence; ``enrol_asked_at`` is when somebody asked to enrol the
    whole batch, until that is done. ``edition`` changes with whatever its sequence is planned by:
    steps, days, zone, whether it runs. A campaign with a ledger is archived, never dropped.

    ``held_at`` is since when the emails of its sequence wait for a person. ``notice`` is a sentence
    for people: why they are held, or cannot go on right now. ``cuts`` is how often in a row their
    server broke off in the middle (mcs.core.breaker).
    """

    __tablename__ = "campaigns"
    __table_args__ = (
        CheckConstraint("start_date <= end_date", name="timeline"),
        Index("ix_campaigns_timeline", "active", "start_date", "end_date"),
        BINARY_ON_MYSQL,
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str | None] = mapped_column(String(255), unique=True)
    uid: Mapped[str] = mapped_column(String(22), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    description: Mapped[str] = mapped_column(Text, default="")
    start_date: Mapped[date]
    end_date: Mapped[date]
    timezone: Mapped[str] = mapped_column(String(64))
    from_name: Mapped[str] = mapped_column(String(200), default="")
    from_email: Mapped[str] = mapped_column(String(320), default="")
    reply_to: Mapped[str] = mapped_column(String(320), default="")
    postal_address: Mapped[str] = mapped_column(String(500), default="")
    send_rate: Mapped[float | None]
    active: Mapped[bool] = mapped_column(default=True)
    enrols_added: Mapped[bool] = mapped_column(default=False)
    enrol_asked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    archived_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    held_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    notice: Mapped[str] = mapped_column(String(500), default="", server_default="")
    cuts: Mapped[int] = mapped_column(default=0, server_default="0")
    edition: Mapped[str] = mapped_column(String(16), default=new_edition)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)

    batch: Mapped["Batch"] = relationship(back_populates="campaign", uselist=False)


class Batch(Base):
    """The recipients of one campaign: made with it, filled by uploads."""

    __tablename__ = "batches"

    id: Mapped[int] = mapped_column(primary_key=True)
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"), unique=True)

    campaign: Mapped[Campaign] = relationship(back_populates="batch")


class BatchContact(Base):
    """One contact's place in one batch."""

    __tablename__ = "batch_contacts"
    __table_args__ = (Index("ix_batch_contacts_contact_id", "contact_id"),)

    batch_id: Mapped[int] = mapped_column(ForeignKey("batches.id"), primary_key=True)
    contact_id: Mapped[int] = mapped_column(ForeignKey("contacts.id"), primary_key=True)
    added_at: Mapped[datetime] = mapped_column(UtcDateTime)

    contact: Mapped[Contact] = relationship()
