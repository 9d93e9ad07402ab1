"""Before the processes start: the database's schema, and the link with which the first run begins.

``python -m mcs.prepare`` prints the token of the setup link when nobody can sign in yet, and
nothing else; one line on standard error, and exit code 1, when the database cannot be used.
Everything waits for it, so it does without Flask, which would take it twice as long.
"""

import sys

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from mcs import config
from mcs.gateways import clock
from mcs.models import configure_engine
from mcs.services import users

MIGRATIONS = config.ROOT / "mcs" / "migrations"


def main() -> int:
    """Migrate, and print the token."""
    try:
        engine = configure_engine(create_engine(config.load().database_url))
        _migrate(engine)
        with Session(engine) as session:
            if not users.has_owner(session):
                print(users.new_setup_token(session, clock.now()))  # noqa: T201
    except config.BadSetting as error:
        return _refuse(str(error))
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        return _refuse(f"the database cannot be used ({reason}): see DATABASE_URL")
    except CommandError as error:
        return _refuse(f"the database cannot be migrated: {error}")
    return 0


def _migrate(engine: Engine) -> None:
    migrations = Config(MIGRATIONS / "alembic.ini", attributes={"engine": engine})
    migrations.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    command.upgrade(migrations, "head")


def _refuse(line: str) -> int:
    print(line, file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())
