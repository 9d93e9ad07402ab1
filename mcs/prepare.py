"""Before the processes start: the database's schema, and the link with which the first run begins.

``python -m mcs.prepare`` prints the token of the setup link when nobody can sign in yet, and
nothing else; one line on standard error, and exit code 1, when the database cannot be used.
"""

import sys

from flask_migrate import upgrade
from sqlalchemy.exc import OperationalError

from mcs import config
from mcs.app import create_app
from mcs.extensions import db
from mcs.gateways import clock
from mcs.services import users


def main() -> int:
    """Migrate, and print the token."""
    try:
        app = create_app(config.load())
        with app.app_context():
            upgrade()
            if not users.has_owner(db.session()):
                print(users.new_setup_token(db.session(), clock.now()))  # noqa: T201
    except config.BadSetting as error:
        return _refuse(str(error))
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        return _refuse(f"the database cannot be used ({reason}): see DATABASE_URL")
    return 0


def _refuse(line: str) -> int:
    print(line, file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())
