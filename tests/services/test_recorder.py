"""The recorder's own life: it ends when the lane does."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from sqlalchemy.orm import Session, sessionmaker

from mcs.services.recorder import Recorder


def test_who_closes_right_after_a_wish_has_it_written_and_does_not_wait_for_ever(
    sessions: sessionmaker[Session], now: datetime
) -> None:
    async def close() -> bool:
        with ThreadPoolExecutor(1) as thread:
            lease = timedelta(seconds=45)
            recorder = Recorder(sessions, lambda: now, lease, thread, lambda: None)
            written = recorder.wish()
            async with asyncio.timeout(10):
                await recorder.close()
            return await written

    assert asyncio.run(close())
