"""The audit log: noting who did what, and reading it back."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from mcs.models import AuditEntry, User
from mcs.services.paging import At, Page, by_id, turn

PAGE_LENGTH = 50
# What an entry may say of by what, other than a person, it was done.
DOORS = ("token", "program")
_DOOR = "mcs_audit_door"


@dataclass(frozen=True)
class Line:
    """One entry, with the address of who did it, where that was a person."""

    entry: AuditEntry
    email: str

    @property
    def who(self) -> str:
        """A person by their address, a program by its token's name, or the command line; empty
        where MCS did it by itself."""
        doors = (str(self.entry.detail[one]) for one in DOORS if one in self.entry.detail)
        return self.email or next(doors, "")


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
    detail = detail | session.info.get(_DOOR, {})
    entry = AuditEntry(
        at=now, user_id=user_id, verb=verb, noun=noun, noun_id=noun_id, detail=detail
    )
    session.add(entry)


def come_through(session: Session, **door: Any) -> None:
    """Have all that is noted in this session say by what, other than a person, it was done."""
    session.info[_DOOR] = door


def asked_for(session: Session, user_id: int | None) -> bool:
    """Whether somebody is behind what is done: a person, or a program with its token. What an
    upload, the clock or a library does by itself is told of in no log."""
    return user_id is not None or _DOOR in session.info


def listing(session: Session, after: str = "", before: str = "") -> Page[Line]:
    """The newest entries first, a page of them."""
    query = select(AuditEntry, User.email).outerjoin(User, User.id == AuditEntry.user_id)
    return turn(
        session,
        query,
        by_id(AuditEntry.id),
        At(after, before),
        PAGE_LENGTH,
        lambda entry, email: Line(entry, email or ""),
        lambda line: line.entry.id,
    )
