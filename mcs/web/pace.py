"""The pace of a sending, as its page tells it.

What the page has seen of it, it remembers itself, in the address at which it asks how it goes on:
so there is nothing to be written down for it, and nobody else pays for its looking.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from flask import request

from mcs.core import words
from mcs.services import headway
from mcs.services.headway import Mark, Progress

_MARK = re.compile("([0-9]{1,13})-([0-9]{1,10})")


def told(
    standing: Progress,
    waiting: int,
    now: datetime,
    seen: Sequence[Mark],
    limits: Iterable[float | None],
) -> str:
    """``1,200 a minute; at this pace done in 2 minutes``, never more than the limits allow; empty
    when there is nothing to go by, or all that is left waits for another try."""
    per_second = standing.per_second(now, seen)
    going = standing.to_go - waiting
    if standing.state != "sending" or going <= 0 or per_second is None:
        return ""
    per_second = min([per_second, *(limit for limit in limits if limit)])
    left = words.span(timedelta(seconds=going / per_second + 1))
    but = ", but for those that wait" if waiting else ""
    return f"{words.rate(per_second)}; at this pace done in {left}{but}"


def seen() -> list[Mark]:
    """The marks that the page remembers."""
    found = (_MARK.fullmatch(text) for text in request.args.getlist("seen")[: headway.MOST_MARKS])
    return [
        Mark(datetime.fromtimestamp(int(mark[1]) / 1000, UTC), int(mark[2]))
        for mark in found
        if mark is not None
    ]


def followed(path: str, standing: Progress, now: datetime, seen: Sequence[Mark]) -> str:
    """Where the page asks how it goes on, with what it remembers until then."""
    if standing.state != "sending" or not standing.moved:
        return path
    marks = headway.marks(seen, Mark(now, standing.sent))
    return path + "?" + "&".join(f"seen={_whole(mark.at)}-{mark.sent}" for mark in marks)


def _whole(at: datetime) -> int:
    return round(at.timestamp() * 1000)
