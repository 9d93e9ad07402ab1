"""Put on a worker's PYTHONPATH, this kills its horse just before or after a commit of the ledger.

``FAULT_COMMIT=before:7:/folder``: at the seventh commit of a lane, once per file ``/folder/go``.
"""

import itertools
import os
import signal
import threading


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


if fault := os.environ.get("FAULT_COMMIT"):
    _when, _number, _folder = fault.split(":", 2)
    _arm(_when, int(_number), _folder)
