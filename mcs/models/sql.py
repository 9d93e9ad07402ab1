"""SQL that the databases spell differently."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Dialect, String, Text, bindparam, types
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction


class random_hex(GenericFunction[str]):
    """32 random hexadecimal digits, drawn anew for each row."""

    type = String()
    inherit_cache = True


@compiles(random_hex, "sqlite")
def _sqlite(_element: random_hex, _compiler: Any, **_options: Any) -> str:
    return "lower(hex(randomblob(16)))"


@compiles(random_hex, "postgresql")
def _postgresql(_element: random_hex, _compiler: Any, **_options: Any) -> str:
    return "replace(gen_random_uuid()::text, '-', '')"


def among(column: Any, texts: Sequence[str]) -> ColumnElement[bool]:
    """``column IN (texts)`` for thousands of texts: one parameter, so that the statement stays
    the same and is prepared once, whatever their number."""
    return _among(column, bindparam(None, texts, type_=_Texts(), unique=True))


class _Texts(types.TypeDecorator[Sequence[str]]):
    """Many texts as one parameter: an array where there are arrays, else JSON."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> types.TypeEngine[Any]:
        return dialect.type_descriptor(
            ARRAY(Text()) if dialect.name == "postgresql" else Text()  # type: ignore[arg-type]
        )

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return value if dialect.name == "postgresql" else json.dumps(value)


class _among(GenericFunction[bool]):
    type = types.Boolean()
    inherit_cache = True


@compiles(_among, "sqlite")
def _among_sqlite(element: _among, compiler: Any, **options: Any) -> str:
    column, texts = (compiler.process(part, **options) for part in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({texts}))"


@compiles(_among, "postgresql")
def _among_postgresql(element: _among, compiler: Any, **options: Any) -> str:
    column, texts = (compiler.process(part, **options) for part in element.clauses)
    return f"{column} = ANY({texts})"
