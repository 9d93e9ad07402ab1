"""SQL that the databases spell differently."""

from typing import Any

from sqlalchemy import String
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
