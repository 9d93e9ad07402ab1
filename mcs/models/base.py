"""The declarative base, the one type instants are stored with, and how an engine is set up."""

import time
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect, Engine, MetaData, event, types
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import DisconnectionError, OperationalError
from sqlalchemy.orm import DeclarativeBase

MYSQL = ("mysql", "mariadb")
_ZONELESS = ("sqlite", *MYSQL)
# A database that was restarted is not back, and found, within less.
REST_SECONDS = 1.0
_IDLE_IN_TRANSACTION = "25P03"
# MySQL compares texts without regard to case unless told otherwise: A-17 and a-17 are two orders.
BINARY_ON_MYSQL = {
    f"{dialect}_{option}": value
    for dialect in MYSQL
    for option, value in (("charset", "utf8mb4"), ("collate", "utf8mb4_bin"), ("engine", "InnoDB"))
}


class Base(DeclarativeBase):
    """Every table's base. It is plain: Flask-SQLAlchemy is handed it by the app."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class UtcDateTime(types.TypeDecorator[datetime]):
    """An instant: aware in, UTC and aware out, on every database.

    SQLite and MySQL drop the zone of what they store, so a naive value could mean anything: it is
    refused with ValueError before it gets there.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> types.TypeEngine[Any]:
        if dialect.name in MYSQL:
            # Without a precision, MySQL rounds to the second: half of all would be early.
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive datetime {value!r}: instants carry their zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name in _ZONELESS else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is UTC:
            return value
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def stored(instant: datetime) -> str:
    """An instant as SQLite and MySQL store it, and as PostgreSQL reads it in UTC."""
    # Without the zone that stands behind these 26 characters.
    return instant.astimezone(UTC).isoformat(" ", "microseconds")[:26]


def configure_engine(engine: Engine) -> Engine:
    """Give an engine the settings every MCS process relies on.

    WAL lets pages read while a worker writes; synchronous=FULL makes a commit survive a power cut
    (a lost commit would mail people twice); a write transaction says BEGIN IMMEDIATE, since a read
    that turns into a write fails at once with SQLITE_BUSY, whatever the busy timeout.
    """
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_sqlite_pragmas)
        event.listen(engine, "begin", _begin_sqlite)
    if engine.dialect.name == "postgresql":
        event.listen(engine, "connect", _set_postgres_session)
        event.listen(engine, "handle_error", _say_it_will_pass)
    return engine


def _set_postgres_session(connection: Any, _record: Any) -> None:
    # What goes by libpq alone (mcs.models.direct, the lane's writer) is UTF-8, whatever the
    # database's own encoding.
    connection.execute("SET client_encoding = 'UTF8'")
    # A process that is frozen, or whose host is gone, in the middle of a transaction would keep its
    # locks for hours; so PostgreSQL ends it. Persons and the clock wait for those locks, too: for
    # less than a lease. No statement of ours follows another by so much.
    connection.execute("SET idle_in_transaction_session_timeout = '15s'")
    connection.commit()


def _say_it_will_pass(context: Any) -> None:
    """PostgreSQL has ended the transaction of a process that was frozen: psycopg calls that an
    internal error, but the same will succeed on another connection."""
    if getattr(context.original_exception, "sqlstate", None) == _IDLE_IN_TRANSACTION:
        context.is_disconnect, context.invalidate_pool_on_disconnect = True, False
        raise OperationalError(context.statement, context.parameters, context.original_exception)


def _set_sqlite_pragmas(connection: Any, _record: Any) -> None:
    # None: sqlite3 must not begin transactions by itself; _begin_sqlite does, in the right mode.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "busy_timeout=15000",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    writes = connection.get_execution_options().get("mcs_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def ping_when_rested(engine: Engine) -> Engine:
    """Ask whether a connection still stands before it is used, if it has rested for a second.

    As ``pool_pre_ping`` does each time, which is one round trip in five of an enrolment.
    """

    def rest(_connection: Any, record: Any) -> None:
        record.info["rests_since"] = time.monotonic()

    def ask(connection: Any, record: Any, _proxy: Any) -> None:
        now = time.monotonic()
        if now - record.info.get("rests_since", now) < REST_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise DisconnectionError from error

    event.listen(engine, "checkin", rest)
    event.listen(engine, "checkout", ask)
    return engine
