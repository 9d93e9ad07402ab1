"""The audit log: noting who did what, and reading it back."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from mcs.models import AuditEntry, User


@dataclass(frozen=True)
class Line:
    """One entry, with the address of who did it (empty: the command line, or a recipient)."""

    entry: AuditEntry
    email: str


def note(
    session: Session,
    now: datetime,
    user_id: int | None,
    verb: str,
    noun: str,
    noun_id: int | None,
    **detail: Any,
) -> None:
    """Add an entry to the caller's transaction. ``detail`` is JSON, and holds no secrets."""
    entry = AuditEntry(
        at=now, user_id=user_id, verb=verb, noun=noun, noun_id=noun_id, detail=detail
    )
    session.add(entry)


def latest(session: Session, limit: int, before: int | None = None) -> Sequence[Line]:
    """The newest entries first, older than the entry ``before`` when given."""
    query = (
        select(AuditEntry, User.email)
        .outerjoin(User, User.id == AuditEntry.user_id)
        .order_by(AuditEntry.id.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(AuditEntry.id < before)
    return [Line(entry, email or "") for entry, email in session.execute(query)]
