"""What a writer is, and the words that all of them use."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Protocol

from sqlalchemy.exc import OperationalError

from mcs.services.deliveries import Standings, Step


class Writer(Protocol):
    """A connection of its own to the ledger. Raises SQLAlchemy's OperationalError, also when it is
    made.

    After an error it is of no more use. ``waits`` says whether others can run during a commit.
    """

    waits: bool

    async def advance(self, now: datetime, until: datetime, steps: Sequence[Step]) -> Standings:
        """Write plain steps in one commit, and renew their leases ``until`` then.

        A step whose lease is lost has no standing.
        """

    def close(self) -> None:
        """Let the connection go."""


@contextmanager
def passing(*errors: type[Exception]) -> Iterator[None]:
    """Has these errors, the driver's own, raised as SQLAlchemy's OperationalError."""
    try:
        yield
    except errors as error:
        raise OperationalError("writing the ledger", None, error) from error
