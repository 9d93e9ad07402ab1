"""The clock: the only place that asks what time it is."""

import logging
from datetime import UTC, datetime, timedelta

# What two hosts that keep time may differ by, and what asking takes.
TOLERATED = timedelta(seconds=2)

log = logging.getLogger(__name__)

_off_by = timedelta()


def now() -> datetime:
    """This instant, in UTC: this host's, or the database's where this host's is wrong."""
    return of_host() + _off_by


def of_host() -> datetime:
    """What this host's own clock says."""
    return datetime.now(UTC)


def go_by(theirs: datetime) -> None:
    """Go by the database's clock, which says ``theirs`` now, if this host's is off by more than
    TOLERATED: hosts that disagree would take over each other's slices, and send early."""
    global _off_by
    ahead = theirs - of_host()
    if abs(ahead) > TOLERATED:
        if abs(ahead - _off_by) > TOLERATED:
            log.warning("this host's clock is off by %s: going by the database's", -ahead)
        _off_by = ahead
    else:
        _off_by = timedelta()
