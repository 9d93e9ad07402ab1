"""Contacts: people, one per address, the same person in every batch."""

from datetime import datetime

from sqlalchemy import JSON, String
from sqlalchemy.orm import Mapped, mapped_column

from mcs.models.base import BINARY_ON_MYSQL, Base, UtcDateTime


class Contact(Base):
    """A person. ``email`` is the address as typed, ``email_key`` the form it is compared by.

    ``email_key`` is NFC, lower case, the domain as A-label (mcs.core.addresses). ``uid`` is what
    unsubscribe links carry. A deleted contact keeps its row as a tombstone: email and name empty,
    ``email_key`` replaced by ``#`` and a keyed hash, so that ledgers add up and links still work.
    """

    __tablename__ = "contacts"
    __table_args__ = BINARY_ON_MYSQL

    id: Mapped[int] = mapped_column(primary_key=True)
    uid: Mapped[str] = mapped_column(String(22), unique=True)
    email: Mapped[str] = mapped_column(String(320))
    email_key: Mapped[str] = mapped_column(String(320), unique=True)
    name: Mapped[str] = mapped_column(String(200), default="")
    attributes: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
