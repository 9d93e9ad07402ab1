"""Intervals: tables of grammar, of moments and of refusals, then what holds for every interval."""

from collections import Counter
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcs.core.intervals import (
    BadInterval,
    Duration,
    Interval,
    Seed,
    Span,
    Window,
    add,
    due_at,
    parse,
    parse_duration,
    weekday_names,
)

JANE = Seed("shop", "contact", "1", 1, "action1", 1)
HOUR, DAY = 3600, 86400


def seeds(number: int) -> list[Seed]:
    return [Seed("shop", "contact", str(n), 1, "action1", 1) for n in range(number)]


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "months", "days", "seconds"),
    [
        ("0days", 0, 0, 0),
        ("At once", 0, 0, 0),
        ("immediately", 0, 0, 0),
        ("0 s", 0, 0, 0),
        ("1day", 0, 1, 0),
        ("1 day", 0, 1, 0),
        ("01day", 0, 1, 0),
        ("  2 Days ", 0, 2, 0),
        ("2DAYS", 0, 2, 0),
        ("3d", 0, 3, 0),
        ("2w", 0, 14, 0),
        ("2 wk", 0, 14, 0),
        ("2wks", 0, 14, 0),
        ("1week", 0, 7, 0),
        ("1 week 1 day", 0, 8, 0),
        ("1month", 1, 0, 0),
        ("1mo", 1, 0, 0),
        ("2 mths", 2, 0, 0),
        ("1year", 12, 0, 0),
        ("1y 6months", 18, 0, 0),
        ("2yrs", 24, 0, 0),
        ("30min", 0, 0, 1800),
        ("30 min", 0, 0, 1800),
        ("30mins", 0, 0, 1800),
        ("30 minutes", 0, 0, 1800),
        ("1minute", 0, 0, 60),
        ("45s", 0, 0, 45),
        ("45 secs", 0, 0, 45),
        ("1 second", 0, 0, 1),
        ("2h", 0, 0, 7200),
        ("2 hrs", 0, 0, 7200),
        ("1hour", 0, 0, 3600),
        ("1.5h", 0, 0, 5400),
        ("0.5 min", 0, 0, 30),
        ("36hours", 0, 0, 129600),
        ("1day 2hours 25minutes", 0, 1, 8700),
        ("1day2hours25minutes", 0, 1, 8700),
        ("2hours 1day", 0, 1, 7200),
        ("1 day, 2 hours and 25 minutes", 0, 1, 8700),
        ("1day + 2hours", 0, 1, 7200),
        ("1day & 2hours", 0, 1, 7200),
        ("1y 1mo 1w 1d 1h 1min 1s", 13, 8, 3661),
    ],
)
def test_offsets_are_read_in_any_common_spelling(
    text: str, months: int, days: int, seconds: int
) -> None:
    assert parse_duration(text) == Duration(months, days, seconds)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("2days-5days", Duration(days=2), Duration(days=5)),
        ("2days - 5days", Duration(days=2), Duration(days=5)),
        ("2days to 5days", Duration(days=2), Duration(days=5)),
        ("2days\u20135days", Duration(days=2), Duration(days=5)),
        ("2-5 days", Duration(days=2), Duration(days=5)),
        ("1.5-2h", Duration(seconds=5400), Duration(seconds=7200)),
        ("2 to 5 weeks", Duration(days=14), Duration(days=35)),
        ("12hours-2days", Duration(seconds=12 * HOUR), Duration(days=2)),
        ("1month-2months", Duration(months=1), Duration(months=2)),
        ("28days-1month", Duration(days=28), Duration(months=1)),
        ("1month-31days", Duration(months=1), Duration(days=31)),
        ("1day 2hours - 1day 3hours", Duration(0, 1, 2 * HOUR), Duration(0, 1, 3 * HOUR)),
        ("0days-0days", Duration(), Duration()),
    ],
)
def test_ranges(text: str, low: Duration, high: Duration) -> None:
    assert parse(text).offset == Span(low, high)


@pytest.mark.parametrize(
    ("text", "opens", "closes"),
    [
        ("10:00", 10 * HOUR, 10 * HOUR),
        ("9:30", 9 * HOUR + 1800, 9 * HOUR + 1800),
        ("09:30:15", 9 * HOUR + 1815, 9 * HOUR + 1815),
        ("00:00", 0, 0),
        ("23:59", 23 * HOUR + 59 * 60, 23 * HOUR + 59 * 60),
        ("10am", 10 * HOUR, 10 * HOUR),
        ("12am", 0, 0),
        ("12pm", 12 * HOUR, 12 * HOUR),
        ("1:30 pm", 13 * HOUR + 1800, 13 * HOUR + 1800),
        ("1:30 p.m.", 13 * HOUR + 1800, 13 * HOUR + 1800),
        ("10:00-15:00", 10 * HOUR, 15 * HOUR),
        ("09:30-10:15", 9 * HOUR + 1800, 10 * HOUR + 900),
        ("09:30 to 10:15", 9 * HOUR + 1800, 10 * HOUR + 900),
        ("22:00-02:00", 22 * HOUR, 26 * HOUR),
        ("9am-5pm", 9 * HOUR, 17 * HOUR),
        ("00:00-24:00", 0, DAY),
        ("20:00-00:00", 20 * HOUR, DAY),
        ("20:00-24:00", 20 * HOUR, DAY),
    ],
)
def test_times_and_windows(text: str, opens: int, closes: int) -> None:
    assert parse("0days", text).window == Window(opens, closes)


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("", {0, 1, 2, 3, 4, 5, 6}),
        ("mon-fri", {0, 1, 2, 3, 4}),
        ("Mon - Fri", {0, 1, 2, 3, 4}),
        ("monday to friday", {0, 1, 2, 3, 4}),
        ("mon,wed,fri", {0, 2, 4}),
        ("mon wed", {0, 2}),
        ("tues; thurs", {1, 3}),
        ("mondays and sundays", {0, 6}),
        ("sat-mon", {5, 6, 0}),
        ("sun", {6}),
        ("weekdays", {0, 1, 2, 3, 4}),
        ("weekends", {5, 6}),
        ("weekdays, sat", {0, 1, 2, 3, 4, 5}),
        ("mon-wed, fri", {0, 1, 2, 4}),
    ],
)
def test_weekdays(text: str, days: set[int]) -> None:
    read = parse("0days", days=text).days
    assert read == days
    assert parse("0days", days=weekday_names(read)).days == days


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("2026-12-25", {"2026-12-25"}),
        ("2026-12-25, 2027-01-01", {"2026-12-25", "2027-01-01"}),
        ("2026-12-24..2026-12-26", {"2026-12-24", "2026-12-25", "2026-12-26"}),
        ("2026-12-31 to 2027-01-01", {"2026-12-31", "2027-01-01"}),
        ("2026-12-31/2027-01-01", {"2026-12-31", "2027-01-01"}),
    ],
)
def test_excluded_dates(text: str, days: set[str]) -> None:
    assert parse("0days", excluded=text).excluded == {date.fromisoformat(day) for day in days}


@pytest.mark.parametrize(
    ("part", "text", "words"),
    [
        ("offset", "", "0days"),
        ("offset", "  ", "0days"),
        ("offset", "soon", "2days"),
        ("offset", "5", "5days"),
        ("offset", "1 5days", "1days"),
        ("offset", "3m", "3min or 3months"),
        ("offset", "1h 3m", "3min or 3months"),
        ("offset", "3 fortnights", "weeks"),
        ("offset", "1dayz", "no unit"),
        ("offset", "1day 2days", "add them up"),
        ("offset", "1day 24h 1d", "add them up"),
        ("offset", "-2days", "0days or later"),
        ("offset", "\u22122days", "0days or later"),
        ("offset", "1.5days", "smaller units"),
        ("offset", "0.3s", "smaller units"),
        ("offset", "2days-", "two ends"),
        ("offset", "2days-3days-4days", "two ends"),
        ("offset", "5days-2days", "shorter end first"),
        ("offset", "30days-1month", "shorter end first"),
        ("offset", "1month-30days", "shorter end first"),
        ("offset", "2days-5", "5days"),
        ("offset", "1day and", "2days"),
        ("offset", "1day,", "2days"),
        ("offset", "60years", "50 years"),
        ("offset", "99999999999999999999days", "50 years"),
        ("offset", "1day; drop", "2days"),
        ("offset", "P1D", "2days"),
        ("offset", "one day", "2days"),
        ("time", "10", "10:00"),
        ("time", "25:00", "00:00 to 24:00"),
        ("time", "10:60", "00:00 to 24:00"),
        ("time", "24:30", "00:00 to 24:00"),
        ("time", "24:00", "00:00"),
        ("time", "13pm", "1 to 12"),
        ("time", "10.00", "10:00"),
        ("time", "noon", "10:00"),
        ("time", "10:00-", "10:00-15:00"),
        ("time", "10:00-11:00-12:00", "10:00-15:00"),
        ("time", "10:00-10:00", "00:00-24:00"),
        ("time", "10a", "10:00"),
        ("days", "mo-fr", "mon-fri"),
        ("days", "fri-", "mon-fri"),
        ("days", "mon-wed-fri", "mon-fri"),
        ("days", "someday", "mon-fri"),
        ("excluded", "25.12.2026", "2026-12-25"),
        ("excluded", "2026-02-30", "2026-12-25"),
        ("excluded", "2026-12-26..2026-12-24", "the earlier first"),
        ("excluded", "2026-01-01..2036-01-01", "1000"),
        ("excluded", "20261225", "2026-12-25"),
    ],
)
def test_what_does_not_parse_is_refused_with_what_would_be_right(
    part: str, text: str, words: str
) -> None:
    texts = {"offset": "0days", part: text}
    with pytest.raises(BadInterval) as refused:
        parse(**texts)
    assert refused.value.part == part
    assert words in refused.value.reason


@pytest.mark.parametrize("given", [None, 2, 2.5, ["2days"], b"2days"])
def test_only_texts_are_read(given: object) -> None:
    with pytest.raises(BadInterval, match="not a text"):
        parse(given)  # type: ignore[arg-type]


def test_a_length_of_time_is_no_range() -> None:
    with pytest.raises(BadInterval, match="is a range"):
        parse_duration("1month-2months")


# Moments. The start and what is expected are local times of the zone.
BERLIN, NEW_YORK, LONDON = "Europe/Berlin", "America/New_York", "Europe/London"
SYDNEY, LORD_HOWE, SANTIAGO = "Australia/Sydney", "Australia/Lord_Howe", "America/Santiago"


@pytest.mark.parametrize(
    ("zone", "start", "offset", "at", "expected"),
    [
        # The rule, as the issue states it. 23 November 2026 is a Monday.
        (BERLIN, "2026-11-23 14:02", "2days", "10:00", "2026-11-25 10:00"),
        (BERLIN, "2026-11-23 14:02", "0days", "10:00", "2026-11-24 10:00"),
        (BERLIN, "2026-11-23 09:15", "2hours", "10:00", "2026-11-24 10:00"),
        (BERLIN, "2026-11-23 09:15", "0days", "", "2026-11-23 09:15"),
        (BERLIN, "2026-11-23 09:15", "0days", "10:00", "2026-11-23 10:00"),
        (BERLIN, "2026-11-23 10:00", "0days", "10:00", "2026-11-23 10:00"),
        (BERLIN, "2026-11-23 10:00:01", "0days", "10:00", "2026-11-24 10:00"),
        (BERLIN, "2026-11-23 09:15", "30min", "10:00", "2026-11-23 10:00"),
        (BERLIN, "2026-11-23 09:15", "1day 2hours", "10:00", "2026-11-24 10:00"),
        (BERLIN, "2026-11-23 09:15", "1day 20hours", "10:00", "2026-11-25 10:00"),
        (BERLIN, "2026-11-23 23:30", "1hour", "10:00", "2026-11-24 10:00"),
        (BERLIN, "2026-11-23 23:30", "1hour", "00:15", "2026-11-25 00:15"),
        (BERLIN, "2026-11-23 09:15", "1day 2hours 25minutes", "", "2026-11-24 11:40"),
        (BERLIN, "2026-11-23 09:15", "2w", "", "2026-12-07 09:15"),
        (BERLIN, "2026-11-23 00:00", "1day", "00:00", "2026-11-24 00:00"),
        (BERLIN, "2026-12-31 23:59", "1day", "", "2027-01-01 23:59"),
        # Month ends clamp.
        (BERLIN, "2027-01-31 12:00", "1month", "", "2027-02-28 12:00"),
        (BERLIN, "2027-01-30 12:00", "1month", "", "2027-02-28 12:00"),
        (BERLIN, "2027-01-28 12:00", "1month", "", "2027-02-28 12:00"),
        (BERLIN, "2027-01-31 12:00", "2months", "", "2027-03-31 12:00"),
        (BERLIN, "2027-01-31 12:00", "3months", "10:00", "2027-04-30 10:00"),
        (BERLIN, "2026-12-31 12:00", "2months", "", "2027-02-28 12:00"),
        (BERLIN, "2027-01-31 12:00", "1month 1day", "", "2027-03-01 12:00"),
        (BERLIN, "2026-10-31 12:00", "13months", "", "2027-11-30 12:00"),
        (BERLIN, "2026-11-30 12:00", "1month", "", "2026-12-30 12:00"),
        # Leap days.
        (BERLIN, "2028-01-31 12:00", "1month", "", "2028-02-29 12:00"),
        (BERLIN, "2028-02-28 12:00", "1day", "", "2028-02-29 12:00"),
        (BERLIN, "2028-02-29 12:00", "1year", "", "2029-02-28 12:00"),
        (BERLIN, "2028-02-29 12:00", "4years", "", "2032-02-29 12:00"),
        (BERLIN, "2027-02-28 12:00", "1year", "", "2028-02-28 12:00"),
        (BERLIN, "2100-01-31 12:00", "1month", "", "2100-02-28 12:00"),
        # Clocks go forward: a calendar day keeps the wall time, elapsed hours are elapsed.
        (BERLIN, "2027-03-27 10:00", "1day", "", "2027-03-28 10:00"),
        (BERLIN, "2027-03-27 10:00", "24hours", "", "2027-03-28 11:00"),
        (BERLIN, "2027-03-27 02:30", "1day", "", "2027-03-28 03:00"),
        (BERLIN, "2027-03-27 12:00", "1day", "02:30", "2027-03-28 03:00"),
        (BERLIN, "2027-03-28 01:30", "1hour", "", "2027-03-28 03:30"),
        (NEW_YORK, "2027-03-13 10:00", "1day", "", "2027-03-14 10:00"),
        (NEW_YORK, "2027-03-13 10:00", "24hours", "", "2027-03-14 11:00"),
        (NEW_YORK, "2027-03-13 12:00", "1day", "02:15", "2027-03-14 03:00"),
        (LONDON, "2027-03-27 12:00", "1day", "01:30", "2027-03-28 02:00"),
        (LONDON, "2027-03-27 10:00", "24h", "", "2027-03-28 11:00"),
        (SYDNEY, "2026-10-03 12:00", "1day", "02:30", "2026-10-04 03:00"),
        (SYDNEY, "2026-10-03 10:00", "24h", "", "2026-10-04 11:00"),
        (LORD_HOWE, "2026-10-03 12:00", "1day", "02:15", "2026-10-04 02:30"),
        (LORD_HOWE, "2026-10-03 10:00", "24h", "", "2026-10-04 10:30"),
        (SANTIAGO, "2026-09-05 12:00", "1day", "00:30", "2026-09-06 01:00"),
        (SANTIAGO, "2026-09-05 10:00", "24h", "", "2026-09-06 11:00"),
        # Clocks go back: the first of the two.
        (BERLIN, "2026-10-24 10:00", "1day", "", "2026-10-25 10:00"),
        (BERLIN, "2026-10-24 10:00", "24hours", "", "2026-10-25 09:00"),
        (BERLIN, "2026-10-24 12:00", "1day", "02:30", "2026-10-25 02:30"),
        (BERLIN, "2026-10-24 12:00", "1day 1hour", "", "2026-10-25 13:00"),
        (NEW_YORK, "2026-10-31 12:00", "1day", "01:30", "2026-11-01 01:30"),
        (NEW_YORK, "2026-10-31 12:00", "24h", "", "2026-11-01 11:00"),
        (LONDON, "2026-10-24 12:00", "1day", "01:30", "2026-10-25 01:30"),
        (LONDON, "2026-10-24 12:00", "24h", "", "2026-10-25 11:00"),
        (SYDNEY, "2027-04-03 12:00", "1day", "02:30", "2027-04-04 02:30"),
        (SYDNEY, "2027-04-03 12:00", "24h", "", "2027-04-04 11:00"),
        (LORD_HOWE, "2027-04-03 12:00", "1day", "01:45", "2027-04-04 01:45"),
        (LORD_HOWE, "2027-04-03 12:00", "24h", "", "2027-04-04 11:30"),
        (SANTIAGO, "2027-04-02 12:00", "1day", "23:30", "2027-04-03 23:30"),
        (SANTIAGO, "2027-04-03 12:00", "24h", "", "2027-04-04 11:00"),
        # Other zones have other days.
        ("Pacific/Kiritimati", "2026-11-23 23:00", "1day", "10:00", "2026-11-24 10:00"),
        ("Asia/Kathmandu", "2026-11-23 23:59", "2days", "", "2026-11-25 23:59"),
        ("UTC", "2026-11-23 14:02", "4days", "10:00", "2026-11-27 10:00"),
    ],
)
def test_moments(zone: str, start: str, offset: str, at: str, expected: str) -> None:
    there = ZoneInfo(zone)
    began = datetime.fromisoformat(start).replace(tzinfo=there)
    found = due_at(parse(offset, at), began, there, JANE)
    assert found == datetime.fromisoformat(expected).replace(tzinfo=there).astimezone(UTC)
    assert found.tzinfo is UTC


def test_nothing_falls_before_a_start_in_the_second_of_two_equal_hours() -> None:
    began = moment("2026-10-25 01:30")  # 02:30 in Berlin, for the second time
    zone = ZoneInfo(BERLIN)
    assert due_at(parse("0days"), began, zone, JANE) == began
    assert due_at(parse("0days", "02:30"), began, zone, JANE) == moment("2026-10-26 01:30")
    assert due_at(parse("30min"), began, zone, JANE) == moment("2026-10-25 02:00")


@pytest.mark.parametrize(
    ("start", "offset", "at", "days", "excluded", "expected"),
    [
        # 27 November 2026 is a Friday.
        ("2026-11-27 12:00", "1day", "10:00", "mon-fri", "", "2026-11-30 10:00"),
        ("2026-11-27 12:00", "0days", "10:00", "mon-fri", "", "2026-11-30 10:00"),
        ("2026-11-27 09:00", "0days", "10:00", "mon-fri", "", "2026-11-27 10:00"),
        ("2026-11-27 12:00", "1day", "", "mon-fri", "", "2026-11-30 12:00"),
        ("2026-11-27 12:00", "3hours", "", "sat", "", "2026-11-28 15:00"),
        ("2026-11-27 12:00", "1day", "10:00", "wed", "", "2026-12-02 10:00"),
        ("2026-11-27 12:00", "1day", "10:00", "", "2026-11-28", "2026-11-29 10:00"),
        ("2026-11-27 12:00", "1day", "", "", "2026-11-28..2026-11-30", "2026-12-01 12:00"),
        ("2026-12-23 12:00", "1day", "10:00", "mon-fri", "2026-12-24..2027-01-01",
         "2027-01-04 10:00"),
        ("2026-11-27 12:00", "0days", "", "mon-fri", "2026-11-27", "2026-11-30 12:00"),
    ],
)  # fmt: skip
def test_days_that_are_not_allowed_pass_it_on(
    start: str, offset: str, at: str, days: str, excluded: str, expected: str
) -> None:
    zone = ZoneInfo(BERLIN)
    began = datetime.fromisoformat(start).replace(tzinfo=zone)
    found = due_at(parse(offset, at, days, excluded), began, zone, JANE)
    assert found == datetime.fromisoformat(expected).replace(tzinfo=zone)


@pytest.mark.parametrize(
    ("zone", "start", "offset", "at", "low", "high"),
    [
        (BERLIN, "2026-11-23 08:00", "0days", "10:00-15:00", "2026-11-23 10:00",
         "2026-11-23 15:00"),
        (BERLIN, "2026-11-23 08:00", "2days", "09:30-10:15", "2026-11-25 09:30",
         "2026-11-25 10:15"),
        (BERLIN, "2026-11-23 08:00", "1day", "22:00-02:00", "2026-11-24 22:00", "2026-11-25 02:00"),
        (BERLIN, "2026-11-23 08:00", "1day", "00:00-24:00", "2026-11-24 00:00", "2026-11-25 00:00"),
        # A window that is an hour longer, one that is shorter, one that is not there at all.
        (BERLIN, "2026-10-24 08:00", "1day", "01:00-04:00", "2026-10-25 01:00", "2026-10-25 04:00"),
        (BERLIN, "2027-03-27 08:00", "1day", "01:00-04:00", "2027-03-28 01:00", "2027-03-28 04:00"),
        (BERLIN, "2027-03-27 08:00", "1day", "02:10-02:50", "2027-03-28 03:00", "2027-03-28 03:00"),
        (NEW_YORK, "2026-10-31 08:00", "1day", "01:00-02:00", "2026-11-01 01:00",
         "2026-11-01 02:00"),
        (BERLIN, "2026-11-23 08:00", "1hour-3hours", "", "2026-11-23 09:00", "2026-11-23 11:00"),
        (BERLIN, "2026-11-23 08:00", "2days-5days", "", "2026-11-25 08:00", "2026-11-28 08:00"),
        (BERLIN, "2027-01-31 08:00", "1month-2months", "", "2027-02-28 08:00", "2027-03-31 08:00"),
        (BERLIN, "2026-11-23 08:00", "12hours-2days", "", "2026-11-23 20:00", "2026-11-25 08:00"),
    ],
)  # fmt: skip
def test_draws_lie_inside_and_reach_the_whole(
    zone: str, start: str, offset: str, at: str, low: str, high: str
) -> None:
    there = ZoneInfo(zone)
    began, first, last = (
        datetime.fromisoformat(text).replace(tzinfo=there).astimezone(UTC)
        for text in (start, low, high)
    )
    found = [due_at(parse(offset, at), began, there, seed) for seed in seeds(600)]
    assert first <= min(found) <= max(found) <= last
    assert min(found) <= first + (last - first) * 0.02
    assert max(found) >= last - (last - first) * 0.02


@pytest.mark.parametrize(
    ("start", "offset", "at", "days", "expected"),
    [
        ("2026-11-23 08:00", "2days-5days", "10:00", "", "25 26 27 28"),
        ("2026-11-23 14:02", "0days-3days", "10:00", "", "24 25 26"),
        ("2026-11-23 08:00", "0days-3days", "10:00", "", "23 24 25 26"),
        ("2026-11-26 08:00", "0days-4days", "10:00", "mon-fri", "26 27 30"),
        ("2026-11-27 08:00", "1day-2days", "10:00", "mon-fri", "30"),
        ("2026-11-23 08:00", "2days-5days", "10:00-11:00", "", "25 26 27 28"),
    ],
)
def test_a_range_of_days_falls_on_each_of_its_days_as_often(
    start: str, offset: str, at: str, days: str, expected: str
) -> None:
    zone = ZoneInfo(BERLIN)
    began = datetime.fromisoformat(start).replace(tzinfo=zone)
    interval = parse(offset, at, days)
    drawn = Counter(
        due_at(interval, began, zone, seed).astimezone(zone).day for seed in seeds(1500)
    )
    wanted = [int(day) for day in expected.split()]
    assert sorted(drawn) == wanted
    mean = 1500 / len(wanted)
    assert all(abs(count - mean) < mean * 0.2 for count in drawn.values())


def test_the_second_of_a_window_is_drawn_before_its_day() -> None:
    """Begun in the middle of the window: the rest of it today, what has passed tomorrow."""
    zone = ZoneInfo(BERLIN)
    began = datetime(2026, 11, 23, 12, 30, tzinfo=zone)
    found = [due_at(parse("0days", "10:00-15:00"), began, zone, seed) for seed in seeds(2000)]
    today = [one for one in found if one.astimezone(zone).day == 23]
    tomorrow = [one for one in found if one.astimezone(zone).day == 24]
    assert len(today) + len(tomorrow) == 2000
    assert min(today) >= began
    assert max(tomorrow).astimezone(zone).time() < time(12, 30)
    assert abs(len(today) - 1000) < 120


def test_draws_do_not_change_from_one_release_to_the_next() -> None:
    """These very numbers are in databases: a change here would move what people were promised."""
    assert [JANE.draw("time", 86401), JANE.draw("offset", 1000)] == [539, 20]


def test_parts_of_a_seed_are_kept_apart() -> None:
    one = Seed("shop", "a", "bc", 1, "x", 1)
    other = Seed("shop", "ab", "c", 1, "x", 1)
    assert one.draw("time", 2**60) != other.draw("time", 2**60)


def test_a_repetition_is_counted_from_the_start_each_time() -> None:
    began = moment("2027-01-31 09:00")
    monthly = [
        due_at(
            parse("0days").later(Duration(months=1) * number), began, ZoneInfo("UTC"), JANE
        ).date()
        for number in range(4)
    ]
    assert [str(day) for day in monthly] == ["2027-01-31", "2027-02-28", "2027-03-31", "2027-04-30"]


# What holds for every interval.

ZONES = (BERLIN, NEW_YORK, LONDON, SYDNEY, LORD_HOWE, SANTIAGO, "UTC", "Pacific/Apia")
durations = st.builds(
    Duration,
    months=st.integers(0, 14),
    days=st.integers(0, 40),
    seconds=st.integers(0, 3 * DAY),
)
spans = st.tuples(durations, durations).map(lambda two: Span(two[0], two[0] + two[1])) | (
    durations.map(lambda one: Span(one, one))
)
windows = st.none() | st.tuples(st.integers(0, DAY - 1), st.integers(0, DAY)).map(
    lambda two: Window(two[0], two[0] + two[1])
)
intervals = st.builds(
    Interval,
    offset=spans,
    window=windows,
    days=st.frozensets(st.integers(0, 6), min_size=1),
    excluded=st.frozensets(st.dates(date(2026, 1, 1), date(2028, 12, 31)), max_size=5),
)
starts = st.datetimes(datetime(2026, 1, 1), datetime(2029, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
zones = st.sampled_from(ZONES).map(ZoneInfo)
anyone = st.builds(
    Seed, st.text(), st.text(), st.text(), st.integers(1, 9), st.text(), st.integers(1, 9)
)


@given(intervals, starts, zones, anyone)
@settings(max_examples=300, deadline=None)
def test_never_before_the_start_and_always_the_same(
    interval: Interval, start: datetime, zone: ZoneInfo, seed: Seed
) -> None:
    found = due_at(interval, start, zone, seed)
    assert found >= start
    assert found >= start + timedelta(seconds=interval.offset.low.seconds)
    assert due_at(interval, start.astimezone(zone), zone, seed) == found


@given(intervals, starts, zones, anyone)
@settings(max_examples=300, deadline=None)
def test_inside_the_window_on_an_allowed_day(
    interval: Interval, start: datetime, zone: ZoneInfo, seed: Seed
) -> None:
    found = due_at(interval, start, zone, seed)
    shown = found.astimezone(zone)
    window = interval.window
    if window is None:
        # A wall time in a gap at midnight may only be reached at the gap's end.
        assert interval.allows(shown.date()) or shown.date() != start.astimezone(zone).date()
        return
    opened = [shown.date() - timedelta(days=number) for number in range(3)]
    assert any(
        interval.allows(day) and _opens(day, window.opens, zone) <= found
        and found <= max(_opens(day, window.closes, zone), _opens(day, window.opens, zone))
        for day in opened
    )  # fmt: skip


def _opens(day: date, seconds: int, zone: ZoneInfo) -> datetime:
    from mcs.core.walltime import instant

    days, seconds = divmod(seconds, DAY)
    at = time(seconds // 3600, seconds // 60 % 60, seconds % 60)
    return instant(day + timedelta(days=days), at, zone)


@given(durations, starts, zones)
@settings(max_examples=200, deadline=None)
def test_a_longer_duration_is_never_earlier(
    duration: Duration, start: datetime, zone: ZoneInfo
) -> None:
    assert add(duration + Duration(seconds=60), start, zone) > add(duration, start, zone)
    assert add(duration, start, zone) >= start


@pytest.mark.parametrize("choices", [2, 7, 100, 86401])
def test_draws_are_uniform(choices: int) -> None:
    """By chi-squared over ten cells; the draws are fixed, so this passes always or never."""
    cells = [0] * 10
    number = 20000
    for seed in seeds(number):
        cells[seed.draw("time", choices) * 10 // choices] += 1
    used = [
        sum(1 for value in range(choices) if value * 10 // choices == cell) / choices
        if choices <= 100
        else 0.1
        for cell in range(10)
    ]
    chi = sum(
        (count - number * share) ** 2 / (number * share)
        for count, share in zip(cells, used, strict=True)
        if share
    )
    assert chi < 27.9  # 9 degrees of freedom, p = 0.001


@given(st.text(max_size=30))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    for part in ("offset", "time", "days", "excluded"):
        try:
            parse(**({"offset": "0days"} | {part: text}))
        except BadInterval as refused:
            assert refused.part == part
            assert ": " in refused.reason
