"""The recorder: one commit writes down the answers of many connections and starts their next.

While a commit is under way the other connections' wishes gather, and the next commit takes them,
the first ones if they are a crowd, so the safety of a durable commit per message costs a fraction
of one.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple, TypeVar

from sqlalchemy.orm import Session, sessionmaker

from mcs.services import deliveries, rescues
from mcs.services.deliveries import Standings, Step
from mcs.services.feeds import Feed, Letter
from mcs.services.steps import Outcome
from mcs.services.transactions import PASSING, persistently
from mcs.services.writers import is_plain, open_writer
from mcs.services.writers.writer import Writer

# Longer than a server nearby takes to answer, and than a commit.
GATHER_SECONDS = 0.002
# After waiting in vain, for a server that is further away: so many commits without, and twice as
# many each further time.
GATHERS_SKIPPED = 4
MOST_GATHERS_SKIPPED = 64
# A commit is of so many times as many as usual, at most.
CROWD = 2
# How many commits it takes to call another size usual; and what is taken for it before the first.
COMMITS_REMEMBERED = 64
USUAL_AT_FIRST = 100.0

log = logging.getLogger(__name__)

T = TypeVar("T")

Told = tuple[Feed, Outcome]
# How the slices stand, and when that was written.
_Written = tuple[Standings, datetime]


class _Wish(NamedTuple):
    answered: Told | None
    refused: Told | None
    start: Letter | None
    written: asyncio.Future[bool]


class Recorder:
    """Writes for one lane.

    ``meanwhile`` is called once a plain commit, when the lane has nothing to do but wait: for the
    database; or, where nobody can do anything during a commit (SQLite's writer), for the mail
    server, when what was started is on its way.
    """

    def __init__(
        self,
        sessions: sessionmaker[Session],
        now: Callable[[], datetime],
        lease: timedelta,
        executor: ThreadPoolExecutor,
        meanwhile: Callable[[], None],
    ) -> None:
        self._sessions = sessions
        self._now = now
        self._lease = lease
        self._executor = executor
        self._meanwhile = meanwhile
        self._loop = asyncio.get_running_loop()
        self._wishes: list[_Wish] = []
        self._wanted = asyncio.Event()
        self._all_said = asyncio.Event()
        self._under_way = 0
        self._gathers_to_skip = 0
        self._skip_next = GATHERS_SKIPPED
        self._usual = USUAL_AT_FIRST
        self._closing = False
        self._writer: Writer | None = None
        with sessions() as session:
            self._engine = session.get_bind().engine
        self._task = asyncio.create_task(self._write_down())

    def wish(
        self,
        *,
        answered: Told | None = None,
        refused: Told | None = None,
        start: Letter | None = None,
    ) -> asyncio.Future[bool]:
        """Have this written with one of the next commits.

        The answer comes after the commit: whether ``start`` may go (True when none was asked for).
        """
        written = self._loop.create_future()
        self._wishes.append(_Wish(answered, refused, start, written))
        self._wanted.set()
        if len(self._wishes) >= self._under_way:
            self._all_said.set()
        return written

    async def close(self) -> None:
        """Stop. What was wished for has been written, or its writing failed for good."""
        self._closing = True
        self._wanted.set()
        await self._task
        self._let_go()

    async def _write_down(self) -> None:
        while await self._anything():
            await self._gather()
            wishes = self._take()
            self._under_way -= sum([wish.answered is not None for wish in wishes])
            try:
                started = await self._commit(wishes)
            except Exception as error:
                for wish in wishes:
                    if not wish.written.done():
                        wish.written.set_exception(error)
                log.exception("the ledger could not be written")
                continue
            self._under_way += len(started)
            for _, _, start, written in wishes:
                if not written.done():  # A lane that is ending cancels who waits.
                    written.set_result(start is None or start.due.id in started)
            if self._writer is not None and not self._writer.waits:
                # Behind those who were woken just now, and send.
                self._loop.call_soon(self._meanwhile)

    async def _anything(self) -> bool:
        """Wait for a wish; False when there will be none any more."""
        while not self._wishes and not self._closing:
            self._wanted.clear()
            await self._wanted.wait()
        return bool(self._wishes)

    async def _gather(self) -> None:
        """Let the connections whose replies are about to arrive say their wish first.

        A server that answers at once would otherwise have the connections fall into two halves, of
        which one waits for the commit of the other: twice the commits, for the same messages (at 8
        connections 3.9 a group instead of 7.7, and 1.4 times the processor time a message).
        """
        await asyncio.sleep(0)
        if self._gathers_to_skip > 0:
            self._gathers_to_skip -= 1
            return
        if len(self._wishes) < min(self._under_way, self._most()):
            self._all_said.clear()
            try:
                async with asyncio.timeout(GATHER_SECONDS):
                    await self._all_said.wait()
                self._skip_next = GATHERS_SKIPPED
            except TimeoutError:
                self._gathers_to_skip = self._skip_next
                self._skip_next = min(2 * self._skip_next, MOST_GATHERS_SKIPPED)

    def _take(self) -> list[_Wish]:
        """Who waits, the first ones if they are a crowd.

        Connections whose letters left together have their answers together, and again, each time
        with those that they meet: of 50 connections at 50 ms of latency a letter was in a commit of
        6 on average, though commits were of 3. In a crowd one waits for the other; parted, they
        come back one after the other. Nearby all come each time, which is no crowd, and is best.

        Refused letters, of which a slice may be full, come from no connection, and go at once.
        """
        if any(wish.refused is not None for wish in self._wishes):
            taken, self._wishes = self._wishes, []
            return taken
        number = self._most()
        taken, self._wishes = self._wishes[:number], self._wishes[number:]
        self._usual += (len(taken) - self._usual) / COMMITS_REMEMBERED
        return taken

    def _most(self) -> int:
        return max(CROWD, int(CROWD * self._usual))

    async def _commit(self, wishes: list[_Wish]) -> set[int]:
        by_feed = _steps(wishes)
        steps = sorted(by_feed.values(), key=lambda step: step.claim.slice_id)
        standings, now = await self._written(steps)
        started: set[int] = set()
        for feed, step in by_feed.items():
            standing = standings.get(step)
            feed.stand(standing, now + self._lease)
            if standing is not None:
                started |= standing.started
        return started

    async def _written(self, steps: list[Step]) -> _Written:
        """Tries again while the database is away: the token tells what is ours."""
        failed = False
        if all(map(is_plain, steps)):
            try:
                return await self._write(steps)
            except PASSING:
                self._let_go()
                failed = True
        return await self._on_thread(
            partial(persistently, lambda again: self._write_anyhow(steps, again or failed))
        )

    async def _write(self, steps: list[Step]) -> _Written:
        if self._writer is None:
            self._writer = await self._on_thread(partial(open_writer, self._engine))
        now = self._now()
        if self._writer.waits:
            self._loop.call_soon(self._meanwhile)
        standings = await self._writer.advance(now, now + self._lease, steps)
        if lost := [step for step in steps if step not in standings]:
            await self._on_thread(partial(self._settle_late, now, lost))
        return standings, now

    def _write_anyhow(self, steps: list[Step], again: bool) -> _Written:
        now = self._now()
        with self._sessions() as session:
            standings = deliveries.advance(session, now, self._lease, steps, again=again)
        self._settle_late(now, [step for step in steps if step not in standings])
        return standings, now

    def _settle_late(self, now: datetime, lost: list[Step]) -> None:
        with self._sessions() as session:
            for step in lost:
                rescues.settle_late(session, now, step.claim, step.outcomes)

    async def _on_thread(self, verb: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._executor, verb)

    def _let_go(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _steps(wishes: list[_Wish]) -> dict[Feed, Step]:
    steps = _Steps()
    for answered, refused, start, _ in wishes:
        if answered is not None:
            feed, outcome = answered
            steps[feed].outcomes.append(outcome)
        if refused is not None:
            feed, outcome = refused
            steps[feed].refusals.append(outcome)
        if start is not None:
            steps[start.feed].starts.append(start.due.id)
    return steps


class _Steps(dict[Feed, Step]):
    def __missing__(self, feed: Feed) -> Step:
        step = self[feed] = Step(feed.claim)
        return step
