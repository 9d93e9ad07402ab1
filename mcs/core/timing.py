"""Timing: when a step of a sequence falls, said in plain words."""

from collections.abc import Mapping
from datetime import date

from mcs.core import words
from mcs.core.intervals import EVERY_DAY, Duration, Interval, Span, Window
from mcs.core.sequences import Definition, Repeat, action_id

_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_NAMED_DAYS = {
    frozenset(range(5)): "on weekdays only",
    frozenset((5, 6)): "at weekends only",
}
# More dates than these are told by their number.
_FEW = 3
_DAY_SECONDS = 86400


def said(one: Definition, *, upcoming: bool = False, names: Mapping[str, str] | None = None) -> str:
    """``2 days later, at 10:00, on weekdays only``; begins with a capital letter.

    In an ``upcoming`` campaign what would be at once waits for its first day. ``names`` are what
    people call the other steps, by their keys.
    """
    parts = [
        _offset(one, "when the campaign begins" if upcoming else "at once", names or {}),
        _window(one.interval.window),
        _days(one.interval),
        _excluded(one.interval),
        _repeat(one.repeat),
    ]
    text = ", ".join(part for part in parts if part)
    return text[:1].upper() + text[1:]


def length(duration: Duration) -> str:
    """``1 month 2 days 3 hours``; ``0 days`` for none."""
    years, months = divmod(duration.months, 12)
    hours, seconds = divmod(duration.seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    amounts = (
        (years, "year"),
        (months, "month"),
        (duration.days, "day"),
        (hours, "hour"),
        (minutes, "minute"),
        (seconds, "second"),
    )
    return " ".join(words.count(number, unit) for number, unit in amounts if number) or "0 days"


def reference(key: str, occurrence: int, names: Mapping[str, str]) -> str:
    """The action that a step comes after, by its step's name: ``“Email: Welcome”``, or the second
    of a repeating one ``“Email: Welcome” (2)``; by its id where it has no name."""
    if key not in names:
        return action_id(key, occurrence, bool(occurrence))
    return f"“{names[key]}”" + (f" ({occurrence})" if occurrence else "")


def _offset(one: Definition, at_once: str, names: Mapping[str, str]) -> str:
    span, window = one.interval.offset, one.interval.window
    parent = reference(*one.after, names) if one.after else ""
    if span == Span(Duration(), Duration()):
        if window is not None:
            return f"the next time of day after {parent}" if parent else "the next time of day"
        return f"right after {parent}" if parent else at_once
    how_long = length(span.low)
    if span.drawn:
        how_long = f"{how_long} to {length(span.high)}"
    return f"{how_long} after {parent}" if parent else f"{how_long} later"


def _window(window: Window | None) -> str:
    if window is None:
        return ""
    if not window.drawn:
        return f"at {_clock(window.opens)}"
    return f"between {_clock(window.opens)} and {_clock(window.closes)}"


def _clock(seconds: int) -> str:
    # A window may end at midnight, or on the day after.
    if seconds == _DAY_SECONDS:
        return "24:00"
    hours, rest = divmod(seconds % _DAY_SECONDS, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours:02}:{minutes:02}" + (f":{rest:02}" if rest else "")


def _days(interval: Interval) -> str:
    if interval.days == EVERY_DAY:
        return ""
    if interval.days in _NAMED_DAYS:
        return _NAMED_DAYS[interval.days]
    return f"on {_listed([_WEEKDAYS[day] for day in sorted(interval.days)])} only"


def _excluded(interval: Interval) -> str:
    left_out = sorted(interval.excluded)
    if not left_out:
        return ""
    if len(left_out) > _FEW:
        return f"not on {words.count(len(left_out), 'date')} left out"
    return f"not on {_listed([_date(day) for day in left_out])}"


def _repeat(repeat: Repeat | None) -> str:
    if repeat is None:
        return ""
    text = f"then every {length(repeat.every).removeprefix('1 ')}"
    if repeat.times is not None:
        text += f", {words.count(repeat.times, 'time')} in all"
    if repeat.until is not None:
        text += f", until {_date(repeat.until)}"
    return text


def _date(day: date) -> str:
    return f"{day.day} {day:%b %Y}"


def _listed(parts: list[str]) -> str:
    if len(parts) == 1:
        return parts[0]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
