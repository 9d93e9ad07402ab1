"""The one way a service writes."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session


@contextmanager
def writing(session: Session) -> Iterator[None]:
    """A write transaction: commits at the end, rolls back on an exception.

    What the session read before is let go first, for two reasons: SQLite cannot turn a read
    transaction into a write one safely, and what was read before the lock may be stale.
    """
    session.commit()
    session.connection(execution_options={"mcs_writes": True})
    try:
        yield
        session.commit()
    except BaseException:
        session.rollback()
        raise
