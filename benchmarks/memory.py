"""Memory from a thousand recipients to a million, and how long a snapshot takes.

``python -m benchmarks.memory --help``. For each number of recipients, on each database: the time of
``emailers.send`` (one delivery per contact of the batch, in one commit), the peak memory of a
worker that sends for a while, and that of a web process that shows the emailer's page. Peaks are
the kernel's (VmHWM): what a host that counts would see. Neither process may have more than 256 MB.
"""

import argparse
import dataclasses
import multiprocessing
import platform
import random
import resource
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path

from sqlalchemy import create_engine, select
from sqlalchemy.orm import sessionmaker

from benchmarks.parts import Installation, Stage
from mcs import config
from mcs.app import create_app
from mcs.gateways import clock, smtp
from mcs.gateways.jobqueue import JobQueue
from mcs.models import Slice, configure_engine
from mcs.services import emailers, lane, users

RECIPIENTS = (1_000, 10_000, 100_000, 1_000_000)
SENDING_SECONDS = 15
PAGES = 20
MOST_MEMORY = 256 * 1024 * 1024
OWNER, PASSWORD = "olga@shop.example", "seven green kettles"


def main() -> None:
    """Print the curve."""
    parser = argparse.ArgumentParser(prog="benchmarks.memory", description=__doc__)
    parser.add_argument("--recipients", type=int, nargs="*", default=RECIPIENTS)
    parser.add_argument("--only", choices=("sqlite", "postgres"))
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, Python {platform.python_version()}")
    print(f"{'':12}{'recipients':>12}{'snapshot':>11}{'worker':>10}{'web':>10}{'page':>10}")
    with Stage() as stage:
        stage.redis()
        port = stage.sink()
        for name, new in (("SQLite", stage.sqlite), ("PostgreSQL", stage.postgres)):
            if name.lower().startswith(asked.only or ""):
                _curve(Installation(stage, new()), name, port, asked.recipients)


def _curve(here: Installation, name: str, port: int, recipients: list[int]) -> None:
    with here.sessions() as session:
        users.create_user(session, datetime.now(UTC), OWNER, PASSWORD, users.OWNER)
    for number in recipients:
        campaign_id = here.campaign(number)
        took, emailer_id = _snapshot(here, campaign_id)
        settings = dataclasses.replace(here.settings, mail_server="127.0.0.1", mail_port=port)
        worker = _peak(_send_for_a_while, settings, emailer_id)
        web, seconds = _peak(_show, settings, emailer_id)
        print(
            f"{name:12}{number:>12,}{took:>9.2f} s{worker[0]:>7.0f} MB{web:>7.0f} MB"
            f"{seconds * 1000:>7.0f} ms",
            flush=True,
        )


def _snapshot(here: Installation, campaign_id: int) -> tuple[float, int]:
    now = datetime.now(UTC)
    emailer_id = here.plan(campaign_id, now)
    began = time.perf_counter()
    with here.sessions() as session:
        emailers.send(session, now, here.queue, emailer_id, timedelta(hours=1))
    return time.perf_counter() - began, emailer_id


def _peak(work, settings: config.Settings, emailer_id: int) -> tuple[float, float]:  # noqa: ANN001
    """What ``work`` returns, and the peak memory in MB of the fresh process that did it."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_measured, args=(theirs, work, settings, emailer_id)
    )
    process.start()
    theirs.close()
    try:
        answer: tuple[float, float] = ours.recv()
    finally:
        process.join()
    return answer


def _measured(pipe: Connection, work, settings: config.Settings, emailer_id: int) -> None:  # noqa: ANN001
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
    result = work(settings, emailer_id)
    status = Path("/proc/self/status").read_text()
    # Not getrusage's: that one counts what the parent had before the exec.
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    pipe.send((int(peak.split()[1]) / 1024, result))


def _send_for_a_while(settings: config.Settings, emailer_id: int) -> float:
    """A worker's work-horse on the emailer's slices, told to stop after a while."""
    engine = configure_engine(create_engine(settings.database_url))
    sessions = sessionmaker(engine)
    until = time.monotonic() + SENDING_SECONDS
    given = lane.Surroundings(
        sessions=sessions,
        settings=settings,
        server=smtp.server(settings),
        now=clock.now,
        dice=random.random,
        stopping=lambda: time.monotonic() > until,
        start_due=lambda _session: None,
        others_wait=lambda: False,
    )
    with sessions() as session:
        slices = session.scalars(
            select(Slice.id).where(Slice.emailer_id == emailer_id).order_by(Slice.id).limit(50)
        ).all()
    for slice_id in slices:
        lane.deliver(given, slice_id)
    with sessions() as session:
        emailers.ring(session, clock.now(), JobQueue(settings.redis_url), emailer_id)
    engine.dispose()
    return 0.0


def _show(settings: config.Settings, emailer_id: int) -> float:
    """The emailer's page, again and again; the seconds that one takes."""
    app = create_app(settings)
    app.config["WTF_CSRF_ENABLED"] = False
    client = app.test_client()
    client.post("/login", data={"email": OWNER, "password": PASSWORD})
    client.get(f"/emailers/{emailer_id}")  # The first one compiles the templates.
    began = time.perf_counter()
    for _ in range(PAGES):
        page = client.get(f"/emailers/{emailer_id}")
        assert page.status_code == 200, page.status
    return (time.perf_counter() - began) / PAGES


if __name__ == "__main__":
    main()
