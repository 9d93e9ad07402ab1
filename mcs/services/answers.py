"""Answers: kept for requests with an Idempotency-Key, so that asking twice does it once.

A key belongs to the token it came with. It is taken in a commit of its own before anything is done,
and its answer is kept in another one after; an error lets the key go. Where a process died between
the two, the key's lease ends, and who asks again is let through: the verbs themselves do nothing
twice (``since`` and ``mark`` are for those that would: a restart, and a campaign without a key).
"""

import base64
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.orm import Session

from mcs.models import KeptAnswer
from mcs.models.sql import insert_into
from mcs.services.transactions import NO_SYNC, writing

KEPT_FOR = timedelta(hours=24)
# Longer than a web process lets a request run.
LEASE = timedelta(seconds=90)


class OtherRequest(Exception):
    """The key was used for a request that asked for something else."""


class BeingAnswered(Exception):
    """The same request is being answered in this moment."""


@dataclass(frozen=True)
class Key:
    """A key as it came: whose it is, its text, and the hash of all that was asked with it."""

    token_id: int
    text: str
    request_hash: str


@dataclass(frozen=True)
class Answer:
    """What was answered: the HTTP status, the Location header, the body."""

    status: int
    location: str
    body: str


@dataclass(frozen=True)
class Turn:
    """Ours to answer, until somebody may take over; ``since`` is when it was first asked.

    ``mark`` is the same for who takes over, and nobody else's: what is made may carry it, to be
    found again. It has 22 characters of base64url.
    """

    since: datetime
    until: datetime
    mark: str


def take(session: Session, now: datetime, key: Key) -> Answer | Turn:
    """The answer that is kept for the key, or a turn to answer it.

    Raises OtherRequest, BeingAnswered.
    """
    with writing(session):
        _let_go_of_the_old(session, now)
        taken = session.scalar(
            insert_into(session, KeptAnswer)
            .values(
                token_id=key.token_id,
                key=key.text,
                request_hash=key.request_hash,
                first_at=now,
                lease_until=now + LEASE,
                location="",
            )
            .on_conflict_do_nothing()
            .returning(KeptAnswer.key)
        )
        return _known(session, now, key) if taken is None else _turn(key, now, now + LEASE)


def keep(session: Session, key: Key, turn: Turn, answer: Answer) -> None:
    """Keep the answer for who asks again; not where another has taken over the turn."""
    with writing(session):
        session.execute(
            update(KeptAnswer)
            .where(*_named(key), KeptAnswer.lease_until == turn.until)
            .values(status=answer.status, location=answer.location, body=answer.body)
        )


def let_go(session: Session, key: Key, turn: Turn) -> None:
    """Forget the key: nothing was done, so it may be used again. As ``keep``."""
    mine = (*_named(key), KeptAnswer.status.is_(None), KeptAnswer.lease_until == turn.until)
    with writing(session):
        session.execute(delete(KeptAnswer).where(*mine))


def _known(session: Session, now: datetime, key: Key) -> Answer | Turn:
    row = session.scalars(
        select(KeptAnswer)
        .where(*_named(key))
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one_or_none()
    if row is not None and row.request_hash != key.request_hash:
        raise OtherRequest
    if row is None or (row.status is None and row.lease_until > now):
        raise BeingAnswered
    if row.status is not None:
        return Answer(row.status, row.location, row.body or "")
    row.lease_until = now + LEASE
    return _turn(key, row.first_at, row.lease_until)


def _turn(key: Key, since: datetime, until: datetime) -> Turn:
    asked = f"{key.token_id} {since.astimezone(UTC).isoformat()} {key.text}"
    digest = hashlib.sha256(asked.encode()).digest()[:16]
    return Turn(since, until, base64.urlsafe_b64encode(digest).decode().rstrip("="))


def _let_go_of_the_old(session: Session, now: datetime) -> None:
    session.execute(
        delete(KeptAnswer).where(KeptAnswer.first_at <= now - KEPT_FOR).execution_options(**NO_SYNC)
    )


def _named(key: Key) -> tuple[ColumnElement[bool], ...]:
    return KeptAnswer.token_id == key.token_id, KeptAnswer.key == key.text
