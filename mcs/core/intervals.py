"""Intervals: when a step of a sequence falls, counted from the moment a subject began.

An interval is an offset (``2days``, ``1day 2hours``, ``2days-5days``), and if wished a time of day
(``10:00``) or a window (``22:00-02:00``), the weekdays it may fall on, and dates left out. What
does not parse is refused with BadInterval, whose words say what would be right.

The rule. Take the start's local date plus the calendar part (days, weeks, months, years; the end of
a month clamps), at the start's wall time; then add the elapsed part (hours and less). With a time,
it falls at that time on that local day, moved one day on only if that would be earlier than the
start plus the elapsed part. A day that is not allowed passes it on to the next one that is.
"""

import hashlib
import re
from calendar import monthrange
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as wall_time
from functools import lru_cache
from zoneinfo import ZoneInfo

from mcs.core.walltime import instant, local

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
EVERY_DAY = frozenset(range(7))
LONGEST_MONTHS = 12 * 50
LONGEST_DAYS = 366 * 50
LONGEST_SECONDS = LONGEST_DAYS * 86400
MOST_EXCLUDED = 1000

_MONTHS = {"months": 1, "years": 12}
_DAYS = {"days": 1, "weeks": 7}
_SECONDS = {"seconds": 1, "minutes": 60, "hours": 3600}
_SPELLINGS = {
    "seconds": "s sec secs second seconds",
    "minutes": "min mins minute minutes",
    "hours": "h hr hrs hour hours",
    "days": "d day days",
    "weeks": "w wk wks week weeks",
    "months": "mo mos mth mths month months",
    "years": "y yr yrs year years",
}
_UNITS = {word: unit for unit, words in _SPELLINGS.items() for word in words.split()}
_TERM = re.compile(r"(\d+(?:\.\d+)?)\s*([^\W\d_]*)")
_JOIN = re.compile(r"[\s,+&]*(?:and\b)?\s*")
_TO = re.compile(r"\s*[-\u2013\u2014]\s*|\s+to\s+")
_CLOCK = re.compile(r"(\d{1,2})(?::(\d{2}))?(?::(\d{2}))?\s*([ap])?\.?(m)?\.?")
_DATES = re.compile(r"(\S+?)(?:\s*(?:\.\.|/|\bto\b)\s*(\S+))?")
_OFFSET_ADVICE = "write a number and a unit, such as 2days, 1day 2hours, 30min or 2days-5days"
# As the pages say it.
_AT_ONCE = ("at once", "immediately", "now")
_TIME_ADVICE = "write a time such as 10:00, or a window such as 10:00-15:00"
_DAYS_ADVICE = "write days such as mon-fri, or mon,wed,fri"
_DATE_ADVICE = "write dates such as 2026-12-25, or 2026-12-24..2026-12-26"


class BadInterval(ValueError):
    """An interval that cannot be read. ``part`` is offset, time, days or excluded."""

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(reason)
        self.part, self.reason = part, reason


@dataclass(frozen=True)
class Duration:
    """A length of time: calendar months and days, then elapsed seconds."""

    months: int = 0
    days: int = 0
    seconds: int = 0

    def __add__(self, other: "Duration") -> "Duration":
        return Duration(
            self.months + other.months, self.days + other.days, self.seconds + other.seconds
        )

    def __mul__(self, times: int) -> "Duration":
        return Duration(self.months * times, self.days * times, self.seconds * times)


@dataclass(frozen=True)
class Span:
    """An offset, or a range of offsets with both ends included."""

    low: Duration
    high: Duration

    @property
    def drawn(self) -> bool:
        return self.low != self.high


@dataclass(frozen=True)
class Window:
    """Times of a day, in seconds after midnight, both ends included; past 86400: the next day."""

    opens: int
    closes: int

    @property
    def drawn(self) -> bool:
        return self.opens != self.closes


@dataclass(frozen=True)
class Interval:
    """A parsed interval: see the module's words for how it is counted."""

    offset: Span
    window: Window | None = None
    days: frozenset[int] = EVERY_DAY
    excluded: frozenset[date] = frozenset()

    @property
    def drawn(self) -> bool:
        """Whether it differs from subject to subject that began at the same instant."""
        return self.offset.drawn or (self.window is not None and self.window.drawn)

    def later(self, by: Duration) -> "Interval":
        """The same interval, its offset longer by a duration."""
        moved = Span(self.offset.low + by, self.offset.high + by)
        return Interval(moved, self.window, self.days, self.excluded)

    @property
    def limited(self) -> bool:
        """Whether there are days on which it does not fall."""
        return bool(self.excluded) or self.days != EVERY_DAY

    def allows(self, day: date) -> bool:
        return day.weekday() in self.days and day not in self.excluded


@dataclass(frozen=True)
class Seed:
    """What a draw hangs on, and nothing else does: the same seed draws the same for ever."""

    campaign: str
    subject: str
    subject_id: str
    run: int
    key: str
    occurrence: int

    def draw(self, purpose: str, choices: int) -> int:
        """A number from 0 to ``choices - 1``, uniform over seeds."""
        parts = (
            self.campaign,
            self.subject,
            self.subject_id,
            str(self.run),
            self.key,
            str(self.occurrence),
            purpose,
        )
        # Each part with its length, so that ("ab", "c") and ("a", "bc") are two seeds.
        text = "".join(f"{len(part)}:{part}" for part in parts)
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest) * choices >> 64


def parse(
    offset: str,
    time: str = "",
    days: str = "",
    excluded: str = "",
) -> Interval:
    """An interval from its four texts; an empty one but the offset means no limit.

    Raises BadInterval.
    """
    return _parse(
        _text("offset", offset, _OFFSET_ADVICE),
        _text("time", time, _TIME_ADVICE),
        _text("days", days, _DAYS_ADVICE),
        _text("excluded", excluded, _DATE_ADVICE),
    )


def parse_duration(text: str) -> Duration:
    """A fixed length of time, such as ``1month`` or ``1day 2hours``. Raises BadInterval."""
    span = _span(_text("offset", text, _OFFSET_ADVICE))
    if span.drawn:
        raise BadInterval("offset", f"{text!r} is a range: write one length, such as 1month")
    return span.low


def due_at(interval: Interval, start: datetime, zone: ZoneInfo, seed: Seed) -> datetime:
    """The instant (UTC) at which an interval from ``start`` falls; never before ``start``.

    A range or window is drawn uniformly over the whole of it, both ends included, to the second.
    A range of whole days with a time is drawn over its allowed days.
    """
    start = start.astimezone(UTC)
    if interval.window is None:
        return _without_time(interval, start, zone, seed)
    if _whole_days(interval.offset):
        return _on_a_drawn_day(interval, interval.window, start, zone, seed)
    reached, floor = _reached(interval.offset, start, zone, seed)
    first = local(reached, zone).date()
    return _first_on_or_after(interval, interval.window, first, floor, zone, seed)


def add(duration: Duration, start: datetime, zone: ZoneInfo) -> datetime:
    """The instant (UTC) a duration after another: the calendar part first, then the elapsed one."""
    begun = local(start, zone)
    if not duration.months and not duration.days:
        # The same wall time would be the first of two when clocks go back: maybe not ours.
        return start.astimezone(UTC) + timedelta(seconds=duration.seconds)
    moved = instant(_later_date(begun.date(), duration), begun.time(), zone)
    return moved + timedelta(seconds=duration.seconds)


# Computing.


def _without_time(interval: Interval, start: datetime, zone: ZoneInfo, seed: Seed) -> datetime:
    reached, _ = _reached(interval.offset, start, zone, seed)
    if not interval.limited:
        return reached
    shown = local(reached, zone)
    if interval.allows(shown.date()):
        return reached
    return instant(_next_allowed(interval, shown.date()), shown.time(), zone)


def _reached(span: Span, start: datetime, zone: ZoneInfo, seed: Seed) -> tuple[datetime, datetime]:
    """The drawn moment without regard to a time of day, and the earliest that a time may be."""
    low, elapsed = add(span.low, start, zone), span.low.seconds
    if not span.drawn:
        return low, start + timedelta(seconds=elapsed)
    high = add(span.high, start, zone)
    drawn = _drawn_second(low, high, seed, "offset")
    if (span.low.months, span.low.days) == (span.high.months, span.high.days):
        elapsed += int((drawn - low).total_seconds())
    return drawn, start + timedelta(seconds=elapsed)


def _whole_days(span: Span) -> bool:
    return span.drawn and not span.low.seconds and not span.high.seconds


def _on_a_drawn_day(
    interval: Interval, window: Window, start: datetime, zone: ZoneInfo, seed: Seed
) -> datetime:
    begun = local(start, zone).date()
    first, last = (_later_date(begun, end) for end in (interval.offset.low, interval.offset.high))
    if _moment_on(first, window, zone, seed) < start:
        first += timedelta(days=1)
    number = (last - first).days + 1
    allowed: Sequence[date] = _Dates(first, max(number, 0))
    if interval.days != EVERY_DAY or interval.excluded:
        allowed = [day for day in allowed if interval.allows(day)]
    if not allowed:
        return _first_on_or_after(interval, window, max(first, last), start, zone, seed)
    return _moment_on(allowed[seed.draw("offset", len(allowed))], window, zone, seed)


class _Dates(Sequence[date]):
    """So many days from a first one on, without making them all."""

    def __init__(self, first: date, number: int) -> None:
        self.first, self.number = first, number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, place: int) -> date:  # type: ignore[override]  # no slices of it are taken
        if not 0 <= place < self.number:
            raise IndexError(place)
        return self.first + timedelta(days=place)


def _first_on_or_after(
    interval: Interval,
    window: Window,
    day: date,
    floor: datetime,
    zone: ZoneInfo,
    seed: Seed,
) -> datetime:
    while not interval.allows(day) or _moment_on(day, window, zone, seed) < floor:
        day += timedelta(days=1)
    return _moment_on(day, window, zone, seed)


def _moment_on(day: date, window: Window, zone: ZoneInfo, seed: Seed) -> datetime:
    """The drawn moment of the window that opens on a day.

    Drawn between two instants: a window is longer or shorter on the day the clocks change.
    """
    opens = _at(day, window.opens, zone)
    if not window.drawn:
        return opens
    return _drawn_second(opens, _at(day, window.closes, zone), seed, "time")


@lru_cache(maxsize=4096)
def _at(day: date, seconds: int, zone: ZoneInfo) -> datetime:
    """Thousands who begin on the same day have it in common."""
    days, seconds = divmod(seconds, 86400)
    wall = wall_time(seconds // 3600, seconds // 60 % 60, seconds % 60)
    return instant(day + timedelta(days=days), wall, zone)


def _drawn_second(low: datetime, high: datetime, seed: Seed, purpose: str) -> datetime:
    seconds = int((high - low).total_seconds())
    if seconds <= 0:
        return low
    return low + timedelta(seconds=seed.draw(purpose, seconds + 1))


def _later_date(day: date, by: Duration) -> date:
    months = day.month - 1 + by.months
    year, month = day.year + months // 12, months % 12 + 1
    clamped = date(year, month, min(day.day, monthrange(year, month)[1]))
    return clamped + timedelta(days=by.days)


def _next_allowed(interval: Interval, day: date) -> date:
    while not interval.allows(day):
        day += timedelta(days=1)
    return day


# Reading.


@lru_cache(maxsize=4096)
def _parse(offset: str, time: str, days: str, excluded: str) -> Interval:
    return Interval(
        _span(offset),
        _window(time) if time else None,
        _weekdays(days) if days else EVERY_DAY,
        _excluded(excluded) if excluded else frozenset(),
    )


def _text(part: str, given: object, advice: str) -> str:
    if not isinstance(given, str):
        raise BadInterval(part, f"{given!r} is not a text: {advice}")
    return given.strip().lower()


def _span(text: str) -> Span:
    if text in _AT_ONCE:
        return Span(Duration(), Duration())
    if not text:
        raise BadInterval("offset", f"the offset is empty: {_OFFSET_ADVICE}, or 0days for at once")
    if text[0] in "-\u2212\u2013":
        raise BadInterval("offset", f"{text!r} lies in the past: an offset is 0days or later")
    low_text, *rest = _TO.split(text)
    if not rest:
        length = _duration(low_text, text)
        return Span(length, length)
    if len(rest) > 1 or not low_text or not rest[0]:
        raise BadInterval("offset", f"{text!r} is no range: write its two ends, as in 2days-5days")
    high = _duration(rest[0], text)
    low = _duration(_with_unit(low_text, rest[0]), text)
    if _disordered(low, high):
        raise BadInterval(
            "offset", f"{text!r} may end before it begins: write the shorter end first"
        )
    return Span(low, high)


def _disordered(low: Duration, high: Duration) -> bool:
    """Whether the low end may come after the high one: 30days-1month does, in February."""
    months = high.months - low.months
    # A month more is 28 days or longer; a month less takes 31 at most.
    days = high.days - low.days + months * (28 if months >= 0 else 31)
    return days * 86400 + high.seconds - low.seconds < 0


def _with_unit(low: str, high: str) -> str:
    """``2`` of ``2-5days`` means days too, where the other end has one unit only."""
    terms = _TERM.findall(high)
    return f"{low}{terms[0][1]}" if low.replace(".", "").isdigit() and len(terms) == 1 else low


def _duration(text: str, whole: str) -> Duration:
    counts: dict[str, float] = {}
    place = 0
    while place < len(text):
        term = _TERM.match(text, place)
        if term is None:
            raise BadInterval("offset", f"{whole!r} cannot be read: {_OFFSET_ADVICE}")
        unit = _unit(term[2], term[1], whole)
        if unit in counts:
            raise BadInterval("offset", f"{whole!r} names {unit} twice: add them up")
        counts[unit] = _count(term[1], unit, whole)
        joined = _JOIN.match(text, term.end())
        place = joined.end() if joined else term.end()
    if not text[-1:].isalpha() or text.endswith("and"):
        raise BadInterval("offset", f"{whole!r} ends in the middle: {_OFFSET_ADVICE}")
    return _total(counts, whole)


def _unit(word: str, number: str, whole: str) -> str:
    if not word:
        raise BadInterval("offset", f"{whole!r} has no unit: write {number}days or {number}hours")
    if word == "m":
        raise BadInterval(
            "offset",
            f"{whole!r}: m could be minutes or months: write {number}min or {number}months",
        )
    if word not in _UNITS:
        raise BadInterval(
            "offset",
            f"{word!r} in {whole!r} is no unit: use seconds, minutes, hours, days, weeks, months"
            " or years",
        )
    return _UNITS[word]


def _count(number: str, unit: str, whole: str) -> float:
    if "." not in number:
        return int(number) if len(number) <= 12 else LONGEST_SECONDS + 1
    seconds = float(number) * _SECONDS.get(unit, 0)
    if unit not in _SECONDS or not seconds.is_integer():
        raise BadInterval(
            "offset", f"{whole!r}: {number} {unit} is not whole: write it in smaller units"
        )
    return float(number)


def _total(counts: dict[str, float], whole: str) -> Duration:
    def sum_of(units: dict[str, int]) -> int:
        return round(sum(counts.get(unit, 0) * size for unit, size in units.items()))

    length = Duration(sum_of(_MONTHS), sum_of(_DAYS), sum_of(_SECONDS))
    if (
        length.months > LONGEST_MONTHS
        or length.days > LONGEST_DAYS
        or length.seconds > LONGEST_SECONDS
    ):
        raise BadInterval("offset", f"{whole!r} is too long: use 50 years at most")
    return length


def _window(text: str) -> Window:
    parts = _TO.split(text)
    if len(parts) > 2 or not all(parts):
        raise BadInterval("time", f"{text!r} is no time: {_TIME_ADVICE}")
    opens = _clock(parts[0], text)
    if opens == 86400:
        raise BadInterval("time", f"{text!r}: a day ends at 24:00 and begins at 00:00: write 00:00")
    if len(parts) == 1:
        return Window(opens, opens)
    closes = _clock(parts[1], text)
    if closes == opens:
        raise BadInterval(
            "time", f"{text!r} is no window: write one time, or 00:00-24:00 for the whole day"
        )
    return Window(opens, closes if closes > opens else closes + 86400)


def _clock(text: str, whole: str) -> int:
    found = _CLOCK.fullmatch(text)
    if found is None or (found[4] is None) != (found[5] is None):
        raise BadInterval("time", f"{whole!r} is no time: {_TIME_ADVICE}")
    hour, minute, second = (int(found[place] or 0) for place in (1, 2, 3))
    if found[4]:
        if not 1 <= hour <= 12:
            raise BadInterval("time", f"{whole!r} is no time: before am and pm, hours are 1 to 12")
        hour = hour % 12 + (12 if found[4] == "p" else 0)
    elif found[2] is None:
        raise BadInterval("time", f"{whole!r} has no minutes: write {hour}:00")
    if hour > 24 or minute > 59 or second > 59 or (hour == 24 and (minute or second)):
        raise BadInterval("time", f"{whole!r} is no time of a day: use 00:00 to 24:00")
    return hour * 3600 + minute * 60 + second


def _weekdays(text: str) -> frozenset[int]:
    named: set[int] = set()
    for part in re.split(r"\s*(?:,|;|\band\b)\s*|(?<![-\u2013\s])\s+(?![-\u2013\s])", _tight(text)):
        named |= _weekday_range(part, text)
    return frozenset(named)


def _tight(text: str) -> str:
    return _TO.sub("-", text)


def _weekday_range(part: str, whole: str) -> set[int]:
    plain = {"weekdays": range(5), "weekends": range(5, 7), "weekend": range(5, 7)}
    if part in plain:
        return set(plain[part])
    ends = [_weekday(word, whole) for word in part.split("-")]
    if len(ends) > 2:
        raise BadInterval("days", f"{whole!r} cannot be read: {_DAYS_ADVICE}")
    length = (ends[-1] - ends[0]) % 7
    return {(ends[0] + number) % 7 for number in range(length + 1)}


def _weekday(word: str, whole: str) -> int:
    names = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    matching = [place for place, name in enumerate(names) if len(word) > 2 and _names(word, name)]
    if len(matching) != 1:
        raise BadInterval("days", f"{word!r} in {whole!r} is no weekday: {_DAYS_ADVICE}")
    return matching[0]


def _names(word: str, name: str) -> bool:
    # tues, thur and thurs are as common as tue and thu; mondays is as good as monday.
    return name.startswith(word) or word == f"{name}s"


def _excluded(text: str) -> frozenset[date]:
    days: set[date] = set()
    for part in re.split(r"\s*[,;]\s*", text):
        days |= set(_date_range(part))
        if len(days) > MOST_EXCLUDED:
            raise BadInterval(
                "excluded", f"more than {MOST_EXCLUDED} dates are left out: end the sequence sooner"
            )
    return frozenset(days)


def _date_range(part: str) -> Iterable[date]:
    found = _DATES.fullmatch(part)
    if found is None:
        raise BadInterval("excluded", f"{part!r} is no date: {_DATE_ADVICE}")
    first = _date(found[1], part)
    last = _date(found[2], part) if found[2] else first
    if last < first:
        raise BadInterval("excluded", f"{part!r} ends before it begins: write the earlier first")
    return _Dates(first, min((last - first).days + 1, MOST_EXCLUDED + 1))


def _date(text: str, whole: str) -> date:
    try:
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise BadInterval("excluded", f"{whole!r} is no date: {_DATE_ADVICE}") from None


def weekday_names(days: Collection[int]) -> str:
    """Weekdays in words that ``parse`` reads: ``mon,wed,fri``."""
    return ",".join(DAYS[day] for day in sorted(days))
