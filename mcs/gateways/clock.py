"""The clock: the only place that asks what time it is, and which time zones there are."""

from datetime import UTC, datetime
from functools import cache
from zoneinfo import available_timezones


def now() -> datetime:
    """This instant, in UTC."""
    return datetime.now(UTC)


@cache
def zones() -> frozenset[str]:
    """The names of all time zones, as this host knew them when it was asked first."""
    return frozenset(available_timezones())
