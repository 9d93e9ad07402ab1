"""How MCS says dates, times, zones and numbers: plain words, the same on every page."""

import re
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

_ERRORS_CLASS = re.compile(r"^(?:\w+\.)*[A-Z]\w*: ")


def day(value: date, year: int | None = None) -> str:
    """``Tue 24 Nov``; with the year where it is not ``year``: ``Tue 24 Nov 2026``."""
    words = f"{value:%a} {value.day} {value:%b}"
    return words if year == value.year else f"{words} {value.year}"


def city(zone: str) -> str:
    """The city of an IANA zone, as people name a time zone: ``Berlin``, ``New York``, ``UTC``."""
    return zone.rsplit("/", 1)[-1].replace("_", " ")


def moment(at: datetime, zone: ZoneInfo, year: int | None = None) -> str:
    """An instant as the zone's clock shows it: ``Tue 24 Nov, 10:00 Berlin``."""
    local = at.astimezone(zone)
    return wall(local.date(), local.time(), zone.key, year)


def wall(on: date, at: time, zone: str, year: int | None = None) -> str:
    """A wall time in its zone: ``Tue 24 Nov, 10:00 Berlin``."""
    return f"{day(on, year)}, {at:%H:%M} {city(zone)}"


def instant(at: datetime) -> str:
    """An instant for programs: RFC 3339 in UTC, ``2026-11-24T09:00:00Z``."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def state(word: str) -> str:
    """A state as it is shown: ``in_doubt`` -> ``In doubt``."""
    return word.replace("_", " ").capitalize()


def number(value: int) -> str:
    """``2254`` -> ``2,254``."""
    return f"{value:,}"


def count(value: int, one: str, many: str | None = None) -> str:
    """``1 email``, ``2,254 emails``."""
    return f"{value:,} {one if value == 1 else many or one + 's'}"


def sentence(text: str) -> str:
    """The text with the full stop that ends it, where no mark of its own does: ``Shop, Ltd.``."""
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def rate(per_second: float) -> str:
    """``1,200 a minute``; where that would be none, ``12 an hour``."""
    a_minute = round(per_second * 60)
    return f"{a_minute:,} a minute" if a_minute else f"{round(per_second * 3600):,} an hour"


def span(length: timedelta) -> str:
    """How long, in the largest two units: ``2 seconds``, ``1 minute 5 seconds``, ``3 days``."""
    seconds = int(abs(length).total_seconds())
    words = []
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        amount, seconds = divmod(seconds, size)
        if amount:
            words.append(count(amount, unit))
    return " ".join(words[:2]) or "less than a second"


def from_now(at: datetime, now: datetime) -> str:
    """``in 2 hours 5 minutes``, ``3 days ago``, ``now``."""
    if abs(at - now) < timedelta(seconds=1):
        return "now"
    return f"in {span(at - now)}" if at > now else f"{span(now - at)} ago"


def error(kept: str) -> str:
    """The last line of an error that was kept, without the name of the exception's class."""
    lines = kept.strip().splitlines() or ["It failed without a word"]
    return _ERRORS_CLASS.sub("", lines[-1])


def cut(said: str, longest: int) -> str:
    """What somebody else said as a sentence among others, of so many characters at most."""
    said = " ".join(said.split())
    whole = sentence(said)
    return whole if len(whole) <= longest else f"{said[: longest - 1].rstrip()}…"
