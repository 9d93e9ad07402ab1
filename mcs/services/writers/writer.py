"""What a writer is, and the words that all of them use."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from sqlalchemy.exc import OperationalError

from mcs.core.states import DELIVERY_STATES
from mcs.services.deliveries import Standings, Step
from mcs.services.steps import Outcome


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


def counts(step: Step) -> dict[str, int]:
    """How the slice's counts move by the answers."""
    moved = Counter(outcome.state for outcome in step.outcomes)
    counts = {state: moved[state] for state in DELIVERY_STATES}
    counts["sending"] -= len(step.outcomes)
    return counts


class Row(NamedTuple):
    """What is written of a delivery; ``at`` is its due_at, or when it starts."""

    state: str
    reason: str
    at: str
    sent_at: str | None
    code: int | None
    text: str
    delivery_id: int


def told(outcome: Outcome) -> Row:
    """An answer as it is written."""
    at = stored(outcome.at)
    return Row(
        outcome.state,
        outcome.reason[:200],
        at,
        at if outcome.state == "sent" else None,
        outcome.reply_code,
        outcome.reply_text[:1000],
        outcome.delivery_id,
    )


def stored(instant: datetime) -> str:
    """As SQLite stores it (UtcDateTime), which PostgreSQL reads too."""
    # Without the zone that stands behind these 26 characters.
    return instant.astimezone(UTC).isoformat(" ", "microseconds")[:26]
