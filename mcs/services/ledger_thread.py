"""The ledger's thread: where a lane waits for SQL, while its connections go on."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy.orm import Session, sessionmaker

from mcs.services.transactions import persistently

T = TypeVar("T")


class LedgerThread:
    """A single one: what it is asked to do, it does in that order. The recorder writes on its
    ``executor``, too."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="ledger")

    async def do(self, verb: Callable[[Session], T]) -> T:
        """Call ``verb`` with a session of its own, again while the database is away."""

        def run(_again: bool) -> T:
            with self._sessions() as session:
                return verb(session)

        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.executor, persistently, run)

    def close(self) -> None:
        """End, after what it was asked to do."""
        self.executor.shutdown()
