"""Alembic's entry: migrates the database of the Flask app that runs it (``flask db upgrade``), or
the one whose engine it is given (mcs.prepare).

Migrations only expand first and contract in a later release, since old dynos still run while the
release phase migrates.
"""

from typing import Any

from alembic import context
from sqlalchemy import DateTime, Engine

from mcs.models import Base, UtcDateTime
from mcs.models.compare import compared


def render_item(kind: str, item: Any, _autogen: Any) -> str | bool:
    """Write UtcDateTime as the plain column type: a migration must not change with our code."""
    if kind == "type" and isinstance(item, UtcDateTime):
        assert isinstance(item.impl, DateTime)
        return "sa.DateTime(timezone=True)"
    return False


def _engine() -> Engine:
    given: Engine | None = context.config.attributes.get("engine")
    if given is not None:
        return given
    from flask import current_app  # Who gives an engine does without the time that Flask takes.

    engine: Engine = current_app.extensions["migrate"].db.engine
    return engine


def run() -> None:
    with _engine().connect().execution_options(mcs_writes=True) as connection:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            render_item=render_item,
            include_object=compared(connection.dialect.name),
            render_as_batch=True,
        )
        with context.begin_transaction():
            context.run_migrations()


run()
