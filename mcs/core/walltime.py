"""Wall time and instants: when 09:30 is, in a zone, before and after a clock change."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo


def instant(day: date, at: time, zone: ZoneInfo) -> datetime:
    """The instant, in UTC, at which the clocks of ``zone`` show ``at`` on ``day``.

    A wall time that does not exist (clocks go forward) is the first valid instant after it; one
    that happens twice (clocks go back) is the first of the two.
    """
    wall = datetime.combine(day, at.replace(fold=0), tzinfo=zone)
    found = wall.astimezone(UTC)
    if _shows(found, wall, zone):
        return found
    return _end_of_gap(wall.replace(fold=1).astimezone(UTC), found, zone)


def exists(day: date, at: time, zone: ZoneInfo) -> bool:
    """Whether the clocks of ``zone`` ever show ``at`` on ``day``."""
    wall = datetime.combine(day, at.replace(fold=0), tzinfo=zone)
    return _shows(wall.astimezone(UTC), wall, zone)


def local(moment: datetime, zone: ZoneInfo) -> datetime:
    """The same instant as the clocks of ``zone`` show it."""
    return moment.astimezone(zone)


def _shows(moment: datetime, wall: datetime, zone: ZoneInfo) -> bool:
    return moment.astimezone(zone).replace(tzinfo=None) == wall.replace(tzinfo=None)


def _end_of_gap(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """The instant of the clock change, to the second, between two instants around it.

    In a gap, PEP 495 reads fold=1 with the offset that comes after, which gives an instant before
    the change, and fold=0 with the offset before, which gives one after it.
    """
    new_offset = after.astimezone(zone).utcoffset()
    low, high = 0, int((after - before).total_seconds())
    while high - low > 1:
        middle = (low + high) // 2
        changed = (before + timedelta(seconds=middle)).astimezone(zone).utcoffset() == new_offset
        low, high = (low, middle) if changed else (middle, high)
    return before + timedelta(seconds=high)
