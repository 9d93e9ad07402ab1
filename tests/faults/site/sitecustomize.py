"""Put on the PYTHONPATH of a process, this makes one of two faults in it.

``FAULT_COMMIT=/folder`` kills a worker's horse just before or after a commit of its lane: at the
seventh when the file ``/folder/go`` says ``before:7`` or ``after:7``, once per file.
``FAULT_CLOCK=/file`` has the host's clock off by as many seconds as the file says at that moment.
"""

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

Commit = Callable[..., Any]

_commits: Counter[int] = Counter()  # By process: a horse is a fork of its worker.


def _arm(folder: Path) -> None:
    from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
    from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

    from mcs.services.writers import PostgresWriter, SqliteWriter

    for dialect in (PGDialect_psycopg, SQLiteDialect_pysqlite):
        dialect.do_commit = _deadly(dialect.do_commit, folder, "ledger")
    # Each call is one transaction: a death before it and one before its COMMIT leave the same.
    for writer in (PostgresWriter, SqliteWriter):
        writer.advance = _deadly_awaited(writer.advance, folder)


def _deadly(commit: Commit, folder: Path, thread: str = "") -> Commit:
    def committed(*arguments: object) -> object:
        if not threading.current_thread().name.startswith(thread):
            return commit(*arguments)
        number = _next_commit()
        _die_at(f"before:{number}", folder)
        answer = commit(*arguments)
        _die_at(f"after:{number}", folder)
        return answer

    return committed


def _deadly_awaited(commit: Commit, folder: Path) -> Commit:
    """As ``_deadly``, of a commit that is awaited: it is over when its answer is there."""

    async def committed(*arguments: object) -> object:
        number = _next_commit()
        _die_at(f"before:{number}", folder)
        answer = await commit(*arguments)
        _die_at(f"after:{number}", folder)
        return answer

    return committed


def _next_commit() -> int:
    _commits[os.getpid()] += 1
    return _commits[os.getpid()]


def _die_at(point: str, folder: Path) -> None:
    go = folder / "go"
    if not go.exists() or go.read_text() != point:
        return
    go.unlink()
    with open(folder / "kills", "a") as kills:
        kills.write(f"0 {os.getpid()} SIGKILL\n")
    os.kill(os.getpid(), signal.SIGKILL)


def _put_clock_wrong(file: Path) -> None:
    from mcs.gateways import clock

    right = clock.of_host

    def wrong() -> datetime:
        return right() + timedelta(seconds=float(file.read_text()))

    clock.of_host = wrong


if fault := os.environ.get("FAULT_COMMIT"):
    _arm(Path(fault))
if fault := os.environ.get("FAULT_CLOCK"):
    _put_clock_wrong(Path(fault))
