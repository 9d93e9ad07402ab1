"""The recorder's own life: it outlives a database that refuses, and ends when the lane does."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import create_engine, event
from sqlalchemy.orm import Session, sessionmaker

from mcs.models import configure_engine
from mcs.services.feeds import Feed, Issue
from mcs.services.recorder import Recorder
from mcs.services.slice_claims import Claim, Parent
from mcs.services.steps import Outcome

LEASE = timedelta(seconds=45)


@contextlib.asynccontextmanager
async def recording(
    sessions: sessionmaker[Session], now: datetime, meanwhile: Callable[[], None] = lambda: None
) -> AsyncIterator[Recorder]:
    with ThreadPoolExecutor(1) as thread:
        recorder = Recorder(sessions, lambda: now, LEASE, thread, meanwhile)
        yield recorder
        async with asyncio.timeout(10):
            await recorder.close()


async def wish_and_close(sessions: sessionmaker[Session], now: datetime) -> bool:
    async with recording(sessions, now) as recorder:
        written = recorder.wish()
    return await written


async def commits_of(sessions: sessionmaker[Session], now: datetime, crowds: list[int]) -> int:
    """How many commits the last of these took, of which each comes when the one before is done."""
    commits: list[None] = []
    async with recording(sessions, now, lambda: commits.append(None)) as recorder:
        for number in crowds:
            commits.clear()
            assert all(await asyncio.gather(*[recorder.wish() for _ in range(number)]))
    return len(commits)


async def close_on(sessions: sessionmaker[Session], now: datetime, crowd: int) -> list[bool]:
    async with recording(sessions, now) as recorder:
        for _ in range(400):
            await recorder.wish()
        wishes = [recorder.wish() for _ in range(crowd)]
    return [wish.done() and wish.result() for wish in wishes]


async def transactions_of(sessions: sessionmaker[Session], now: datetime, refusals: int) -> int:
    """How many transactions it takes to refuse so many, after single ones."""
    begun: list[object] = []
    # Somebody else's slice by now: what is refused of it needs no row.
    claim = Claim(slice_id=0, parent=Parent(emailer_id=0), low_id=0, high_id=0, token="lost")
    feed = Feed(claim, cast(Issue, None), deque(), now)
    async with recording(sessions, now) as recorder:
        for _ in range(400):
            await recorder.wish()
        event.listen(sessions.kw["bind"], "begin", begun.append)
        refused = [(feed, Outcome(number, "failed", now)) for number in range(refusals)]
        await asyncio.gather(*[recorder.wish(refused=each) for each in refused])
    return len(begun)


def test_a_slice_of_refused_letters_holds_nobody_up(
    sessions: sessionmaker[Session], now: datetime
) -> None:
    assert 1 <= asyncio.run(transactions_of(sessions, now, 200)) <= 3


def test_a_crowd_is_written_to_the_last_before_it_closes(
    sessions: sessionmaker[Session], now: datetime
) -> None:
    assert asyncio.run(close_on(sessions, now, 30)) == [True] * 30


def test_who_always_comes_together_shares_a_commit(
    sessions: sessionmaker[Session], now: datetime
) -> None:
    assert asyncio.run(commits_of(sessions, now, [30] * 300)) == 1


def test_a_crowd_among_single_ones_is_parted(
    sessions: sessionmaker[Session], now: datetime
) -> None:
    assert asyncio.run(commits_of(sessions, now, [1] * 400 + [30])) >= 10


def test_who_closes_right_after_a_wish_has_it_written_and_does_not_wait_for_ever(
    sessions: sessionmaker[Session], now: datetime
) -> None:
    assert asyncio.run(wish_and_close(sessions, now))


def test_a_wish_is_written_though_a_connection_is_refused(database_url: str, now: datetime) -> None:
    engine, refused = configure_engine(create_engine(database_url)), []

    def refuse_the_first(*_given: object) -> None:
        if not refused:
            refused.append("too many clients already")
            raise engine.dialect.loaded_dbapi.OperationalError(*refused)

    event.listen(engine, "do_connect", refuse_the_first)
    assert asyncio.run(wish_and_close(sessionmaker(engine), now))
    engine.dispose()
    assert refused
