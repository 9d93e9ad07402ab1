"""The writer for PostgreSQL."""

import asyncio
import contextlib
import json
from collections.abc import Iterable, Sequence
from datetime import datetime

import psycopg
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult
from sqlalchemy import Engine

from mcs.models import stored
from mcs.services.deliveries import Standing, Standings, Step
from mcs.services.steps import Row, told
from mcs.services.writers.writer import passing

_TAKE = b"mcs_take"


class PostgresWriter:
    """A statement a step, all sent at once: what lies before a pipeline's end is one commit.

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
        self._loop: asyncio.AbstractEventLoop | None = None
        self._heard = asyncio.Event()
        self._broken: psycopg.Error | None = None
        with passing(psycopg.Error):
            # Libpq forgets which it was when the connection is lost.
            self._socket = self._libpq.socket
            _sound(self._libpq.prepare(_TAKE, TAKE.encode()))
            # Left to itself, PostgreSQL takes the plan for arrays of any length to be dearer than
            # one for the few elements that it sees, and plans each small commit anew, for 0.5 ms.
            _sound(self._libpq.exec_(b"SET plan_cache_mode = force_generic_plan"))
            self._libpq.nonblocking = 1
            self._libpq.enter_pipeline_mode()

    async def advance(self, now: datetime, until: datetime, steps: Sequence[Step]) -> Standings:
        # No longer than the leases: others renew them, so a connection that has fallen silent would
        # hold the slices for as long as TCP takes to give it up.
        seconds = (until - now).total_seconds()
        with passing(psycopg.Error, TimeoutError):
            async with asyncio.timeout(seconds):
                answers = await self._written(now, until, steps)
        standings = zip(steps, answers, strict=True)
        return {step: standing for step, standing in standings if standing is not None}

    def close(self) -> None:
        self._listen_no_more()
        self._connection.close()

    async def _written(
        self, now: datetime, until: datetime, steps: Sequence[Step]
    ) -> list[Standing | None]:
        self._listen()
        for step in steps:
            self._send(now, until, step)
        self._libpq.pipeline_sync()
        await self._flush()
        answers = [await self._answer() for _ in steps]
        _sound(await self._result())
        return answers

    def _send(self, now: datetime, until: datetime, step: Step) -> None:
        at = stored(now)
        rows = [told(outcome) for outcome in step.outcomes]
        rows += [Row("sending", "", at, None, None, "", id) for id in step.starts]
        self._execute(
            _TAKE,
            (
                step.claim.slice_id,
                step.claim.token,
                until.isoformat(),
                step.claim.emailer_id,
                _array([row.delivery_id for row in rows]),
                _array([row.state for row in rows]),
                _array([_quoted(row.reason) for row in rows]),
                _array([_quoted(row.at) for row in rows]),
                _array(["NULL" if row.code is None else row.code for row in rows]),
                _array([_quoted(row.text) for row in rows]),
            ),
        )

    def _execute(self, name: bytes, values: Iterable[object]) -> None:
        self._libpq.send_query_prepared(name, [str(value).encode() for value in values])

    async def _answer(self) -> Standing | None:
        """The next step's; None when its lease is lost."""
        rows = _sound(await self._result())
        await self._result()  # Behind each statement's result comes a None.
        if not rows.ntuples:
            return None
        started, high_id = json.loads(rows.get_value(0, 0) or b"[]"), rows.get_value(0, 1)
        return Standing(set(started), int(high_id or 0))

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._libpq.flush():
            if self._broken is not None:
                raise self._broken
            self._heard.clear()
            # Woken too by what is heard: it may be that the connection has ended.
            loop.add_writer(self._socket, self._heard.set)
            try:
                await self._heard.wait()
            finally:
                loop.remove_writer(self._socket)

    async def _result(self) -> PGresult | None:
        while self._libpq.is_busy():
            if self._broken is not None:
                raise self._broken
            self._heard.clear()
            await self._heard.wait()
        return self._libpq.get_result()

    # It listens from its first commit to its end: to begin and to end took 20 us a message.

    def _listen(self) -> None:
        if self._loop is None and self._broken is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._socket, self._hear)

    def _hear(self) -> None:
        try:
            self._libpq.consume_input()
        except psycopg.Error as error:
            self._listen_no_more()
            self._broken = error
        self._heard.set()

    def _listen_no_more(self) -> None:
        if self._loop is not None:
            # Where libpq has closed it, epoll knows it no more.
            with contextlib.suppress(OSError):
                self._loop.remove_writer(self._socket)
            self._loop.remove_reader(self._socket)
            self._loop = None


def _sound(result: PGresult | None) -> PGresult:
    """The result, unless it is an error."""
    if result is None:
        raise psycopg.OperationalError("the database broke off")
    if result.status not in _SOUND:
        raise psycopg.OperationalError(result.get_error_message() or "the database gave up")
    return result


def _array(elements: Iterable[object]) -> str:
    """As PostgreSQL reads an array."""
    return f"{{{','.join(map(str, elements))}}}"


def _quoted(text: str) -> str:
    """Any text as an array's element."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_SOUND = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK, ExecStatus.PIPELINE_SYNC)

_ANSWERS = ("sent", "failed", "in_doubt", "skipped")

# One statement for both changes of a message's row: to begin updating a table costs PostgreSQL as
# much as several rows of it, most of that for reading the text of its constraints anew.
#
# It changes only what still is what it must have been, and counts what it changed. So it does the
# right thing after waiting for the slice's lock, though its snapshot is older: a row that was
# changed meanwhile is looked at again as it is now. (Not so the emailer: a pause that is committed
# during that wait comes after these starts. A cancel changes the rows.)
#
# And a commit that was given up when no answer came may yet come after the one that was made in its
# place. What that one did is not pending or sending any more; or it is, to be tried again, but was
# put off to a moment after this one's, and only what is due is started. So it finds nothing to do,
# and then it sets no lease back. Whoever does something always sets it: after a clock was set back
# by hours the lease must not stay hours ahead, or nobody would rescue what a dead worker held.
#
# The ids stand in an array beside what is told of them: for a join with nothing but what a function
# returns, PostgreSQL reads all deliveries.
TAKE = (
    "WITH held AS MATERIALIZED (SELECT id, high_id FROM slices WHERE id = $1 AND claim_token = $2"
    " FOR NO KEY UPDATE),"
    " moved AS (UPDATE deliveries SET state = told.state,"
    + "".join(
        f" {column} = CASE told.state WHEN 'sending' THEN {started} ELSE {answered} END,"
        for column, started, answered in (
            ("started_at", "told.at AT TIME ZONE 'UTC'", "deliveries.started_at"),
            ("attempts", "attempts + 1", "attempts"),
            ("reason", "deliveries.reason", "told.reason"),
            ("due_at", "due_at", "told.at AT TIME ZONE 'UTC'"),
            ("reply_code", "reply_code", "told.code"),
            ("reply_text", "reply_text", "told.said"),
        )
    )
    + " sent_at = CASE told.state WHEN 'sent' THEN told.at AT TIME ZONE 'UTC' END"
    " FROM held, unnest(CAST($5 AS bigint[]), CAST($6 AS text[]), CAST($7 AS text[]),"
    " CAST($8 AS timestamp[]), CAST($9 AS integer[]), CAST($10 AS text[]))"
    " AS told(id, state, reason, at, code, said)"
    " WHERE deliveries.id = ANY(CAST($5 AS bigint[])) AND deliveries.id = told.id"
    " AND deliveries.state = CASE told.state WHEN 'sending' THEN 'pending' ELSE 'sending' END"
    " AND deliveries.id <= held.high_id AND (told.state <> 'sending'"
    " OR (attempts = 0 OR due_at <= told.at AT TIME ZONE 'UTC')"
    " AND EXISTS (SELECT FROM emailers WHERE id = $4 AND state = 'sending'))"
    " RETURNING deliveries.id, deliveries.state),"
    " counted AS (SELECT count(*) AS moved,"
    " count(*) FILTER (WHERE state = 'sending') AS started,"
    " json_agg(id) FILTER (WHERE state = 'sending') AS started_ids, "
    + ", ".join(f"count(*) FILTER (WHERE state = '{state}') AS {state}" for state in _ANSWERS)
    + " FROM moved)"
    " UPDATE slices SET lease_until = CASE counted.moved WHEN 0 THEN greatest(lease_until, $3)"
    " ELSE $3 END, pending = pending - counted.started,"
    " sending = sending + 2 * counted.started - counted.moved, "
    + ", ".join(f"{state} = slices.{state} + counted.{state}" for state in _ANSWERS)
    + " FROM held, counted WHERE slices.id = held.id"
    " RETURNING counted.started_ids, slices.high_id"
)
