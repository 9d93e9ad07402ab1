"""Editing: one step of a sequence added, changed, moved or removed, and what that would do first.

Each verb reads the other steps under the campaign's lock, so that two people who edit two steps at
once both get what they wanted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from mcs.core import sequences
from mcs.core.content import Problem
from mcs.core.sequences import BadDefinition
from mcs.models import Action, Campaign, Scenario, Schedule
from mcs.services import audit, callbacks, definitions, scenarios
from mcs.services import sequences as verbs
from mcs.services.definitions import SEND_EMAIL, Step
from mcs.services.messages import message_of
from mcs.services.scenarios import Fields, Refused
from mcs.services.tallies import Effect, Tally
from mcs.services.transactions import writing
from mcs.services.unknown import Unknown, find_campaign


class StillNeeded(BadDefinition):
    """A step that cannot go, since the step ``by`` comes after it."""

    def __init__(self, key: str, by: str) -> None:
        super().__init__(key, "", f"{by} comes after {key}: change or remove {by} first")
        self.by = by


# What is right for each part of a step, whatever the others are.
_RIGHT: Mapping[str, Any] = {
    "offset": "0days",
    "time": "",
    "days": "",
    "excluded": "",
    "repeat": "",
    "after": "",
    "on_failure": sequences.WAIT,
    "max_attempts": 1,
}
_UNTAKEN = "an-id-that-no-step-has"
_RIGHT_CONFIG = {"url": "https://hooks.example.com/", "secret": "x" * 32}


def find_step(session: Session, campaign_id: int, key: str) -> Step:
    """A step of the campaign. Raises Unknown."""
    for step in definitions.steps_of(session, campaign_id):
        if step.key == key:
            return step
    raise Unknown(f"step {key}")


def free_key(session: Session, campaign_id: int) -> str:
    """An id for the next step, which no step of the campaign ever had: step1, step2 ..."""
    steps = definitions.steps_of(session, campaign_id)
    taken = {step.key for step in steps}
    number = len(steps) + 1
    while f"step{number}" in taken or _was_used(session, campaign_id, f"step{number}"):
        number += 1
    return f"step{number}"


def _was_used(session: Session, campaign_id: int, key: str) -> bool:
    """Whether anybody has an action of this id."""
    theirs = exists().where(
        Action.schedule_id == Schedule.id, Schedule.campaign_id == campaign_id, Action.key == key
    )
    return bool(session.scalar(select(theirs)))


def _refuse_used(session: Session, campaign_id: int, key: str) -> None:
    """What a removed step has done would count as done by a new one of its id. (Programs, which
    send the whole list, may bring a step back by that.)"""
    if _was_used(session, campaign_id, key):
        raise BadDefinition(
            key,
            "id",
            "a step that was removed had this id, and is in people's history: choose another",
        )


def problems(session: Session, campaign: Campaign, message: Fields) -> list[Problem]:
    """What is wrong with the message of an email step, the fatal first."""
    found = scenarios.message_problems(session, campaign, message)
    return sorted(found, key=lambda problem: not problem.fatal)


def complaints(
    session: Session,
    campaign_id: int,
    step: Step,
    *,
    new: bool,
    known: Mapping[str, Any],
    message: Fields | None = None,
) -> list[BadDefinition]:
    """All that is wrong with a step, a complaint for each part of it; ``put`` raises the first.

    Raises Unknown.
    """
    steps = definitions.steps_of(session, campaign_id)
    if new and _stands_already(session, campaign_id, steps, step, message):
        return []
    found: dict[str, BadDefinition] = {}
    tried = step
    while error := _complaint(session, campaign_id, steps, tried, new, known):
        if error.part in found:
            break
        key = step.key if error.key == tried.key else error.key
        found[error.part] = BadDefinition(key, error.part, error.reason)
        # What else is wrong shows once this is right.
        tried = _righted(tried, error.part, _UNTAKEN)
    return list(found.values())


def _complaint(
    session: Session,
    campaign_id: int,
    steps: Sequence[Step],
    step: Step,
    new: bool,
    known: Mapping[str, Any],
) -> BadDefinition | None:
    try:
        definitions.read(_with(steps, step, new))
        if step.callback != SEND_EMAIL:
            callbacks.check(session, known, campaign_id, [step])
    except BadDefinition as error:
        return error
    return None


def _righted(step: Step, part: str, key: str) -> Step:
    if part == "id":
        return replace(step, key=key)
    if part.startswith("config."):
        name = part.removeprefix("config.")
        return replace(step, config={**step.config, name: _RIGHT_CONFIG.get(name, "")})
    field = "max_attempts" if part == "attempts" else part
    return replace(step, **{field: _RIGHT[field]}) if field in _RIGHT else step


def preview_put(
    session: Session,
    now: datetime,
    campaign_id: int,
    step: Step,
    *,
    new: bool,
    known: Mapping[str, Any],
    message: Fields | None = None,
) -> Effect:
    """What ``put`` would change. ``known`` is the table of callbacks that a step may use. Raises
    BadDefinition, Unknown."""
    steps = definitions.steps_of(session, campaign_id)
    if new and _stands_already(session, campaign_id, steps, step, message):
        return Effect()
    if new:
        _refuse_used(session, campaign_id, step.key)
    if step.callback != SEND_EMAIL:
        callbacks.check(session, known, campaign_id, [step])
    return _effect(session, now, campaign_id, lambda steps: _with(steps, step, new))


def preview_remove(session: Session, now: datetime, campaign_id: int, key: str) -> Effect:
    """What ``remove`` would change. Raises StillNeeded, Unknown."""
    return _effect(session, now, campaign_id, lambda steps: _without(steps, key))


def put(
    session: Session,
    now: datetime,
    campaign_id: int,
    step: Step,
    *,
    new: bool,
    known: Mapping[str, Any],
    message: Fields | None = None,
    past: str = sequences.PAST_SKIP,
    by: int | None = None,
) -> Tally:
    """Save one step: added at the end, or in the place where it was; what that changed.

    ``message`` is what an email step sends, ``known`` the table of callbacks. The same step added
    twice is one step. Raises BadDefinition, Refused (a problem of the message), Unknown.
    """
    campaign = find_campaign(session, campaign_id)
    if message is not None:
        found = problems(session, campaign, message)
        if any(problem.fatal for problem in found):
            raise Refused(found)
    with writing(session):
        definitions.load(session, campaign_id, to_edit=True)
        steps = definitions.steps_of(session, campaign_id)
        if new and _stands_already(session, campaign_id, steps, step, message):
            return Tally()
        _with(steps, step, new)
        if new:
            _refuse_used(session, campaign_id, step.key)
        if message is not None:
            scenario_id = _write_message(session, now, campaign_id, steps, step.key, message)
            step = replace(step, config={"scenario": scenario_id})
        callbacks.check(session, known, campaign_id, [step])
        tally = verbs.define_within(session, now, campaign_id, _with(steps, step, new), past)
        verb = "added a step to" if new else "edited a step of"
        audit.note(session, now, by, verb, "campaign", campaign_id, step=step.key)
        return tally


def remove(
    session: Session, now: datetime, campaign_id: int, key: str, *, by: int | None = None
) -> Tally:
    """Take a step out of the sequence; what that changed. Its message stays, as a draft.

    Raises StillNeeded, Unknown.
    """
    with writing(session):
        definitions.load(session, campaign_id, to_edit=True)
        steps = _without(definitions.steps_of(session, campaign_id), key)
        tally = verbs.define_within(session, now, campaign_id, steps)
        verb = "removed a step from"
        audit.note(session, now, by, verb, "campaign", campaign_id, step=key)
        return tally


def move(session: Session, now: datetime, campaign_id: int, key: str, place: int) -> None:
    """Show a step at another place of the list, 0 for the first: no moment changes by that.

    Raises Unknown.
    """
    with writing(session):
        definitions.load(session, campaign_id, to_edit=True)
        steps = definitions.steps_of(session, campaign_id)
        moved = next((step for step in steps if step.key == key), None)
        if moved is None:
            raise Unknown(f"step {key}")
        steps.remove(moved)
        steps.insert(max(0, place), moved)
        definitions.write(session, now, campaign_id, steps)


def _effect(
    session: Session,
    now: datetime,
    campaign_id: int,
    change: Callable[[list[Step]], list[Step]],
) -> Effect:
    steps = change(definitions.steps_of(session, campaign_id))
    return verbs.effect(session, now, campaign_id, steps)


def _with(steps: Sequence[Step], step: Step, new: bool) -> list[Step]:
    known = [one.key for one in steps]
    if new and step.key in known:
        raise BadDefinition(step.key, "id", "there is a step of this id already: choose another")
    if not new and step.key not in known:
        raise Unknown(f"step {step.key}")
    if new:
        return [*steps, step]
    return [step if one.key == step.key else one for one in steps]


def _without(steps: Sequence[Step], key: str) -> list[Step]:
    if all(step.key != key for step in steps):
        raise Unknown(f"step {key}")
    for step in steps:
        if step.after.partition(".")[0] == key:
            raise StillNeeded(key, step.key)
    return [step for step in steps if step.key != key]


def _stands_already(
    session: Session, campaign_id: int, steps: Sequence[Step], step: Step, message: Fields | None
) -> bool:
    """Whether a second press of the button asks for what the first one made."""
    known = next((one for one in steps if one.key == step.key), None)
    if known is None:
        return False
    if message is None:
        return known == step
    scenario = message_of(session, campaign_id, known)
    if scenario is None or scenarios.fields_of(scenario) != message:
        return False
    return replace(known, config={}) == replace(step, config={})


def _write_message(
    session: Session,
    now: datetime,
    campaign_id: int,
    steps: Sequence[Step],
    key: str,
    message: Fields,
) -> int:
    """The id of the step's scenario, which has no date: the sequence says when it goes out."""
    known = next((step for step in steps if step.key == key), None)
    scenario = message_of(session, campaign_id, known) if known is not None else None
    if scenario is None:
        scenario = Scenario(campaign_id=campaign_id, state="draft", created_at=now)
        session.add(scenario)
    words: dict[str, Any] = asdict(replace(message, date=None, time=None))
    for name, value in words.items():
        setattr(scenario, name, value)
    scenario.updated_at = now
    session.flush()
    return scenario.id
