"""The writer for PostgreSQL."""

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import psycopg
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult
from sqlalchemy import Engine

from mcs.services.deliveries import Step
from mcs.services.writers.writer import Written, passing, told

_HOLD, _TAKE = b"mcs_hold", b"mcs_take"


class PostgresWriter:
    """Two statements a step, all sent at once: what lies before a pipeline's end is one commit.

    It speaks libpq without a thread, so that the lane goes on while the server commits.
    """

    waits = True

    def __init__(self, engine: Engine) -> None:
        with passing(psycopg.Error):
            pooled = engine.raw_connection()
        connection = pooled.driver_connection
        assert isinstance(connection, psycopg.Connection)
        # Out of the pool, since nobody else could use it after what follows.
        pooled.detach()
        self._connection = connection
        self._libpq = connection.pgconn
        with passing(psycopg.Error):
            _sound(self._libpq.prepare(_HOLD, HOLD.encode()))
            _sound(self._libpq.prepare(_TAKE, TAKE.encode()))
            self._libpq.nonblocking = 1
            self._libpq.enter_pipeline_mode()

    async def advance(self, now: datetime, until: datetime, steps: Sequence[Step]) -> Written:
        # No longer than the leases: others renew them, so a connection that has fallen silent would
        # hold the slices for as long as TCP takes to give it up.
        seconds = (until - now).total_seconds()
        with passing(psycopg.Error, TimeoutError):
            async with asyncio.timeout(seconds):
                answers = await self._written(now, until, steps)
        started: set[int] = set()
        lost = []
        for step, answer in zip(steps, answers, strict=True):
            if answer is None:
                lost.append(step)
            else:
                started.update(answer)
        return started, lost

    def close(self) -> None:
        self._connection.close()

    async def _written(
        self, now: datetime, until: datetime, steps: Sequence[Step]
    ) -> list[list[int] | None]:
        for step in steps:
            self._send(now, until, step)
        self._libpq.pipeline_sync()
        await self._flush()
        answers = [await self._answer() for _ in steps]
        _sound(await self._result())
        return answers

    def _send(self, now: datetime, until: datetime, step: Step) -> None:
        mine = (step.claim.slice_id, step.claim.token)
        self._execute(_HOLD, mine)
        self._execute(
            _TAKE,
            (
                *mine,
                until.isoformat(),
                now.isoformat(),
                step.claim.parent.emailer_id,
                _array(step.starts),
                _array(outcome.delivery_id for outcome in step.outcomes),
                json.dumps([told(outcome) for outcome in step.outcomes]),
            ),
        )

    def _execute(self, name: bytes, values: Iterable[object]) -> None:
        self._libpq.send_query_prepared(name, [str(value).encode() for value in values])

    async def _answer(self) -> list[int] | None:
        """The deliveries of a step that may go; None when its lease is lost."""
        await self._rows()
        rows = await self._rows()
        if not rows.ntuples:
            return None
        started: list[int] = json.loads(rows.get_value(0, 0) or b"[]")
        return started

    async def _rows(self) -> PGresult:
        """What a statement returned. Behind it comes a None."""
        rows = _sound(await self._result())
        await self._result()
        return rows

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._libpq.flush():
            await _ready(loop.add_writer, loop.remove_writer, self._libpq.socket)

    async def _result(self) -> PGresult | None:
        loop = asyncio.get_running_loop()
        while self._libpq.is_busy():
            await _ready(loop.add_reader, loop.remove_reader, self._libpq.socket)
            self._libpq.consume_input()
        return self._libpq.get_result()


async def _ready(
    watch: Callable[[int, Callable[[], None]], None], ignore: Callable[[int], bool], socket: int
) -> None:
    """Wait until the socket can be read, or written to."""
    ready = asyncio.Event()
    watch(socket, ready.set)
    try:
        await ready.wait()
    finally:
        ignore(socket)


def _sound(result: PGresult | None) -> PGresult:
    """The result, unless it is an error."""
    if result is None:
        raise psycopg.OperationalError("the database broke off")
    if result.status not in _SOUND:
        raise psycopg.OperationalError(result.get_error_message() or "the database gave up")
    return result


def _array(ids: Iterable[int]) -> str:
    """As PostgreSQL reads an array."""
    return f"{{{','.join(map(str, ids))}}}"


_SOUND = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK, ExecStatus.PIPELINE_SYNC)

_ANSWERS = ("sent", "failed", "in_doubt", "skipped")

# A statement of its own: the next one's snapshot is taken when the slice is locked, so that it sees
# what those who held the lock before have done to the deliveries.
HOLD = "SELECT FROM slices WHERE id = $1 AND claim_token = $2 FOR NO KEY UPDATE"
# It counts what it changes, and changes only what is still being sent: a commit that was given up
# when no answer came may yet come after the one that was made in its place.
# The array of what is recorded, beside the answers: for a join with nothing but what a function
# returns, PostgreSQL reads all deliveries.
TAKE = (
    "WITH held AS (SELECT id FROM slices WHERE id = $1 AND claim_token = $2),"
    " recorded AS (UPDATE deliveries SET state = told.value->>0, reason = told.value->>1,"
    " due_at = CAST(told.value->>2 AS timestamp) AT TIME ZONE 'UTC',"
    " sent_at = CAST(told.value->>3 AS timestamp) AT TIME ZONE 'UTC',"
    " reply_code = CAST(told.value->>4 AS integer), reply_text = told.value->>5"
    " FROM held, json_array_elements(CAST($8 AS json)) AS told"
    " WHERE deliveries.id = ANY(CAST($7 AS bigint[]))"
    " AND deliveries.id = CAST(told.value->>6 AS bigint) AND deliveries.state = 'sending'"
    " RETURNING deliveries.state),"
    " started AS (UPDATE deliveries SET state = 'sending', started_at = $4,"
    " attempts = attempts + 1 FROM held"
    " WHERE deliveries.id = ANY(CAST($6 AS bigint[])) AND deliveries.state = 'pending'"
    " AND EXISTS (SELECT 1 FROM emailers WHERE id = $5 AND state = 'sending')"
    " RETURNING deliveries.id)"
    " UPDATE slices SET lease_until = $3,"
    " pending = pending - (SELECT count(*) FROM started),"
    " sending = sending + (SELECT count(*) FROM started) - (SELECT count(*) FROM recorded), "
    + ", ".join(
        f"{state} = {state} + (SELECT count(*) FROM recorded WHERE recorded.state = '{state}')"
        for state in _ANSWERS
    )
    + " WHERE id = $1 AND EXISTS (SELECT FROM held)"
    " RETURNING (SELECT json_agg(id) FROM started)"
)
