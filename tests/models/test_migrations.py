"""The migrations make exactly the tables that the models describe."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine

from mcs.models import Base
from mcs.models.compare import compared


def test_models_and_migrations_agree(engine: Engine) -> None:
    dialect = engine.dialect.name
    # SQLite keeps a type by a name that it does not know again.
    options = {"compare_type": dialect == "postgresql", "include_object": compared(dialect)}
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []
