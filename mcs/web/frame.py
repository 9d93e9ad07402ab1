"""What every template may use: numbers, times, the way around, addresses of static files."""

import hashlib
from collections.abc import Iterable
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from flask import Flask, current_app, request
from markupsafe import Markup

from mcs.core import words
from mcs.services.tallies import Period

THEME_COOKIE = "mcs_theme"
THEMES = ("light", "dark")

MOMENTS = {
    "long": "%a %-d %b %Y, %H:%M",
    "short": "%a %-d %b, %H:%M",
    "time": "%H:%M",
    "date": "%-d %b %Y",
}

DATES = {"long": "%a %-d %b %Y", "weekday": "%a %-d %b", "date": "%-d %b %Y", "short": "%-d %b"}

# Address, label, icon, and the blueprints whose pages belong to it.
NAVIGATION: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("/", "Home", "home", ("home",)),
    (
        "/campaigns/",
        "Campaigns",
        "speakerphone",
        ("campaigns", "deliveries", "imports", "sequences", "steps", "subjects"),
    ),
    ("/scenarios/", "Scenarios", "mail", ("scenarios", "emailers")),
    ("/contacts/", "Contacts", "address-book", ("contacts",)),
)
MAILBOX = ("/mailbox/", "Mailbox", "inbox", ("mailbox",))


def init_app(app: Flask) -> None:
    """Give the templates their filters and globals."""
    app.jinja_env.filters.update(
        number=number,
        plural=words.count,
        error_words=words.error,
        moment=moment,
        period=period,
        sentence=words.sentence,
        day=words.day,
        date_of=date_of,
        city=words.city,
        state=words.state,
    )
    app.jinja_env.globals.update(
        theme=theme, navigation=navigation, static_url=static_url, with_query=with_query, zone=zone
    )
    app.context_processor(lambda: {"noun": request.blueprint or ""})


def number(value: int | None) -> str:
    """2310 as ``2,310``; nothing known as a dash."""
    return "–" if value is None else words.number(value)


def moment(instant: datetime | None, zone: str | ZoneInfo, form: str = "long") -> Markup:
    """An instant as a ``<time>`` in a zone that it names: ``Tue 24 Nov 2026, 10:00 Berlin``.

    Forms: ``long``; ``short`` without the year; ``time`` and ``date`` for one half of it.
    """
    if instant is None:
        return Markup("–")
    city = Markup(' <span class="zone">{}</span>').format(words.city(str(zone)))
    return _time(instant, zone, form, "" if form == "date" else city)


def period(moments: Period, zone: str | ZoneInfo) -> Markup:
    """From the first to the last of some moments: ``Wed 25 Nov, 10:00 to Thu 26 Nov 2026, 09:00
    Berlin``; empty where there is none."""
    if moments.first is None or moments.last is None:
        return Markup("")
    last = moment(moments.last, zone)
    first, end = (at.astimezone(ZoneInfo(str(zone))) for at in (moments.first, moments.last))
    if f"{first:%F %R}" == f"{end:%F %R}":
        return last
    form = "short" if first.year == end.year else "long"
    return Markup("{} to {}").format(_time(moments.first, zone, form), last)


def _time(instant: datetime, zone: str | ZoneInfo, form: str, city: str = "") -> Markup:
    local = instant.astimezone(ZoneInfo(str(zone)))
    return Markup('<time datetime="{}" title="{}">{}{}</time>').format(
        local.isoformat(timespec="seconds"),
        f"{local:%A %-d %B %Y, %H:%M:%S} {zone} ({local:%Z})",
        local.strftime(MOMENTS[form]),
        city,
    )


def date_of(value: date, form: str = "long") -> Markup:
    """A date as a ``<time>``: it has no zone of its own.

    Forms: ``long`` with weekday and year, ``weekday`` without the year, ``date`` without the
    weekday, ``short`` without either.
    """
    return Markup('<time datetime="{}">{}</time>').format(
        value.isoformat(), value.strftime(DATES[form])
    )


def zone() -> str:
    """The installation's own zone, for times that belong to no campaign."""
    return str(current_app.config["SETTINGS"].timezone)


def theme() -> str:
    """``light`` or ``dark`` when the person chose one, else empty: the system decides."""
    chosen = request.cookies.get(THEME_COOKIE, "")
    return chosen if chosen in THEMES else ""


def navigation() -> Iterable[tuple[str, str, str, tuple[str, ...]]]:
    """The main ways; the mailbox is there only with the embedded mail catcher."""
    return (*NAVIGATION, MAILBOX) if current_app.config["SETTINGS"].embedded_mail else NAVIGATION


def static_url(filename: str) -> str:
    """A static file's address with its content's hash, so that browsers may keep it for ever."""
    # Each icon asks, nineteen times a page: url_for was 9 % of a profile of pages.
    digest = _digest(f"{current_app.static_folder}/{filename}")
    return f"{current_app.static_url_path}/{filename}?v={digest}"


@cache
def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]


def with_query(**changes: Any) -> str:
    """This page's address with some of its query changed; None takes a key away."""
    query = {key: value for key, value in request.args.items() if key not in changes}
    query |= {key: value for key, value in changes.items() if value is not None}
    return request.path + (f"?{urlencode(query)}" if query else "")
