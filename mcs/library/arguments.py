"""Arguments: each is read, or refused with BadArgument, which says what would be right."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from inspect import iscoroutinefunction
from typing import Any

from sqlalchemy import ColumnElement

from mcs.core.calls import SEND_EMAIL, Call
from mcs.core.sequences import read_action_id
from mcs.core.states import ACTION_STATES
from mcs.gateways import clock
from mcs.gateways.callbacks import built_in
from mcs.models import Action, Campaign, Schedule
from mcs.services.definitions import Step
from mcs.services.runners import Callback
from mcs.services.schedules import Subject

# Without days of its own, a campaign runs as long as dates are worth computing.
FIRST_DAY, LAST_DAY = date(2000, 1, 1), date(2200, 12, 31)
_ORDERS = {
    "expected_at": Action.expected_at,
    "completed_at": Action.completed_at,
    "id": Action.id,
}


class BadArgument(ValueError):
    """An argument that cannot be. ``argument`` is its name; the text says what would be right."""

    def __init__(self, argument: str, reason: str) -> None:
        super().__init__(f"{argument}: {reason}")
        self.argument, self.reason = argument, reason


def callbacks(given: Mapping[str, Callable[[Call], Any]]) -> dict[str, Callback]:
    """The functions by id, as they were given."""
    if not isinstance(given, Mapping):
        raise BadArgument("callbacks", "give a mapping of ids to functions")
    for name, function in given.items():
        if not isinstance(name, str) or not 0 < len(name) <= 100:
            raise BadArgument("callbacks", f"{name!r} is no id: use a text of 1 to 100 characters")
        if name == SEND_EMAIL or name in built_in():
            raise BadArgument("callbacks", f"{name} is MCS's own: choose another id")
        if not callable(function):
            raise BadArgument(f"callbacks[{name!r}]", "it is not a function")
        if iscoroutinefunction(function):
            raise BadArgument(f"callbacks[{name!r}]", "it is async: give a plain function")
    return dict(given)


def text(argument: str, given: Any, longest: int) -> None:
    """Whether it is a text that can be kept."""
    if not isinstance(given, str) or not given or len(given) > longest or "\0" in given:
        raise BadArgument(argument, f"{given!r}: give a text of 1 to {longest} characters")


def positive(argument: str, given: float) -> float:
    """The number, which is 1 or more."""
    if not isinstance(given, int | float) or not given >= 1:
        raise BadArgument(argument, f"{given!r}: use 1 or more")
    return given


def zone(name: str) -> str:
    """The name of a time zone that there is."""
    if name not in clock.zones():
        raise BadArgument("timezone", f"{name!r} is no time zone: use one such as Europe/Berlin")
    return name


def day(argument: str, given: date | None) -> date | None:
    """The day, if one is given."""
    if given is None:
        return None
    if not isinstance(given, date) or isinstance(given, datetime):
        raise BadArgument(argument, f"{given!r}: give a date")
    if not FIRST_DAY <= given <= LAST_DAY:
        raise BadArgument(argument, f"{given}: use a day from {FIRST_DAY} to {LAST_DAY}")
    return given


def limit(given: int | None) -> int | None:
    """The number of rows at most, if one is given."""
    if given is not None and (not isinstance(given, int) or given < 0):
        raise BadArgument("limit", f"{given!r}: use a whole number, or leave it out")
    return given


def listed(argument: str, given: Any) -> list[str]:
    """One text or a list of them, as a list of texts."""
    values = list(given) if isinstance(given, list | tuple | set | frozenset) else [given]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise BadArgument(argument, f"{value!r}: give a text, or a list of texts")
    return [str(value) for value in values]


def states(given: Any) -> list[str]:
    """States of actions, one or a list."""
    states = listed("state", given)
    for state in states:
        if state not in ACTION_STATES:
            raise BadArgument("state", f"{state!r}: use {', '.join(ACTION_STATES)}")
    return states


def action_ids(given: Any) -> list[str]:
    """Names of actions, one or a list."""
    ids = listed("action_id", given)
    for id in ids:
        try:
            read_action_id(id)
        except ValueError as error:
            raise BadArgument("action_id", str(error)) from None
    return ids


def id_as_text(given: str | int) -> str:
    """Ids are kept as texts: 1 and "1" are the same subject."""
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise BadArgument("subject_id", f"{given!r}: give a text or a whole number")
    return str(given)


def subject(given: tuple[str, str | int] | Mapping[str, Any]) -> Subject:
    """A subject, of a pair of kind and id or of a mapping."""
    if isinstance(given, Mapping):
        only("subjects", given, ("subject", "subject_id", "contact_id"))
        return Subject(
            given.get("subject", ""),
            id_as_text(given.get("subject_id", "")),
            given.get("contact_id"),
        )
    try:
        subject, subject_id = given
    except (TypeError, ValueError):
        raise BadArgument("subjects", f"{given!r} is no pair of kind and id") from None
    return Subject(subject, id_as_text(subject_id))


def of_whom(
    campaign_id: Any, subject: Any, subject_id: Any, active: bool | None
) -> list[ColumnElement[bool]]:
    """The conditions on campaigns and schedules that these filters make."""
    conditions: list[ColumnElement[bool]] = []
    for argument, column, given in (
        ("campaign_id", Campaign.key, campaign_id),
        ("subject", Schedule.subject, subject),
        ("subject_id", Schedule.subject_id, subject_id),
    ):
        if given is not None:
            conditions.append(column.in_(listed(argument, given)))
    if active is not None:
        conditions.append(Schedule.active.is_(bool(active)))
    return conditions


def between(argument: str, column: Any, given: Any) -> list[ColumnElement[bool]]:
    """The conditions on a moment: one, or a range with both ends included."""
    if given is None:
        return []
    low, high = given if isinstance(given, tuple | list) and len(given) == 2 else (given, given)
    for moment in (low, high):
        if moment is not None and (not isinstance(moment, datetime) or moment.tzinfo is None):
            raise BadArgument(argument, f"{moment!r}: give an aware datetime, or a pair of them")
    conditions = []
    if low is not None:
        conditions.append(column >= low)
    if high is not None:
        conditions.append(column <= high)
    return conditions


def order(given: str) -> list[ColumnElement[Any]]:
    """The columns to order actions by."""
    name = given.removeprefix("-") if isinstance(given, str) else ""
    if name not in _ORDERS:
        raise BadArgument("order", f"{given!r}: use {', '.join(_ORDERS)}, or -{name or 'id'}")
    columns: list[Any] = [_ORDERS[name], Action.id]
    return [column.desc() for column in columns] if given.startswith("-") else columns


def no_campaign(campaign_id: str) -> BadArgument:
    """The error for a campaign that is not there."""
    return BadArgument("campaign_id", f"there is no campaign {campaign_id!r}")


def unknown_callback(step: Step, known: Mapping[str, Any]) -> str:
    """The reason for a callback that is not there."""
    if step.callback == SEND_EMAIL:
        return f"{SEND_EMAIL} needs MCS with its mail server: the library has callbacks of your own"
    return f"{step.callback!r} is not among the callbacks: {', '.join(sorted(known)) or 'none'}"


def at(name: str, path: Sequence[int | str]) -> str:
    """``action_defs[0].interval.offset``."""
    return name + "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in path)


def only(name: str, given: Any, known: Sequence[str]) -> None:
    """Whether it is a mapping of these fields and no others."""
    if not isinstance(given, Mapping):
        raise BadArgument(name, f"give a mapping of {', '.join(known)}")
    for field in given:
        if field not in known:
            raise BadArgument(f"{name}.{field}", f"unknown: use {', '.join(known)}")
