"""Put on the PYTHONPATH of a process, this makes one of two faults in it.

``FAULT_COMMIT=before:7:/folder`` kills a worker's horse just before or after the seventh commit of
a lane, once per file ``/folder/go``. ``FAULT_CLOCK=/file`` has its host's clock off by as many
seconds as the file says at that moment.
"""

import itertools
import os
import signal
import threading
from datetime import datetime, timedelta
from pathlib import Path


def _arm(when: str, number: int, folder: str) -> None:
    from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
    from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

    for dialect in (PGDialect_psycopg, SQLiteDialect_pysqlite):
        _wrap(dialect, when, number, folder)


def _wrap(dialect: type, when: str, number: int, folder: str) -> None:
    commit = dialect.do_commit  # type: ignore[attr-defined]
    counted = itertools.count(1)

    def do_commit(self: object, connection: object) -> None:
        mine = threading.current_thread().name.startswith("ledger") and next(counted) == number
        if mine and when == "before":
            _die(folder)
        commit(self, connection)
        if mine and when == "after":
            _die(folder)

    dialect.do_commit = do_commit  # type: ignore[attr-defined]


def _die(folder: str) -> None:
    try:
        os.rename(f"{folder}/go", f"{folder}/gone-{os.getpid()}")
    except FileNotFoundError:
        return
    with open(f"{folder}/kills", "a") as kills:
        kills.write(f"0 {os.getpid()} SIGKILL\n")
    os.kill(os.getpid(), signal.SIGKILL)


def _put_clock_wrong(file: Path) -> None:
    from mcs.gateways import clock

    right = clock.of_host

    def wrong() -> datetime:
        return right() + timedelta(seconds=float(file.read_text()))

    clock.of_host = wrong


if fault := os.environ.get("FAULT_COMMIT"):
    _when, _number, _folder = fault.split(":", 2)
    _arm(_when, int(_number), _folder)
if fault := os.environ.get("FAULT_CLOCK"):
    _put_clock_wrong(Path(fault))
