"""SQL that the databases spell differently."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    BindParameter,
    ColumnElement,
    Dialect,
    Integer,
    String,
    TableValuedAlias,
    Text,
    bindparam,
    literal_column,
    types,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql import ClauseElement, Executable
from sqlalchemy.sql.functions import FunctionElement, GenericFunction

from mcs.models.base import MYSQL, UtcDateTime, stored


class random_hex(GenericFunction[str]):
    """32 random hexadecimal digits, drawn anew for each row.

    For many rows at once it is given a secret, drawn for this statement, and what tells the rows
    apart: on PostgreSQL a draw is a system call of 10 us, which a hash of those takes one of.
    """

    type = String()
    inherit_cache = True


@compiles(random_hex, "sqlite")
def _sqlite(_element: random_hex, _compiler: Any, **_options: Any) -> str:
    return "lower(hex(randomblob(16)))"


@compiles(random_hex, "postgresql")
def _postgresql(element: random_hex, compiler: Any, **options: Any) -> str:
    if not element.clauses.clauses:
        return "replace(gen_random_uuid()::text, '-', '')"
    known = " || ".join(f"{compiler.process(one, **options)}::text" for one in element.clauses)
    return f"left(encode(sha256(convert_to({known}, 'UTF8')), 'hex'), 32)"


def insert_into(session: Session, table: Any) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that can be told what to do ON CONFLICT."""
    is_postgres = session.get_bind().dialect.name == "postgresql"
    return postgresql.insert(table) if is_postgres else sqlite.insert(table)


class Analyze(Executable, ClauseElement):
    """PostgreSQL's ANALYZE of one table."""

    inherit_cache = False

    def __init__(self, table: Any) -> None:
        self.table = table


@compiles(Analyze, "postgresql")
def _analyze(element: Analyze, compiler: Any, **_options: Any) -> str:
    return f"ANALYZE {compiler.preparer.format_table(element.table)}"


def among(
    column: Any, values: Sequence[str] | Sequence[int] | BindParameter[Any]
) -> ColumnElement[bool]:
    """``column IN (values)`` for thousands of them: one parameter, so that the statement stays
    the same and is prepared once, whatever their number. (MySQL has no such thing: it gets a
    parameter for each.) For a statement that is made once, a ``bindparam`` stands for them."""
    name, given = (values.key, None) if isinstance(values, BindParameter) else (None, values)
    unique = name is None
    many = bindparam(name, given, type_=_Many(column.type), unique=unique)
    each = bindparam(name, given, type_=column.type, unique=unique, expanding=True)
    return _among(column, many, column.in_(each))


class _Many(types.TypeDecorator[Sequence[Any]]):
    """Many values as one parameter: an array where there are arrays, else JSON."""

    impl = Text
    cache_ok = True

    def __init__(self, item: types.TypeEngine[Any]) -> None:
        super().__init__()
        self.item = item

    def load_dialect_impl(self, dialect: Dialect) -> types.TypeEngine[Any]:
        arrays = dialect.name == "postgresql" and not isinstance(self.item, Integer)
        return ARRAY(self.item) if arrays else Text()

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        if dialect.name != "postgresql":
            return json.dumps(value)
        if isinstance(self.item, Integer):
            # The text of an array: psycopg takes nine times as long to make it of a list.
            return "{" + ",".join(map(str, value)) + "}"
        return value


class _among(GenericFunction[bool]):
    type = types.Boolean()
    inherit_cache = True

    def self_group(self, against: Any = None) -> Any:
        # A function of truth is else written as "... = 1" for SQLite, and that takes no index.
        return self


@compiles(_among, "sqlite")
def _among_sqlite(element: _among, compiler: Any, **options: Any) -> str:
    column, values = (compiler.process(part, **options) for part in element.clauses.clauses[:2])
    return f"{column} IN (SELECT value FROM json_each({values}))"


@compiles(_among, "postgresql")
def _among_postgresql(element: _among, compiler: Any, **options: Any) -> str:
    column, values = (compiler.process(part, **options) for part in element.clauses.clauses[:2])
    if isinstance(element.clauses.clauses[0].type, Integer):
        values = f"CAST({values} AS BIGINT[])"
    return f"{column} = ANY({values})"


@compiles(_among, *MYSQL)
def _among_mysql(element: _among, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.clauses.clauses[2], **options))


def records(rows: Sequence[Sequence[Any]] | str) -> TableValuedAlias:
    """Thousands of rows as one parameter, to select from: ``cell(records, 0, type)`` ...

    Ten times cheaper than a parameter per cell. A text instead of rows is the name of the
    parameter, which is then given as ``packed(rows)``: for statements that are made once.
    """
    if isinstance(rows, str):
        given: BindParameter[str] = bindparam(rows, type_=Text())
    else:
        given = bindparam(None, packed(rows), type_=Text(), unique=True)
    return _records(given).table_valued("value")


def packed(rows: Sequence[Sequence[Any]]) -> str:
    """Rows of texts, numbers and instants as one text."""
    return json.dumps(rows, default=stored)


def cell(rows: TableValuedAlias, place: int, of: types.TypeEngine[Any]) -> ColumnElement[Any]:
    """A cell of ``records`` as a column of that type; for a JSON column it is a text of JSON."""
    return _cell(rows.c.value, literal_column(str(place)), literal_column(_kind(of)), type_=of)


def _kind(of: types.TypeEngine[Any]) -> str:
    for kind in (JSON, Integer, UtcDateTime):
        if isinstance(of, kind):
            return kind.__name__
    return "Text"


class _records(GenericFunction[Any]):
    inherit_cache = True


@compiles(_records, "sqlite")
def _records_sqlite(element: _records, compiler: Any, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(_records, "postgresql")
def _records_postgresql(element: _records, compiler: Any, **options: Any) -> str:
    return f"json_array_elements(CAST({compiler.process(element.clauses, **options)} AS JSON))"


@compiles(_records, *MYSQL)
def _records_mysql(element: _records, compiler: Any, **options: Any) -> str:
    rows = compiler.process(element.clauses, **options)
    return f"JSON_TABLE({rows}, '$[*]' COLUMNS (value JSON PATH '$'))"


class _cell(FunctionElement[Any]):
    inherit_cache = True

    def __init__(self, *clauses: Any, type_: types.TypeEngine[Any]) -> None:
        super().__init__(*clauses)
        self.type = type_


_CASTS = {
    "JSON": "CAST({} AS JSON)",
    "Integer": "CAST({} AS BIGINT)",
    "UtcDateTime": "CAST({} AS TIMESTAMP) AT TIME ZONE 'UTC'",
    "Text": "{}",
}


@compiles(_cell, "sqlite")
def _cell_sqlite(element: _cell, compiler: Any, **options: Any) -> str:
    value, place, _ = (compiler.process(part, **options) for part in element.clauses)
    return f"json_extract({value}, '$[{place}]')"


@compiles(_cell, "postgresql")
def _cell_postgresql(element: _cell, compiler: Any, **options: Any) -> str:
    value, place, kind = (compiler.process(part, **options) for part in element.clauses)
    return "(" + _CASTS[kind].format(f"({value} ->> {place})") + ")"


@compiles(_cell, *MYSQL)
def _cell_mysql(element: _cell, compiler: Any, **options: Any) -> str:
    value, place, _ = (compiler.process(part, **options) for part in element.clauses)
    return f"JSON_VALUE({value}, '$[{place}]')"
