"""Wall time to instant: a table of known cases, then every transition of every zone."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest

from mcs.core.walltime import exists, instant, local

FIRST, LAST = datetime(2025, 1, 1, tzinfo=UTC), datetime(2036, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "day", "at", "expected"),
    [
        ("Europe/Berlin", "2026-11-23", "09:30", "2026-11-23 08:30"),
        ("Europe/Berlin", "2026-07-01", "09:30", "2026-07-01 07:30"),
        ("Europe/Berlin", "2026-03-29", "01:59", "2026-03-29 00:59"),
        ("Europe/Berlin", "2026-03-29", "02:00", "2026-03-29 01:00"),
        ("Europe/Berlin", "2026-03-29", "02:30", "2026-03-29 01:00"),
        ("Europe/Berlin", "2026-03-29", "03:00", "2026-03-29 01:00"),
        ("Europe/Berlin", "2026-03-29", "03:01", "2026-03-29 01:01"),
        ("Europe/Berlin", "2026-10-25", "02:30", "2026-10-25 00:30"),
        ("Europe/Berlin", "2026-10-25", "03:00", "2026-10-25 02:00"),
        ("America/New_York", "2027-03-14", "02:15", "2027-03-14 07:00"),
        ("America/New_York", "2027-11-07", "01:15", "2027-11-07 05:15"),
        ("Australia/Lord_Howe", "2026-10-04", "02:15", "2026-10-03 15:30"),
        ("Australia/Lord_Howe", "2026-04-05", "01:45", "2026-04-04 14:45"),
        # A gap at midnight: the day begins at 01:00.
        ("Africa/Cairo", "2026-04-24", "00:00", "2026-04-23 22:00"),
        ("America/Santiago", "2026-09-06", "00:30", "2026-09-06 04:00"),
        ("Asia/Kathmandu", "2026-11-23", "00:00", "2026-11-22 18:15"),
        ("Pacific/Kiritimati", "2026-12-31", "23:59", "2026-12-31 09:59"),
        ("UTC", "2028-02-29", "12:00", "2028-02-29 12:00"),
        # A whole day that never was.
        ("Pacific/Apia", "2011-12-30", "12:00", "2011-12-30 10:00"),
    ],
)
def test_known_moments(zone: str, day: str, at: str, expected: str) -> None:
    found = instant(date.fromisoformat(day), time.fromisoformat(at), ZoneInfo(zone))
    assert found == datetime.fromisoformat(expected).replace(tzinfo=UTC)


@pytest.mark.parametrize("name", sorted(available_timezones()))
def test_every_transition_of_every_zone(name: str) -> None:
    """Around each one, ten minutes by ten minutes: the definition, on the zone's own data."""
    zone = ZoneInfo(name)
    for change in _transitions(zone):
        first_shown: dict[datetime, datetime] = {}
        for minutes in range(-130, 131, 10):
            moment = change + timedelta(minutes=minutes)
            first_shown.setdefault(_wall(moment, zone), moment)
        wall, last = min(first_shown), max(first_shown)
        while wall <= last:
            found = instant(wall.date(), wall.time(), zone)
            assert found == first_shown.get(wall, change)
            assert exists(wall.date(), wall.time(), zone) == (wall in first_shown)
            assert _wall(found, zone) >= wall
            wall += timedelta(minutes=10)


def _wall(moment: datetime, zone: ZoneInfo) -> datetime:
    return local(moment, zone).replace(tzinfo=None, fold=0)


def _transitions(zone: ZoneInfo) -> list[datetime]:
    """The instants at which the zone's offset changes, found on the offsets themselves."""
    changes = []
    moment, step = FIRST, timedelta(days=5)
    offset = FIRST.astimezone(zone).utcoffset()
    while moment < LAST:
        moment += step
        offset, before = moment.astimezone(zone).utcoffset(), offset
        if offset != before:
            changes.append(_pin(moment - step, moment, zone))
    return changes


def _pin(low: datetime, high: datetime, zone: ZoneInfo) -> datetime:
    before = low.astimezone(zone).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=int((high - low).total_seconds()) // 2)
        if middle.astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high
