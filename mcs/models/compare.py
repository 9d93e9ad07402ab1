"""What Alembic compares of the models with a database."""

from collections.abc import Callable
from typing import Any

# Triggers stand in their place on PostgreSQL: docs/adr/0017-parents-looked-up-at-once.md.
_ON_SQLITE_ONLY = {"fk_deliveries_emailer_id", "fk_deliveries_contact_id"}


def compared(dialect: str) -> Callable[[Any, str | None, str, bool, Any], bool]:
    """Alembic's ``include_object`` for a database of this kind.

    Needed since Alembic does not heed a constraint's ``ddl_if``.
    """

    def include(_item: Any, name: str | None, _kind: str, reflected: bool, _other: Any) -> bool:
        return reflected or dialect == "sqlite" or name not in _ON_SQLITE_ONLY

    return include
