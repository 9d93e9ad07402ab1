"""What a process without Flask stands on: its settings, its sessions, its job queue."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session, sessionmaker

from mcs import config
from mcs.core.calls import Call
from mcs.gateways import callbacks, clock
from mcs.gateways.jobqueue import JobQueue
from mcs.models import configure_engine
from mcs.services import health


@dataclass(frozen=True)
class Runtime:
    """What a process has, and those that it forks: but a connection is never shared."""

    settings: config.Settings
    engine: Engine
    sessions: sessionmaker[Session]
    queue: JobQueue
    callbacks: Mapping[str, Callable[[Call], Any]]


_made: Runtime | None = None
_process = 0


def runtime() -> Runtime:
    """This process's runtime, made when it is first asked for. Its clock is right from then on.

    What SQLAlchemy knows by then, of the database and of its statements, a forked process keeps.
    """
    global _made, _process
    if _made is None:
        _made = _make(config.load())
    if _process != os.getpid():
        _made.engine.dispose(close=False)  # Whoever forked this process goes on with its own.
        keep_time(_made)
        _process = os.getpid()
    return _made


def keep_time(here: Runtime) -> None:
    """Have this process agree with the database about what time it is."""
    with here.sessions() as session:
        theirs = health.database_time(session)
    if theirs is not None:
        clock.go_by(theirs)


def _make(settings: config.Settings) -> Runtime:
    engine = configure_engine(create_engine(settings.database_url, pool_pre_ping=True))
    queue = JobQueue(settings.redis_url, settings.redis_tls_verify)
    table = callbacks.table(settings.webhook_allow)
    return Runtime(settings, engine, sessionmaker(engine), queue, table)
