"""What comes round: the next time that clocks show an hour, and the next full minute."""

from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from mcs.core import walltime


def next_daily(after: datetime, at: time, zone: ZoneInfo) -> datetime:
    """The first instant (UTC) later than ``after`` at which clocks in ``zone`` show ``at``."""
    day = walltime.local(after, zone).date()
    days = (day + timedelta(days=number) for number in range(3))
    return next(moment for each in days if (moment := walltime.instant(each, at, zone)) > after)


def next_minute(after: datetime) -> datetime:
    """The first full minute later than ``after``."""
    return after.replace(second=0, microsecond=0) + timedelta(minutes=1)
