"""The migrations make exactly the tables that the models describe."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine

from mcs.models import Base
from mcs.models.compare import compared


def test_models_and_migrations_agree(engine: Engine) -> None:
    options = {"compare_type": False, "include_object": compared(engine.dialect.name)}
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []
