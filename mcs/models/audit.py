"""The audit log: who did what to which noun, and when."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from mcs.models.base import Base, UtcDateTime


class AuditEntry(Base):
    """One thing a person did. ``user_id`` is empty for the command line and for recipients."""

    __tablename__ = "audit_log"
    __table_args__ = (Index("ix_audit_log_noun_noun_id", "noun", "noun_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    verb: Mapped[str] = mapped_column(String(50))
    noun: Mapped[str] = mapped_column(String(50))
    noun_id: Mapped[int | None]
    detail: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
