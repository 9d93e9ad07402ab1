"""The writer for SQLite."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import Engine

from mcs.core.states import DELIVERY_STATES
from mcs.models import stored
from mcs.services.deliveries import Standing, Standings, Step
from mcs.services.steps import Outcome, told
from mcs.services.writers.writer import passing

PATIENCE_MS = 1_000


class SqliteWriter:
    """One process at a time writes, so BEGIN IMMEDIATE is all the locking there is.

    A commit to a file takes less than handing it to a thread does, and waking up again.
    """

    waits = False

    def __init__(self, engine: Engine) -> None:
        with passing(sqlite3.OperationalError):
            pooled = engine.raw_connection()
        connection = pooled.driver_connection
        assert isinstance(connection, sqlite3.Connection)
        # Out of the pool, since it is less patient: others than the ledger wait for its caller.
        pooled.detach()
        connection.execute(f"PRAGMA busy_timeout = {PATIENCE_MS}")
        self._connection = connection

    async def advance(self, now: datetime, until: datetime, steps: Sequence[Step]) -> Standings:
        standings: Standings = {}
        with self._writing():
            for step in steps:
                high_id = self._hold(until, step)
                if high_id is not None:
                    self._record(step.outcomes)
                    standings[step] = Standing(self._start(now, step, high_id), high_id)
        return standings

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with passing(sqlite3.OperationalError):
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.rollback()

    def _hold(self, until: datetime, step: Step) -> int | None:
        """Which delivery is the slice's last; None when the lease is lost."""
        cursor = self._connection.execute(_HOLD, _holding(step) | {"until": stored(until)})
        held = cursor.fetchall()
        return held[0][0] if held else None

    def _record(self, outcomes: Sequence[Outcome]) -> None:
        if outcomes:
            self._connection.executemany(_RECORD, [told(outcome) for outcome in outcomes])

    def _start(self, now: datetime, step: Step, high_id: int) -> set[int]:
        if not step.starts:
            return set()
        owned = [id for id in step.starts if id <= high_id]
        wish = (stored(now), json.dumps(owned), step.claim.emailer_id)
        started = {row[0] for row in self._connection.execute(_START, wish)}
        refused = len(step.starts) - len(started)
        if refused:
            self._connection.execute(_REFUSED, (refused, refused, step.claim.slice_id))
        return started


def _holding(step: Step) -> dict[str, object]:
    """The counts too as if all starts could be: those that cannot are counted back."""
    moved = Counter(outcome.state for outcome in step.outcomes)
    moved["pending"] -= len(step.starts)
    moved["sending"] += len(step.starts) - len(step.outcomes)
    counts = {state: moved[state] for state in DELIVERY_STATES}
    return {"slice_id": step.claim.slice_id, "token": step.claim.token, **counts}


_HOLD = (
    "UPDATE slices SET lease_until = :until, "
    + ", ".join(f"{state} = {state} + :{state}" for state in DELIVERY_STATES)
    + " WHERE id = :slice_id AND claim_token = :token RETURNING high_id"
)
_RECORD = (
    "UPDATE deliveries SET state = ?, reason = ?, due_at = ?, sent_at = ?, reply_code = ?,"
    " reply_text = ? WHERE id = ?"
)
_START = (
    "UPDATE deliveries SET state = 'sending', started_at = ?, attempts = attempts + 1"
    " WHERE id IN (SELECT value FROM json_each(?)) AND state = 'pending'"
    " AND EXISTS (SELECT 1 FROM emailers WHERE id = ? AND state = 'sending') RETURNING id"
)
_REFUSED = "UPDATE slices SET pending = pending + ?, sending = sending - ? WHERE id = ?"
