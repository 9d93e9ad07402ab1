"""Action definitions as mappings: the shape in which programs give and get the steps of a sequence.

``{"id": "review", "callback": "webhook", "interval": {"offset": "2days", "time": "10:00"},
"repeat": "", "after": "", "on_failure": "wait", "config": {...}, "attempts": 3}``; an interval may
be a text alone, and what is left out is as if it were empty.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mcs.core.sequences import BadDefinition
from mcs.services import definitions
from mcs.services.definitions import Step

FIELDS = ("id", "callback", "interval", "repeat", "after", "on_failure", "config", "attempts")
INTERVAL_FIELDS = ("offset", "time", "days", "excluded")


class BadActionDef(ValueError):
    """A definition that cannot be. ``path`` leads to what is wrong: (0, "interval", "offset")."""

    def __init__(self, path: tuple[int | str, ...], reason: str) -> None:
        super().__init__(reason)
        self.path, self.reason = path, reason


def read(given: Sequence[Mapping[str, Any]]) -> list[Step]:
    """The steps, which make a sequence together. Raises BadActionDef."""
    if isinstance(given, str | Mapping):
        raise BadActionDef((), "give a list of mappings")
    steps = [_step(place, one) for place, one in enumerate(given)]
    try:
        definitions.read(steps)
    except BadDefinition as error:
        raise located(given, error) from None
    return steps


def located(given: Sequence[Mapping[str, Any]], error: BadDefinition) -> BadActionDef:
    """What is refused of definitions that ``read`` took, said where it is among them."""
    keys = [one["id"] for one in given]
    if error.key not in keys:
        return BadActionDef((), error.reason)
    place = keys.index(error.key)
    path = _path(given[place], error.part)
    return BadActionDef((place, *path), error.reason)


def written(step: Step) -> dict[str, Any]:
    """The step in the shape in which ``read`` takes it; what is empty is left out."""
    interval = {name: getattr(step, name) for name in INTERVAL_FIELDS if getattr(step, name)}
    rest = {name: getattr(step, name) for name in ("repeat", "after") if getattr(step, name)}
    if step.after:
        rest["on_failure"] = step.on_failure
    return {
        "id": step.key,
        "callback": step.callback,
        "interval": interval,
        **rest,
        "config": dict(step.config),
        "attempts": step.max_attempts,
    }


def _step(place: int, given: Mapping[str, Any]) -> Step:
    _only((place,), given, FIELDS)
    interval = given.get("interval", {})
    if isinstance(interval, str):
        interval = {"offset": interval}
    _only((place, "interval"), interval, INTERVAL_FIELDS)
    for field, owner in (("id", given), ("callback", given), ("offset", interval)):
        if owner.get(field) in (None, ""):
            raise BadActionDef((place, *_path(given, field)), "it is missing")
    config = given.get("config") or {}
    if not isinstance(config, Mapping):
        raise BadActionDef((place, "config"), "give a mapping")
    return Step(
        key=given["id"],
        callback=given["callback"],
        offset=interval["offset"],
        time=interval.get("time") or "",
        days=_joined(interval.get("days")),
        excluded=_joined(interval.get("excluded")),
        repeat=given.get("repeat") or "",
        after=given.get("after") or "",
        on_failure=given.get("on_failure") or "wait",
        config=config,
        max_attempts=given.get("attempts", 1),
    )


def _path(given: Mapping[str, Any], part: str) -> tuple[str, ...]:
    """Where a part of a step stands in its definition, whose interval may be a text alone."""
    if part not in INTERVAL_FIELDS:
        return tuple(part.split("."))
    return ("interval", part) if isinstance(given.get("interval"), Mapping) else ("interval",)


def _only(path: tuple[int | str, ...], given: Any, known: Sequence[str]) -> None:
    if not isinstance(given, Mapping):
        raise BadActionDef(path, f"give a mapping of {', '.join(known)}")
    for field in given:
        if field not in known:
            raise BadActionDef((*path, field), f"unknown: use {', '.join(known)}")


def _joined(given: Any) -> Any:
    if isinstance(given, list | tuple):
        return ", ".join(str(one) for one in given)
    return given or ""
