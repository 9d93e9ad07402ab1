"""The one way a service writes."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError
from sqlalchemy.orm import Session

T = TypeVar("T")

# The database is away, locked, or broke a deadlock: the same may well succeed a moment later.
PASSING = (OperationalError, InterfaceError)

# For a change of many rows at once. SQLAlchemy would look for those among what the session has
# loaded; nobody here goes on with a loaded row after changing it in this way.
NO_SYNC: dict[str, Any] = {"synchronize_session": False}

log = logging.getLogger(__name__)

# A restart of the database, or a failover to another.
PATIENCE_SECONDS = 120.0
RETRY_SECONDS = 0.5


@contextmanager
def writing(session: Session) -> Iterator[None]:
    """A write transaction: commits at the end, rolls back on an exception.

    What the session read before is let go first, for two reasons: SQLite cannot turn a read
    transaction into a write one safely, and what was read before the lock may be stale.
    """
    if session.in_transaction():
        session.commit()
    session.connection(execution_options={"mcs_writes": True})
    try:
        yield
        session.commit()
    except BaseException:
        session.rollback()
        raise


class Overtaken(Exception):
    """Somebody else did in the same moment what a transaction was about to do."""


def met_again(session: Session, verb: Callable[[], T]) -> T:
    """Call ``verb`` in a write transaction; once more where somebody else inserted the same row in
    the same moment, or several in another order: now they are there to be found."""
    try:
        with writing(session):
            return verb()
    except (Overtaken, IntegrityError, OperationalError):
        with writing(session):
            return verb()


def persistently(verb: Callable[[bool], T]) -> T:
    """Call ``verb``, again and again while the database is away or locked, for two minutes.

    It is told whether a try before failed: then nobody knows whether that one's COMMIT happened.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    again = False
    while True:
        try:
            return verb(again)
        except PASSING as error:
            if time.monotonic() > until:
                raise
            log.warning("the database does not answer, trying again: %s", error.orig)
            again = True
            time.sleep(RETRY_SECONDS)
