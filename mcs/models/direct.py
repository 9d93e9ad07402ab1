"""A statement that goes to PostgreSQL with no session, transaction or cursor around it.

For what is called for each subject of a shop: those were three quarters of what enrolling one cost
in Python (docs/performance.md), which has one core for all the threads that enrol.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any

import psycopg
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from sqlalchemy import Engine, PoolProxiedConnection
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError, OperationalError


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

        Raises SQLAlchemy's IntegrityError; for whatever else goes wrong, OperationalError.
        """
        schemas = engine.get_execution_options().get("schema_translate_map", {})
        text, names = self._in_schema(schemas.get(None))
        sent = [_sent(values[name]) for name in names]
        pooled = engine.raw_connection()
        try:
            if self._name not in pooled.info:
                self._prepare(pooled, text)
            try:
                rows = self._executed(pooled, sent)
            except psycopg.errors.InvalidSqlStatementName:
                # With a rollback psycopg lets go what it has prepared, and all else that is.
                self._prepare(pooled, text)
                rows = self._executed(pooled, sent)
        except psycopg.IntegrityError as error:
            raise IntegrityError(self._name, None, error) from error
        except psycopg.Error as error:
            pooled.invalidate(error)
            raise OperationalError(self._name, None, error) from error
        finally:
            pooled.close()
        found = rows.get_value(0, 0) if rows.ntuples else None
        return None if found is None else int(found)

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
    return (value.isoformat() if isinstance(value, datetime) else str(value)).encode()


def _sound(result: PGresult) -> PGresult:
    if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
        raise psycopg.errors.error_from_result(result)
    return result
