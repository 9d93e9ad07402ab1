"""The ground that every part of the library stands on."""

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from sqlalchemy import inspect, select, text
from sqlalchemy.orm import Session, sessionmaker

from mcs.core.calls import Call
from mcs.gateways import clock as real_clock
from mcs.gateways.callbacks import built_in, installed
from mcs.library import arguments
from mcs.library.arguments import BadArgument
from mcs.library.database import make_engine, read_options
from mcs.library.infos import Worker
from mcs.models import Action, ActionDefinition, Base, Campaign, Contact, Schedule
from mcs.services.runners import Surroundings

TABLES = [model.__table__ for model in (Campaign, Contact, ActionDefinition, Schedule, Action)]


class Ground:
    """A database with sessions, a clock, the callbacks and the workers; how it begins and ends."""

    def __init__(
        self,
        callbacks: Mapping[str, Callable[[Call], Any]] | None = None,
        db: str | Mapping[str, Any] | None = None,
        *,
        timezone: str = "UTC",
        clock: Callable[[], datetime] = real_clock.now,
        lease_seconds: float = 60,
        webhook_allow: Sequence[str] = (),
    ) -> None:
        own = arguments.callbacks(callbacks or {})
        self._callbacks = installed(own) | built_in(webhook_allow) | own
        self._timezone = arguments.zone(timezone)
        self._clock = clock
        options = read_options(db)
        self._force = bool(options.get("force", False))
        self._schema = options.get("schema")
        self._engine = make_engine(options)
        self._sessions = sessionmaker(self._engine)
        self._given = Surroundings(
            self._sessions,
            self._callbacks,
            clock,
            arguments.positive("lease_seconds", lease_seconds),
        )
        self._workers: dict[int, Worker] = {}
        self._last_worker = 0
        self._lock = threading.Lock()
        self._ready = False

    def init(self) -> Self:
        """Make the tables that are missing; with ``force``, drop the library's own first.

        ``force`` raises RuntimeError where there is a table ``users``: that is a whole MCS, with
        people's campaigns and ledgers.
        """
        with self._lock:
            if self._ready:
                return self
            if self._schema:
                with self._engine.begin() as connection:
                    connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{self._schema}"'))
            if self._force:
                self._refuse_to_drop_mcs()
                Base.metadata.drop_all(self._engine, tables=TABLES)  # type: ignore[arg-type]
            Base.metadata.create_all(self._engine, tables=TABLES)  # type: ignore[arg-type]
            self._ready = True
        return self

    def close(self) -> None:
        """Stop the workers, waiting for running callbacks, and let the database go."""
        self.remove_workers()
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self.init()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def remove_workers(self, ids: int | Sequence[int] | None = None) -> None:
        """Stop these workers, or all, and forget them."""
        wanted = list(self._workers) if ids is None else [ids] if isinstance(ids, int) else ids
        for id in wanted:
            worker = self._workers.pop(id, None)
            if worker is not None:
                worker._runner.stop()

    def _session(self) -> Session:
        if not self._ready:
            raise RuntimeError("call init() first, or use the scheduler in a with statement")
        return self._sessions()

    def _now(self) -> datetime:
        return self._clock()

    def _wake(self) -> None:
        for worker in list(self._workers.values()):
            worker._runner.wake()

    def _find(self, session: Session, campaign_id: str) -> int:
        found = session.scalar(select(Campaign.id).where(Campaign.key == campaign_id))
        if found is None:
            raise arguments.no_campaign(campaign_id)
        return found

    def _numbers(self, campaign_ids: Sequence[str] | None) -> list[int] | None:
        if campaign_ids is None:
            return None
        if isinstance(campaign_ids, str):
            raise BadArgument("campaign_ids", "give a list of ids")
        with self._session() as session:
            return [self._find(session, one) for one in campaign_ids]

    def _refuse_to_drop_mcs(self) -> None:
        if inspect(self._engine).has_table("users", schema=self._schema):
            raise RuntimeError(
                "force: this database has a table users, so it is a whole MCS: nothing is dropped"
            )
