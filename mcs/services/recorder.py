"""The recorder: one commit writes down the answers of many connections and starts their next.

While a commit is under way the other connections' wishes gather, and the next commit takes them
all, so the safety of a durable commit per message costs a fraction of one.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from mcs.services import deliveries
from mcs.services.deliveries import Outcome, Step
from mcs.services.feeds import Feed, Letter

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.5

Told = tuple[Feed, Outcome]


@dataclass(eq=False)
class _Wish:
    outcomes: Sequence[Told]
    refusals: Sequence[Told]
    start: Letter | None
    answer: asyncio.Future[bool]


class Recorder:
    """Writes for one lane, on a thread and a session of its own."""

    def __init__(
        self,
        sessions: sessionmaker[Session],
        now: Callable[[], datetime],
        lease: timedelta,
        executor: ThreadPoolExecutor,
    ) -> None:
        self._sessions = sessions
        self._now = now
        self._lease = lease
        self._executor = executor
        self._wishes: list[_Wish] = []
        self._wanted = asyncio.Event()
        self._task = asyncio.create_task(self._write_down())

    def wish(
        self,
        *,
        outcomes: Sequence[Told] = (),
        refusals: Sequence[Told] = (),
        start: Letter | None = None,
    ) -> asyncio.Future[bool]:
        """Have this written with the next commit.

        The answer comes after the commit: whether ``start`` may go (True when none was asked for).
        """
        answer = asyncio.get_running_loop().create_future()
        self._wishes.append(_Wish(outcomes, refusals, start, answer))
        self._wanted.set()
        return answer

    async def close(self) -> None:
        """Stop. What was wished for has been written, or its writing failed for good."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _write_down(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wanted.wait()
            # Let every connection whose reply has already arrived say its wish first.
            await asyncio.sleep(0)
            self._wanted.clear()
            wishes, self._wishes = self._wishes, []
            try:
                started = await loop.run_in_executor(self._executor, self._commit, wishes)
            except Exception as error:
                for wish in wishes:
                    wish.answer.set_exception(error)
                log.exception("the ledger could not be written")
                continue
            for wish in wishes:
                wish.answer.set_result(wish.start is None or wish.start.due.id in started)

    def _commit(self, wishes: list[_Wish]) -> set[int]:
        """On the thread. Tries again while the database is away, as long as the lease lasts."""
        steps = _steps(wishes)
        until = self._now() + self._lease
        confirmed: set[int] = set()
        while True:
            try:
                with self._sessions() as session:
                    now = self._now()
                    started, lost = deliveries.advance(session, now, self._lease, steps.values())
                break
            except DBAPIError as error:
                if self._now() > until:
                    raise
                log.warning("the database does not take the ledger's rows: %s", error.orig)
                confirmed |= self._look_again(steps.values())
        for feed in steps:
            feed.lease_until = now + self._lease
        self._give_up(lost, {step.claim.slice_id: feed for feed, step in steps.items()})
        return started | confirmed

    def _look_again(self, steps: Iterable[Step]) -> set[int]:
        """After an error nobody knows whether the COMMIT happened: keep only what is not written.

        Returns the starts that turn out to be committed.
        """
        time.sleep(RETRY_SECONDS)
        confirmed: set[int] = set()
        try:
            with self._sessions() as session:
                for step in steps:
                    ids = [o.delivery_id for o in step.outcomes] + step.starts
                    sending = deliveries.still_sending(session, ids)
                    begun = {id for id in step.starts if id in sending}
                    confirmed |= begun
                    step.starts = [id for id in step.starts if id not in begun]
                    step.outcomes = [o for o in step.outcomes if o.delivery_id in sending]
        except DBAPIError:
            return set()
        return confirmed

    def _give_up(self, lost: list[Step], feeds: dict[int, Feed]) -> None:
        for step in lost:
            feeds[step.claim.slice_id].lost = True
            log.warning("slice %d was taken over: this worker stops it", step.claim.slice_id)
            with self._sessions() as session:
                deliveries.settle_late(session, step.claim, step.outcomes)


def _steps(wishes: list[_Wish]) -> dict[Feed, Step]:
    steps: dict[Feed, Step] = {}

    def step(feed: Feed) -> Step:
        return steps.setdefault(feed, Step(feed.claim))

    for wish in wishes:
        for feed, outcome in wish.outcomes:
            step(feed).outcomes.append(outcome)
        for feed, outcome in wish.refusals:
            step(feed).refusals.append(outcome)
        if wish.start is not None:
            step(wish.start.feed).starts.append(wish.start.due.id)
    return steps
