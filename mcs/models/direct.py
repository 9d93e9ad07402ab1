"""A statement that goes to PostgreSQL with no session, transaction or cursor around it.

For what is called for each subject of a shop: those were half of what enrolling one cost in Python
(docs/adr/0012-sequence-speed.md), which has one core for all the threads that enrol.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any

import psycopg
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from sqlalchemy import Engine, PoolProxiedConnection
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError


class Direct:
    """A statement with named parameters that the server commits by itself.

    Each connection prepares it once, under ``name``.
    """

    def __init__(self, name: str, statement: Any) -> None:
        self._name = name
        self._statement = statement
        self._in_schema = cache(self._compiled)

    def number(self, engine: Engine, values: Mapping[str, object]) -> int | None:
        """The whole number that it returns; None where there is no row.

        Raises what SQLAlchemy raises for the driver's errors. Waits in C: a signal is heeded when
        the server has answered.
        """
        schemas = engine.get_execution_options().get("schema_translate_map", {})
        text, names = self._in_schema(schemas.get(None))
        sent = [_sent(values[name]) for name in names]
        try:
            pooled = engine.raw_connection()
            try:
                rows = self._rows(pooled, text, sent)
            finally:
                if _libpq(pooled).status != ConnStatus.OK:
                    pooled.invalidate()
                pooled.close()
        except psycopg.Error as error:
            raise DBAPIError.instance(
                self._name, None, error, psycopg.Error, dialect=engine.dialect
            ) from error
        found = rows.get_value(0, 0) if rows.ntuples else None
        return None if found is None else int(found)

    def _rows(
        self, pooled: PoolProxiedConnection, text: bytes, values: list[bytes | None]
    ) -> PGresult:
        if self._name not in pooled.info:
            self._prepare(pooled, text)
        try:
            return self._executed(pooled, values)
        except psycopg.errors.InvalidSqlStatementName:
            # With a rollback psycopg lets go what it has prepared, and all else that is.
            self._prepare(pooled, text)
            return self._executed(pooled, values)

    def _prepare(self, pooled: PoolProxiedConnection, text: bytes) -> None:
        _sound(_libpq(pooled).prepare(self._name.encode(), text))
        pooled.info[self._name] = True

    def _executed(self, pooled: PoolProxiedConnection, values: list[bytes | None]) -> PGresult:
        # Other threads run while it waits. (None is NULL to it, which its type forgets.)
        return _sound(_libpq(pooled).exec_prepared(self._name.encode(), values))  # type: ignore[arg-type]

    def _compiled(self, schema: str | None) -> tuple[bytes, list[str]]:
        """The statement with $1, $2 ..., and the names of what they stand for."""
        translated = {"schema_translate_map": {None: schema}, "render_schema_translate": True}
        compiled = self._statement.compile(
            dialect=postgresql.dialect(paramstyle="numeric_dollar"),  # type: ignore[no-untyped-call]
            **(translated if schema else {}),
        )
        return str(compiled).encode(), compiled.positiontup


def _libpq(pooled: PoolProxiedConnection) -> PGconn:
    connection = pooled.driver_connection
    assert isinstance(connection, psycopg.Connection)
    return connection.pgconn


def _sent(value: object) -> bytes | None:
    """As PostgreSQL reads it from a text."""
    if value is None:
        return None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return value.isoformat().encode()
    return str(value).encode()


def _sound(result: PGresult) -> PGresult:
    if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
        error = psycopg.errors.error_from_result(result)
        if error.sqlstate is None:  # It was not the server who said it: the connection is gone.
            raise psycopg.OperationalError(str(error))
        raise error
    return result
