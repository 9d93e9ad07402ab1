"""What several pages need alike: ids in addresses, places in lists, who is signed in."""

from datetime import date, time
from typing import Any, cast

from flask import current_app, request
from wtforms import DateField, FloatField, StringField, TextAreaField, TimeField

from mcs.config import Settings
from mcs.gateways.jobqueue import JobQueue
from mcs.services.paging import At
from mcs.web.forms import trimmed, typed

# The largest number the databases can keep in an id: above it there is nothing to be found.
LARGEST_ID = 2**31 - 1
LARGEST_BIG_ID = 2**63 - 1  # Of a delivery.
YEARS = range(2000, 2201)


def id_in(rule: str) -> str:
    """``/scenarios/{scenario_id}`` as a rule that takes only what can be an id."""
    before, _, rest = rule.partition("{")
    name, _, after = rest.partition("}")
    return f"{before}<int(max={LARGEST_ID}):{name}>{after}" if name else rule


def settings() -> Settings:
    return cast(Settings, current_app.config["SETTINGS"])


def queue() -> JobQueue:
    return cast(JobQueue, current_app.extensions["jobqueue"])


def place() -> At:
    """The place in a list that the address names."""
    return At(request.args.get("after", ""), request.args.get("before", ""))


def word(name: str, known: tuple[str, ...]) -> str:
    """A filter's value from the address; anything unknown is no filter."""
    value = request.args.get(name, "")
    return value if value in known else ""


def id_asked(name: str) -> int | None:
    """An id from the address, or None."""
    value = request.args.get(name, type=int)
    return value if value is not None and 0 < value <= LARGEST_ID else None


def searched() -> str:
    """What was typed into the search box."""
    return trimmed(request.args.get("q"))[:200]


def by_htmx() -> bool:
    """Whether a part of a page was asked for, not a page."""
    return request.headers.get("HX-Request") == "true"


def line(label: str, *checks: Any) -> StringField:
    """A field of one line, trimmed."""
    return StringField(label, list(checks), filters=[trimmed], default="")


def lines(label: str, *checks: Any) -> TextAreaField:
    """A field of several lines that keeps its spaces; browsers' line breaks and NUL go."""
    return TextAreaField(label, list(checks), filters=[_as_typed], default="")


def _as_typed(value: str | None) -> str:
    return typed(value).replace("\r\n", "\n")


class Day(DateField):
    """A date, as browsers send it."""

    def process_formdata(self, valuelist: list[str]) -> None:
        text = " ".join(valuelist).strip()
        self.data = None
        if text:
            try:
                found = date.fromisoformat(text)
            except ValueError:
                raise ValueError("Write the date as year-month-day, such as 2026-11-24.") from None
            # At the ends of the calendar there are wall times that no instant belongs to.
            if found.year not in YEARS:
                raise ValueError("Check the year.")
            self.data = found


class Rate(FloatField):
    """Messages a second, or nothing for no limit."""

    def process_formdata(self, valuelist: list[str]) -> None:
        text = " ".join(valuelist).strip()
        self.data = None
        if text:
            try:
                self.data = float(text.replace(",", "."))
            except ValueError:
                raise ValueError("Write a number, such as 50 or 0.5.") from None


class TimeOfDay(TimeField):
    """A time of day to the minute."""

    def process_formdata(self, valuelist: list[str]) -> None:
        text = " ".join(valuelist).strip()
        self.data = None
        if text:
            try:
                found = time.fromisoformat(text)
            except ValueError:
                found = None
            if found is None or found.tzinfo is not None:
                raise ValueError("Write the time as hours:minutes, such as 09:30.")
            self.data = found.replace(second=0, microsecond=0)
