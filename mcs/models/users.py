"""Users, the one-time links that make them, and the limits on signing in."""

from datetime import datetime

from sqlalchemy import CheckConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from mcs.models.base import Base, UtcDateTime
from mcs.models.checks import one_of

ROLES = ("owner", "marketer")


class User(Base):
    """Someone who signs in. A session carries ``session_key``; changing it ends every session.

    A removed user's row stays, so that the audit log can name them: ``email_key`` is replaced by
    ``#`` and the id, which frees the address.
    """

    __tablename__ = "users"
    __table_args__ = (CheckConstraint(one_of("role", ROLES), name="role"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(320))
    email_key: Mapped[str] = mapped_column(String(320), unique=True)
    password_hash: Mapped[str] = mapped_column(String(255))
    session_key: Mapped[str] = mapped_column(String(64))
    role: Mapped[str] = mapped_column(String(10), default="marketer")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    removed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class SetupToken(Base):
    """A one-time link to choose a password: only its hash is stored, and it expires.

    That of the first run makes the owner, of whatever address; an invitation names its address.
    """

    __tablename__ = "setup_tokens"
    __table_args__ = (CheckConstraint(one_of("role", ROLES), name="role"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    email: Mapped[str] = mapped_column(String(320), default="")
    role: Mapped[str] = mapped_column(String(10), default="owner")
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class SignInLimit(Base):
    """How often one account, or one network address, tried to sign in since ``since``.

    ``key`` names no account that must exist, so that unknown addresses are counted alike.
    """

    __tablename__ = "sign_in_limits"

    key: Mapped[str] = mapped_column(String(80), primary_key=True)
    attempts: Mapped[int]
    since: Mapped[datetime] = mapped_column(UtcDateTime)
