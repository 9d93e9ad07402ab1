"""Writers: the commits of a lane, in the words of each database's own driver.

Nearly every commit of a lane is plain: answers that settle letters, and letters that start. Those
are written here, with what ``deliveries.advance`` promises, at a fourth of its processor time and,
on PostgreSQL, in one round trip instead of six (docs/adr/0010-lane-speed.md).
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol

import psycopg
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from mcs.core.states import DELIVERY_STATES
from mcs.services.deliveries import Step
from mcs.services.steps import Outcome

Written = tuple[set[int], list[Step]]

SQLITE_PATIENCE_MS = 1_000


class Writer(Protocol):
    """A connection of its own to the ledger. Raises SQLAlchemy's OperationalError."""

    def advance(self, now: datetime, until: datetime, steps: Sequence[Step]) -> Written:
        """Write plain steps in one commit, and renew their leases ``until`` then.

        Returns the deliveries that may go, and the steps whose lease is lost.
        """

    def close(self) -> None:
        """Let the connection go."""


def open_writer(engine: Engine) -> Writer:
    """The writer for this engine's database."""
    return _WRITERS[engine.dialect.name](engine)


def is_plain(step: Step) -> bool:
    """Whether a writer can write it: nothing in it has to be looked up, moves an action, or is to
    go again."""
    if step.claim.parent.emailer_id is None or step.refusals:
        return False
    return all(outcome.state != "pending" for outcome in step.outcomes)


class SqliteWriter:
    """One process at a time writes, so BEGIN IMMEDIATE is all the locking there is."""

    def __init__(self, engine: Engine) -> None:
        pooled = engine.raw_connection()
        connection = pooled.driver_connection
        assert isinstance(connection, sqlite3.Connection)
        # Out of the pool, since it is less patient: others than the ledger wait for its caller.
        pooled.detach()
        connection.execute(f"PRAGMA busy_timeout = {SQLITE_PATIENCE_MS}")
        self._connection = connection

    def advance(self, now: datetime, until: datetime, steps: Sequence[Step]) -> Written:
        started: set[int] = set()
        lost = []
        with self._writing():
            for step in steps:
                if self._hold(until, step):
                    self._record(step.outcomes)
                    started |= self._start(now, step)
                else:
                    lost.append(step)
        return started, lost

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise OperationalError("writing the ledger", None, error) from error
        finally:
            if self._connection.in_transaction:
                self._connection.rollback()

    def _hold(self, until: datetime, step: Step) -> bool:
        held = self._connection.execute(_SQLITE_HOLD, _holding(step) | {"until": _naive(until)})
        return held.rowcount == 1

    def _record(self, outcomes: Sequence[Outcome]) -> None:
        if outcomes:
            self._connection.executemany(_SQLITE_RECORD, [_told(outcome) for outcome in outcomes])

    def _start(self, now: datetime, step: Step) -> set[int]:
        if not step.starts:
            return set()
        wish = (_naive(now), json.dumps(step.starts), step.claim.parent.emailer_id)
        started = {row[0] for row in self._connection.execute(_SQLITE_START, wish)}
        refused = len(step.starts) - len(started)
        if refused:
            self._connection.execute(_SQLITE_REFUSED, (refused, refused, step.claim.slice_id))
        return started


class PostgresWriter:
    """Two statements a step, all sent at once: what lies before a pipeline's end is one commit."""

    def __init__(self, engine: Engine) -> None:
        pooled = engine.raw_connection()
        connection = pooled.driver_connection
        assert isinstance(connection, psycopg.Connection)
        # Out of the pool, since it commits by itself from now on.
        pooled.detach()
        connection.autocommit = True
        self._connection: psycopg.Connection[tuple[list[int] | None]] = connection

    def advance(self, now: datetime, until: datetime, steps: Sequence[Step]) -> Written:
        try:
            with self._connection.pipeline():
                answers = [self._send(now, until, step) for step in steps]
            rows = [answer.fetchone() for answer in answers]
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise OperationalError("writing the ledger", None, error) from error
        started: set[int] = set()
        lost = []
        for step, row in zip(steps, rows, strict=True):
            if row is None:
                lost.append(step)
            else:
                started.update(row[0] or ())
        return started, lost

    def close(self) -> None:
        self._connection.close()

    def _send(
        self, now: datetime, until: datetime, step: Step
    ) -> psycopg.Cursor[tuple[list[int] | None]]:
        claim = step.claim
        mine = {"slice_id": claim.slice_id, "token": claim.token}
        self._connection.execute(_POSTGRES_HOLD, mine | {"until": until}, prepare=True)
        wish = mine | {
            "told": json.dumps([_told(outcome) for outcome in step.outcomes]),
            "ended": _array(outcome.delivery_id for outcome in step.outcomes),
            "starts": _array(step.starts),
            "now": now,
            "emailer_id": claim.parent.emailer_id,
            **_counts(step),
        }
        return self._connection.execute(_POSTGRES_TAKE, wish, prepare=True)


_WRITERS: dict[str, type[SqliteWriter] | type[PostgresWriter]] = {
    "sqlite": SqliteWriter,
    "postgresql": PostgresWriter,
}


def _counts(step: Step) -> dict[str, int]:
    """How the slice's counts move by the answers."""
    moved = Counter(outcome.state for outcome in step.outcomes)
    counts = {state: moved[state] for state in DELIVERY_STATES}
    counts["sending"] -= len(step.outcomes)
    return counts


def _holding(step: Step) -> dict[str, object]:
    """The counts too as if all starts could be: those that cannot are counted back."""
    counts = _counts(step)
    counts["pending"] -= len(step.starts)
    counts["sending"] += len(step.starts)
    return {"slice_id": step.claim.slice_id, "token": step.claim.token, **counts}


def _told(outcome: Outcome) -> tuple[str, str, str, str | None, int | None, str, int]:
    at = _naive(outcome.at)
    return (
        outcome.state,
        outcome.reason[:200],
        at,
        at if outcome.state == "sent" else None,
        outcome.reply_code,
        outcome.reply_text[:1000],
        outcome.delivery_id,
    )


def _array(ids: Iterable[int]) -> str:
    """As PostgreSQL reads an array."""
    return f"{{{','.join(map(str, ids))}}}"


def _naive(instant: datetime) -> str:
    """As SQLite stores it (UtcDateTime), which PostgreSQL reads too."""
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


_SQLITE_HOLD = (
    "UPDATE slices SET lease_until = :until, "
    + ", ".join(f"{state} = {state} + :{state}" for state in DELIVERY_STATES)
    + " WHERE id = :slice_id AND claim_token = :token"
)
_SQLITE_RECORD = (
    "UPDATE deliveries SET state = ?, reason = ?, due_at = ?, sent_at = ?, reply_code = ?,"
    " reply_text = ? WHERE id = ?"
)
_SQLITE_START = (
    "UPDATE deliveries SET state = 'sending', started_at = ?, attempts = attempts + 1"
    " WHERE id IN (SELECT value FROM json_each(?)) AND state = 'pending'"
    " AND EXISTS (SELECT 1 FROM emailers WHERE id = ? AND state = 'sending') RETURNING id"
)
_SQLITE_REFUSED = "UPDATE slices SET pending = pending + ?, sending = sending - ? WHERE id = ?"

# A statement of its own: the next one's snapshot is taken when the slice is locked, so that it
# sees what those who held the lock before have done to the deliveries.
_POSTGRES_HOLD = (
    "UPDATE slices SET lease_until = %(until)s WHERE id = %(slice_id)s AND claim_token = %(token)s"
)
_POSTGRES_TAKE = (
    "WITH held AS (SELECT id FROM slices WHERE id = %(slice_id)s AND claim_token = %(token)s),"
    " recorded AS (UPDATE deliveries SET state = told.value->>0, reason = told.value->>1,"
    " due_at = CAST(told.value->>2 AS timestamp) AT TIME ZONE 'UTC',"
    " sent_at = CAST(told.value->>3 AS timestamp) AT TIME ZONE 'UTC',"
    " reply_code = CAST(told.value->>4 AS integer), reply_text = told.value->>5"
    " FROM held, json_array_elements(CAST(%(told)s AS json)) AS told"
    " WHERE deliveries.id = ANY(CAST(%(ended)s AS bigint[]))"
    " AND deliveries.id = CAST(told.value->>6 AS bigint)),"
    " started AS (UPDATE deliveries SET state = 'sending', started_at = %(now)s,"
    " attempts = attempts + 1 FROM held"
    " WHERE deliveries.id = ANY(CAST(%(starts)s AS bigint[])) AND deliveries.state = 'pending'"
    " AND EXISTS (SELECT 1 FROM emailers WHERE id = %(emailer_id)s AND state = 'sending')"
    " RETURNING deliveries.id)"
    " UPDATE slices SET pending = pending - (SELECT count(*) FROM started),"
    " sending = sending + %(sending)s + (SELECT count(*) FROM started),"
    " sent = sent + %(sent)s, failed = failed + %(failed)s,"
    " in_doubt = in_doubt + %(in_doubt)s, skipped = skipped + %(skipped)s"
    " FROM held WHERE slices.id = held.id RETURNING (SELECT array_agg(id) FROM started)"
)
