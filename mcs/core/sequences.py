"""Sequences: what a campaign's steps are, and the one function that says what is due when.

Enrolment, previews, edits and pages all ask ``plan``; ``revise`` says how the actions that a
subject has are brought in line with it.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from mcs.core.intervals import (
    BadInterval,
    Duration,
    Interval,
    Seed,
    add,
    due_at,
    parse,
    parse_duration,
)
from mcs.core.walltime import instant, local

WAIT, SKIP, GO_ON = "wait", "skip", "go_on"
ON_FAILURE = (WAIT, SKIP, GO_ON)
PAST_SKIP, PAST_RUN = "skip", "run"
PAST = (PAST_SKIP, PAST_RUN)
MOST_REPETITIONS = 1000
MOST_DEFINITIONS = 200
LONGEST_KEY = 100

# Why an action was cancelled. The first three can come back; the others are over for good.
UNSCHEDULED, SWITCHED_OFF, REMOVED, TOO_LATE, PASSED = (
    "unscheduled",
    "the campaign was switched off",
    "no longer in the sequence",
    "after the campaign's last day",
    "its moment had passed when the sequence was edited",
)

_KEY = re.compile(r"[A-Za-z0-9_-]+")
_REFERENCE = re.compile(r"([A-Za-z0-9_-]+)(?:\.(\d{1,4}))?")
_REPEAT = re.compile(
    r"(?:every\s+)?(?P<every>.+?)"
    r"(?:[\s,]+(?P<times>\d+)\s*times)?"
    r"(?:[\s,]+(?:or\s+)?until\s+(?P<until>\S+))?",
    re.IGNORECASE,
)
_REPEAT_ADVICE = "write it as: every 1month, 6 times; or: every 1week until 2027-06-30"


class BadDefinition(ValueError):
    """A step that cannot be. ``part`` names the field; the reason says what would be right."""

    def __init__(self, key: str, part: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}" if key else reason)
        self.key, self.part, self.reason = key, part, reason


@dataclass(frozen=True)
class Repeat:
    """How a step recurs: so many times in all, or until a day, or whichever comes first."""

    every: Duration
    times: int | None
    until: date | None


@dataclass(frozen=True)
class Definition:
    """A step of a sequence. ``after`` names the action (key, occurrence) it counts from."""

    key: str
    callback: str
    interval: Interval
    repeat: Repeat | None = None
    after: tuple[str, int] | None = None
    on_failure: str = WAIT

    @property
    def drawn(self) -> bool:
        """Whether it falls differently for two subjects that began at the same instant."""
        return self.interval.drawn


@dataclass(frozen=True)
class Calendar:
    """The instants between which a campaign may act: from the first one, to before the end."""

    begins: datetime
    ends: datetime
    zone: ZoneInfo


@dataclass(frozen=True)
class Enrolment:
    """Who began, when. ``campaign`` is what draws know it by."""

    campaign: str
    subject: str
    subject_id: str
    run: int
    started_at: datetime


@dataclass(frozen=True)
class Planned:
    """An action that is to be. Without ``expected_at`` it waits for the one it comes after.

    ``reason`` says why it will not happen, where it will not.
    """

    key: str
    occurrence: int
    expected_at: datetime | None
    reason: str = ""


@dataclass(frozen=True)
class Standing:
    """An action as it stands. ``ended_at`` is when it was completed, failed or cancelled."""

    key: str
    occurrence: int
    state: str
    expected_at: datetime | None
    ended_at: datetime | None = None
    reason: str = ""


@dataclass(frozen=True)
class Change:
    """What becomes of one action: ``kind`` is appear, return, move or vanish.

    ``late`` marks one whose moment has passed, and that is run at once. An action that appears
    with a ``reason`` is cancelled from the start: it says why it will not happen. ``was`` is the
    moment that a pending action had.
    """

    kind: str
    key: str
    occurrence: int
    expected_at: datetime | None
    reason: str = ""
    late: bool = False
    was: datetime | None = None


def define(
    key: str,
    callback: str,
    *,
    offset: str,
    time: str = "",
    days: str = "",
    excluded: str = "",
    repeat: str = "",
    after: str = "",
    on_failure: str = WAIT,
) -> Definition:
    """A definition from its texts. Raises BadDefinition, which names the field."""
    if not isinstance(key, str) or not _KEY.fullmatch(key) or len(key) > LONGEST_KEY:
        raise BadDefinition(
            str(key)[:LONGEST_KEY],
            "id",
            f"{key!r} is no id: use letters, digits, - and _, {LONGEST_KEY} at most",
        )
    if not isinstance(callback, str) or not 0 < len(callback) <= LONGEST_KEY:
        raise BadDefinition(key, "callback", f"{callback!r} is no callback: give its id, a text")
    if on_failure not in ON_FAILURE:
        raise BadDefinition(key, "on_failure", f"{on_failure!r}: use wait, skip or go_on")
    try:
        interval = parse(offset, time, days, excluded)
    except BadInterval as error:
        raise BadDefinition(key, error.part, error.reason) from None
    return Definition(
        key, callback, interval, _repeat(key, repeat), _reference(key, after), on_failure
    )


def check(definitions: Sequence[Definition]) -> None:
    """Whether the definitions make a sequence together. Raises BadDefinition."""
    if len(definitions) > MOST_DEFINITIONS:
        raise BadDefinition("", "action_defs", f"use {MOST_DEFINITIONS} steps at most")
    by_key: dict[str, Definition] = {}
    for one in definitions:
        if one.key in by_key:
            raise BadDefinition(one.key, "id", "there are two steps of this id: rename one")
        by_key[one.key] = one
    for one in definitions:
        _check_after(one, by_key)


def calendar(first: date, last: date, zone: ZoneInfo) -> Calendar:
    """The instants of a campaign's first and last day, both included."""
    return Calendar(
        instant(first, time.min, zone), instant(last + timedelta(days=1), time.min, zone), zone
    )


def plan(
    definitions: Iterable[Definition],
    calendar: Calendar,
    enrolment: Enrolment,
    ended: Mapping[tuple[str, int], Standing] | None = None,
) -> list[Planned]:
    """What will be due when, for one subject: every occurrence of every step.

    Counted from when the subject began, or from the campaign's first day where that is later; a
    step after another from that one's completion, as ``ended`` tells it. Nothing falls after the
    campaign's last day: what would, says so.
    """
    begun = max(enrolment.started_at, calendar.begins)
    planned: list[Planned] = []
    for one in definitions:
        origin, reason = begun, ""
        if one.after is not None:
            found, reason = _origin(one, (ended or {}).get((one.after[0], one.after[1] or 1)))
            if found is None:
                planned += _without_moment(one, reason)
                continue
            origin = found
        planned += _occurrences(one, calendar, enrolment, origin)
    return planned


def revise(
    standing: Iterable[Standing],
    planned: Iterable[Planned],
    now: datetime,
    *,
    only: Collection[str] | None = None,
    past: str = PAST_RUN,
) -> list[Change]:
    """What to change so that the pending actions are those planned.

    What runs or has run stays as it is, whatever is planned; so does what was skipped. ``only``
    limits it to the steps of these keys. ``past`` says what becomes of a step that is new, or
    moved, to a moment that has passed.
    """
    known = {(one.key, one.occurrence): one for one in standing}
    wanted = {(one.key, one.occurrence): one for one in planned}
    changes = [
        change
        for place, one in wanted.items()
        if only is None or one.key in only
        if (change := _change(known.get(place), one, now, past)) is not None
    ]
    changes += [
        Change("vanish", one.key, one.occurrence, one.expected_at, REMOVED, was=one.expected_at)
        for place, one in known.items()
        if place not in wanted and one.state == "pending"
        if only is None or one.key in only
    ]
    return changes


def settle(
    definitions: Sequence[Definition],
    calendar: Calendar,
    enrolment: Enrolment,
    standing: Sequence[Standing],
    now: datetime,
    *,
    only: Collection[str] | None = None,
    past: str = PAST_RUN,
) -> list[Change]:
    """What ``revise`` changes for a subject, and what follows from that for the steps after.

    A step that is left out here may be what another comes after, and that one another's: each is
    planned again, until nothing more follows.
    """
    known = {(one.key, one.occurrence): one for one in standing}
    parents = {one.key: one.after[0] for one in definitions if one.after}
    view, keys, changes = known, None if only is None else set(only), list[Change]()
    while True:
        planned = plan(definitions, calendar, enrolment, view)
        found = revise(standing, planned, now, only=keys, past=past)
        if not parents or found == changes:
            return found
        changes = found
        view = known | {(one.key, one.occurrence): _changed_to(one, now) for one in changes}
        if keys is not None:
            moved = {one.key for one in changes}
            keys = keys | {key for key, parent in parents.items() if parent in moved}


def concerned(definitions: Iterable[Definition], keys: Collection[str]) -> list[Definition]:
    """The steps of these keys, and those that come after them, to the end."""
    given = list(definitions)
    found = set(keys)
    while more := {one.key for one in given if one.after and one.after[0] in found} - found:
        found |= more
    return [one for one in given if one.key in found]


def foresee(
    definitions: Sequence[Definition], calendar: Calendar, enrolment: Enrolment
) -> list[Planned]:
    """``plan``, as if each action were completed at its very moment: so that a step after another
    has a moment, too."""
    ended: dict[tuple[str, int], Standing] = {}
    while True:
        planned = plan(definitions, calendar, enrolment, ended)
        then = {
            (one.key, one.occurrence): Standing(
                one.key, one.occurrence, "completed", one.expected_at, one.expected_at
            )
            for one in planned
            if one.expected_at is not None and not one.reason
        }
        if then == ended:
            return planned
        ended = then


def action_id(key: str, occurrence: int, repeats: bool) -> str:
    """The name of an action: ``action1``, or ``action1.2`` for the second of a repeating step."""
    return f"{key}.{occurrence}" if repeats else key


def read_action_id(text: str) -> tuple[str, int | None]:
    """The key, and the occurrence if one is named. Raises ValueError."""
    found = _REFERENCE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no action id: write action1, or action1.2")
    return found[1], int(found[2]) if found[2] else None


# Planning.


def _occurrences(
    one: Definition, calendar: Calendar, enrolment: Enrolment, origin: datetime
) -> Iterable[Planned]:
    for number in range(_most(one.repeat)):
        interval = one.interval
        if one.repeat is not None:
            interval = interval.later(one.repeat.every * number)
        if number:
            # No draw falls before this: what comes later in the repetition is past the end too.
            earliest = add(interval.offset.low, origin, calendar.zone)
            if earliest >= calendar.ends or _past(one.repeat, earliest, calendar):
                return
        moment = _moment(one.key, interval, calendar.zone, enrolment, origin, number + 1)
        if not _past(one.repeat, moment, calendar):
            reason = "" if moment < calendar.ends else TOO_LATE
            yield Planned(one.key, number + 1, moment, reason)


def _moment(
    key: str,
    interval: Interval,
    zone: ZoneInfo,
    enrolment: Enrolment,
    origin: datetime,
    occurrence: int,
) -> datetime:
    if not interval.drawn:
        return _undrawn(interval, origin, zone)
    seed = Seed(
        enrolment.campaign,
        enrolment.subject,
        enrolment.subject_id,
        enrolment.run,
        key,
        occurrence,
    )
    return due_at(interval, origin, zone, seed)


@lru_cache(maxsize=4096)
def _undrawn(interval: Interval, origin: datetime, zone: ZoneInfo) -> datetime:
    """The same for all who began at the same instant: nothing is drawn."""
    return due_at(interval, origin, zone, _NOBODY)


_NOBODY = Seed("", "", "", 0, "", 0)


def _most(repeat: Repeat | None) -> int:
    if repeat is None:
        return 1
    return repeat.times or MOST_REPETITIONS


def _past(repeat: Repeat | None, moment: datetime, calendar: Calendar) -> bool:
    """Whether a repetition has ended before a moment."""
    until = repeat.until if repeat is not None else None
    return until is not None and local(moment, calendar.zone).date() > until


def _without_moment(one: Definition, reason: str) -> list[Planned]:
    return [Planned(one.key, number + 1, None, reason) for number in range(_most(one.repeat))]


def _origin(one: Definition, parent: Standing | None) -> tuple[datetime | None, str]:
    """From when a step after another counts; else why it will never be, or nothing: it waits."""
    if parent is None or parent.state in ("pending", "processing") or _may_return(parent):
        return None, ""
    if parent.state == "completed" or one.on_failure == GO_ON:
        return parent.ended_at, ""
    if one.on_failure == WAIT:
        return None, ""
    what = "failed" if parent.state == "failed" else "was left out"
    return None, f"skipped, since {parent.key} {what}"[:200]


def _may_return(one: Standing) -> bool:
    """Whether a cancelled action is only withdrawn, so that it can come back."""
    return one.state == "cancelled" and one.reason in (UNSCHEDULED, SWITCHED_OFF, REMOVED)


# Revising.


def _change(known: Standing | None, wanted: Planned, now: datetime, past: str) -> Change | None:
    was = None
    if known is None:
        kind = "appear"
    elif known.state == "pending":
        if known.expected_at == wanted.expected_at and not wanted.reason:
            return None
        kind, was = "vanish" if wanted.reason else "move", known.expected_at
    elif known.state == "cancelled" and known.reason != PASSED and not wanted.reason:
        kind = "return"
    else:
        return None
    return _placed(kind, wanted, was, now, past)


def _placed(kind: str, wanted: Planned, was: datetime | None, now: datetime, past: str) -> Change:
    late = wanted.expected_at is not None and wanted.expected_at < now and not wanted.reason
    if late and past == PAST_SKIP:
        kind = "appear" if kind == "appear" else "vanish"
        return Change(kind, wanted.key, wanted.occurrence, wanted.expected_at, PASSED, was=was)
    return Change(kind, wanted.key, wanted.occurrence, wanted.expected_at, wanted.reason, late, was)


def _changed_to(change: Change, now: datetime) -> Standing:
    return Standing(
        change.key,
        change.occurrence,
        "cancelled" if change.reason else "pending",
        change.expected_at,
        now if change.reason else None,
        change.reason,
    )


# Reading.


def _repeat(key: str, text: str) -> Repeat | None:
    if not isinstance(text, str):
        raise BadDefinition(key, "repeat", f"{text!r} is not a text: {_REPEAT_ADVICE}")
    if not text.strip():
        return None
    found = _REPEAT.fullmatch(text.strip())
    if found is None:
        raise BadDefinition(key, "repeat", f"{text!r} cannot be read: {_REPEAT_ADVICE}")
    times = int(found["times"]) if found["times"] else None
    until = _until(key, found["until"]) if found["until"] else None
    if times is None and until is None:
        raise BadDefinition(key, "repeat", f"{text!r} has no end: {_REPEAT_ADVICE}")
    if times is not None and not 1 <= times <= MOST_REPETITIONS:
        raise BadDefinition(key, "repeat", f"{text!r}: repeat 1 to {MOST_REPETITIONS} times")
    return Repeat(_every(key, text, found["every"]), times, until)


def _every(key: str, text: str, given: str) -> Duration:
    try:
        every = parse_duration(given.rstrip(" ,"))
    except BadInterval as error:
        raise BadDefinition(key, "repeat", f"{error.reason} ({_REPEAT_ADVICE})") from None
    if every == Duration():
        raise BadDefinition(key, "repeat", f"{text!r} would all be at once: {_REPEAT_ADVICE}")
    if every.months > 12 * 10 or every.days > 3660 or every.seconds > 3660 * 86400:
        raise BadDefinition(key, "repeat", f"{text!r}: repeat at least every 10 years")
    return every


def _until(key: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BadDefinition(key, "repeat", f"{text!r} is no date: write it as 2027-06-30") from None


def _reference(key: str, text: str) -> tuple[str, int] | None:
    if not text:
        return None
    try:
        named, occurrence = read_action_id(text)
    except (ValueError, TypeError):
        raise BadDefinition(
            key, "after", f"{text!r} is no step: give the id of one, such as action1"
        ) from None
    return named, occurrence or 0


def _check_after(one: Definition, by_key: Mapping[str, Definition]) -> None:
    if one.after is None:
        return
    parent_key, occurrence = one.after
    parent = by_key.get(parent_key)
    if parent is None:
        raise BadDefinition(one.key, "after", f"there is no step {parent_key!r} to come after")
    if parent.repeat is not None and (occurrence == 0 or occurrence > _most(parent.repeat)):
        raise BadDefinition(
            one.key,
            "after",
            f"{parent_key} repeats: name one of its occurrences, such as {parent_key}.1",
        )
    if parent.repeat is None and occurrence > 1:
        raise BadDefinition(one.key, "after", f"{parent_key} does not repeat: write {parent_key}")
    if one.repeat is not None and one.repeat.times is None:
        raise BadDefinition(
            one.key, "repeat", "a step after another says how many times it repeats"
        )
    _check_circle(one, by_key)


def _check_circle(one: Definition, by_key: Mapping[str, Definition]) -> None:
    seen = {one.key}
    here: Definition | None = one
    while here is not None and here.after is not None:
        here = by_key.get(here.after[0])
        if here is not None and here.key in seen:
            raise BadDefinition(
                one.key, "after", f"it comes after {here.key}, which comes after it: break the ring"
            )
        if here is not None:
            seen.add(here.key)
