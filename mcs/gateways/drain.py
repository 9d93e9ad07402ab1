"""Draining: a process told to end finishes what is in its hands and begins nothing else.

A long job asks ``requested()`` before each message, row or slice. Nothing is ever raised in the
middle of one, since between a server's 250 and our commit that would leave a delivery in doubt.
"""

import os
import signal
import threading
import time
from types import FrameType

# A host that says SIGTERM says SIGKILL 30 s later.
PATIENCE_SECONDS = 25

_requested = False


def requested() -> bool:
    """Whether this process is to end soon."""
    return _requested


def request() -> None:
    """Ask this process to end soon."""
    global _requested
    _requested = True


def on_signals(*signals: signal.Signals) -> None:
    """Have these signals ask for the end, and do nothing else."""

    def ask(_number: int, _frame: FrameType | None) -> None:
        request()

    for number in signals:
        signal.signal(number, ask)


def when_orphaned(parent: int) -> None:
    """Ask for the end once the parent process is gone, and end when it takes too long."""

    def watch() -> None:
        asked_at: float | None = None
        while asked_at is None or time.monotonic() - asked_at < PATIENCE_SECONDS:
            time.sleep(1)
            if os.getppid() != parent:
                request()
            if asked_at is None and requested():
                asked_at = time.monotonic()
        os._exit(1)

    threading.Thread(target=watch, name="orphan-watch", daemon=True).start()
