"""Attempts: how often somebody tried to come in, counted so that guessing comes to an end."""

import hashlib
from datetime import datetime, timedelta

from sqlalchemy import case, select
from sqlalchemy.orm import Session

from mcs.models import SignInLimit
from mcs.models.sql import insert_into

WINDOW = timedelta(minutes=15)


def key(kind: str, name: str) -> str:
    """What an account's, or a network address's attempts are counted under."""
    return f"{kind}:{hashlib.sha256(name.encode(errors='replace')).hexdigest()}"


def one_more(session: Session, now: datetime, key: str) -> int:
    """How many there were in this window, with this one; counted in the caller's transaction.

    In one statement, from one again when the window has passed.
    """
    passed = SignInLimit.since <= now - WINDOW
    counted = (
        insert_into(session, SignInLimit)
        .values(key=key, attempts=1, since=now)
        .on_conflict_do_update(
            index_elements=["key"],
            set_={
                "attempts": case((passed, 1), else_=SignInLimit.attempts + 1),
                "since": case((passed, now), else_=SignInLimit.since),
            },
        )
        .returning(SignInLimit.attempts)
    )
    return session.execute(counted).scalar_one()


def so_far(session: Session, now: datetime, key: str) -> int:
    """How many there were in this window; it writes nothing."""
    found = session.scalar(
        select(SignInLimit.attempts).where(SignInLimit.key == key, SignInLimit.since > now - WINDOW)
    )
    return found or 0
