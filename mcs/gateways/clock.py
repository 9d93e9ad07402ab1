"""The clock: the only place that asks what time it is, and which time zones there are."""

import logging
import time
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import available_timezones

# What two hosts that keep time may differ by, and what asking takes.
TOLERATED = timedelta(seconds=2)

log = logging.getLogger(__name__)

# Of this host's counters of seconds, the one that goes on while the host is suspended: who wakes
# must not take its lease for a fresh one. Elsewhere than on Linux, the one that never jumps.
_COUNTER = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

# What the database's clock said, in UTC, and this process's counter of seconds then.
_told: tuple[datetime, float] | None = None
_said_off_by = timedelta()


def now() -> datetime:
    """This instant, in UTC: by the database's clock once that was asked, else by this host's."""
    if _told is None:
        return of_host()
    moment, counter = _told
    return moment + timedelta(seconds=time.clock_gettime(_COUNTER) - counter)


def of_host() -> datetime:
    """What this host's own clock says."""
    return datetime.now(UTC)


def go_by(theirs: datetime) -> None:
    """Go by the database's clock, which says ``theirs`` now, whatever this host's does later.

    Hosts that disagree would take over each other's slices, hold them for hours, and send early.
    """
    global _told, _said_off_by
    # In UTC, since seconds that are added in another zone leave out its change of the hour.
    _told = (theirs.astimezone(UTC), time.clock_gettime(_COUNTER))
    off_by = of_host() - theirs
    if abs(off_by) <= TOLERATED:
        off_by = timedelta()
    if abs(off_by - _said_off_by) <= TOLERATED:
        return
    _said_off_by = off_by
    if off_by:
        log.warning("this host's clock is off by %s: going by the database's", off_by)
    else:
        log.info("this host's clock is right again")


@cache
def zones() -> frozenset[str]:
    """The names of all time zones, as this host knew them when it was asked first."""
    return frozenset(available_timezones())
