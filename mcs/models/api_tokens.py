"""API tokens, and the answers kept for requests that carry an Idempotency-Key."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from mcs.models.base import Base, UtcDateTime
from mcs.models.checks import one_of

# Each may do what those before it may.
SCOPES = ("read", "enrol", "manage")


class ApiToken(Base):
    """What a program proves itself with: only its hash is stored, and it is good until revoked.

    ``ending`` are the last characters of the token, to recognise it by. ``created_by`` is empty
    for the command line. ``last_used_at`` is right to the minute.
    """

    __tablename__ = "api_tokens"
    __table_args__ = (CheckConstraint(one_of("scope", SCOPES), name="scope"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    scope: Mapped[str] = mapped_column(String(10))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    ending: Mapped[str] = mapped_column(String(8))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class KeptAnswer(Base):
    """A request that named an Idempotency-Key, and its answer once there is one.

    Without a ``status`` it is being answered, until ``lease_until`` at the latest.
    """

    __tablename__ = "kept_answers"
    __table_args__ = (Index("ix_kept_answers_first_at", "first_at"),)

    token_id: Mapped[int] = mapped_column(ForeignKey("api_tokens.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    request_hash: Mapped[str] = mapped_column(String(64))
    first_at: Mapped[datetime] = mapped_column(UtcDateTime)
    lease_until: Mapped[datetime] = mapped_column(UtcDateTime)
    status: Mapped[int | None]
    location: Mapped[str] = mapped_column(String(500), default="")
    body: Mapped[str | None] = mapped_column(Text)
