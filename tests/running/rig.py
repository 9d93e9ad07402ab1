"""Jobs for the stories about workers, and a worker or a clock that knows them.

``python -m tests.running.rig worker URL`` and ``... clock URL FILE``.
"""

import os
import signal
import sys
import time
from pathlib import Path
from zoneinfo import ZoneInfo

from mcs import clock
from mcs.gateways import drain, journal, worker
from mcs.gateways.bell import Bell
from mcs.gateways.jobqueue import ACTIONS, ALARMS, JOBS, SLICES, JobKind, JobQueue

NOTE, NAP, DIE, URGENT, ACTION = (
    f"tests.running.rig.{name}" for name in ("note", "nap", "die", "urgent", "action")
)


def register() -> None:
    """Make the jobs of these stories known; as JOBS is, for the ones of MCS."""
    JOBS.update({name: JobKind(SLICES, 60) for name in (NOTE, NAP, DIE)})
    JOBS[URGENT] = JobKind(ALARMS, 60)
    JOBS[ACTION] = JobKind(ACTIONS, 60)


def note(file: str, text: str) -> None:
    with open(file, "a") as lines:
        lines.write(f"{text}\n")


urgent = action = note


def nap(file: str) -> None:
    """A long job that looks at the drain flag, as sending does."""
    note(file, f"began {os.getpid()}")
    while not drain.requested():
        time.sleep(0.05)
    note(file, "drained")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def moment(file: str) -> None:
    note(file, str(time.time()))


def main(role: str, url: str, *rest: str) -> None:
    journal.begin()
    register()
    JOBS["tests.running.rig.moment"] = JobKind(SLICES, 60)
    if role == "worker":
        worker.work(JobQueue(url), url, tls_verify=True)
        return
    drain.on_signals(signal.SIGTERM, signal.SIGINT)
    ticks = Path(rest[0])
    clock.run(Bell(JobQueue(url), ZoneInfo("Europe/Berlin")), lambda: note(str(ticks), "tick"))


if __name__ == "__main__":
    main(*sys.argv[1:])
