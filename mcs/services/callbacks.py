"""Callbacks: whether what the steps of a sequence call is there, and can be called so."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from mcs.core import content
from mcs.core.calls import BadConfig
from mcs.core.content import Problem
from mcs.core.sequences import BadDefinition
from mcs.models import Scenario
from mcs.services import attributes
from mcs.services.definitions import SEND_EMAIL, Step

WEBHOOK, NOTIFY = "webhook", "notify"
# Another server may be away for a moment.
OFTEN = 5


def check(
    session: Session,
    known: Mapping[str, Any] | None,
    campaign_id: int,
    steps: Sequence[Step],
    *,
    hold: bool = True,
) -> None:
    """Whether each step's callback is among ``known`` and takes its config. Raises BadDefinition.

    Without ``known`` only what sends email is looked at: who calls has looked at the rest. With
    ``hold`` the scenarios stay as they are until the caller's transaction ends.
    """
    for step in steps:
        if step.callback == SEND_EMAIL:
            _check_email(session, campaign_id, step, hold)
        elif known is not None:
            check_config(step, known)
            if step.callback == NOTIFY:
                _check_fields(session, campaign_id, step)


def check_config(step: Step, known: Mapping[str, Any]) -> None:
    """Whether the step's callback is known and takes its config. Raises BadDefinition."""
    if step.callback not in known:
        there = ", ".join(sorted({SEND_EMAIL, *known}))
        raise BadDefinition(step.key, "callback", f"there is no {step.callback!r}: use {there}")
    look = getattr(known[step.callback], "check", None)
    if look is None:
        return
    try:
        look(step.config)
    except BadConfig as error:
        raise BadDefinition(step.key, f"config.{error.name}", error.reason) from None


def secrets_of(step: Step, known: Mapping[str, Any]) -> Collection[str]:
    """What of the step's config nobody may read again: what its callback declares as ``secrets``.

    Of a callback that declares nothing it is ``secret``; of one that is not here, all of it.
    """
    if step.callback == SEND_EMAIL:
        return ()
    if step.callback not in known:
        return step.config.keys()
    declared: Collection[str] = getattr(known[step.callback], "secrets", ("secret",))
    return declared


def without_secrets(step: Step, known: Mapping[str, Any]) -> Step:
    """The step as it may be shown to who did not write it."""
    hidden = secrets_of(step, known)
    config = {name: value for name, value in step.config.items() if name not in hidden}
    return replace(step, config=config)


def with_known_secrets(
    steps: Sequence[Step], before: Sequence[Step], known: Mapping[str, Any]
) -> list[Step]:
    """The steps, with the secrets of those they replace where they name none themselves."""
    kept = {
        (step.key, step.callback): {
            name: step.config[name] for name in secrets_of(step, known) if name in step.config
        }
        for step in before
    }
    return [
        replace(step, config=kept.get((step.key, step.callback), {}) | dict(step.config))
        for step in steps
    ]


def usual_attempts(callback: str) -> int:
    """How often a step is tried in all, where nobody says."""
    return OFTEN if callback in (WEBHOOK, NOTIFY) else 1


def scenario_id(config: Mapping[str, Any]) -> int | None:
    """The scenario that a send_email step sends."""
    found = config.get("scenario")
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def content_problems(
    session: Session, campaign_id: int, subject: str, text: str, format: str
) -> list[Problem]:
    """What is wrong with a message to the campaign's contacts, the fatal and the doubtful."""
    used = content.fields_used(subject, text)
    known, doubtful = attributes.known_among(session, campaign_id, used)
    found = list(content.check(subject, text, format, known | doubtful))
    found += [
        Problem(
            "content",
            f"The campaign has no contacts yet, so {{{{ {name} }}}} cannot be checked.",
            fatal=False,
        )
        for name in sorted(doubtful)
    ]
    return found


def _check_email(session: Session, campaign_id: int, step: Step, hold: bool) -> None:
    found = scenario_id(step.config)
    if found is None or len(step.config) > 1:
        raise BadDefinition(
            step.key, "config.scenario", 'name the scenario that it sends: {"scenario": 7}'
        )
    query = select(Scenario).where(Scenario.id == found, Scenario.campaign_id == campaign_id)
    if hold:
        # So that nobody gives it a date or deletes it while it becomes a step's.
        query = query.with_for_update(read=True).execution_options(populate_existing=True)
    scenario = session.scalar(query)
    if scenario is None:
        raise BadDefinition(
            step.key, "config.scenario", f"this campaign has no scenario {found}: write one first"
        )
    if scenario.state != "draft" or scenario.date is not None or scenario.time is not None:
        raise BadDefinition(
            step.key,
            "config.scenario",
            f"“{scenario.name}” has a date or a time, so it goes to everybody at once:"
            " take one without",
        )
    problems = content_problems(
        session, campaign_id, scenario.subject, scenario.content, scenario.format
    )
    for problem in problems:
        if problem.fatal:
            raise BadDefinition(
                step.key,
                "config.scenario",
                f"“{scenario.name}” cannot be sent as it is: {problem.text}",
            )


def _check_fields(session: Session, campaign_id: int, step: Step) -> None:
    for name in ("title", "text"):
        used = content.fields_used("", str(step.config.get(name, "")))
        known, doubtful = attributes.known_among(session, campaign_id, used)
        legal: Collection[str] = known | doubtful
        for field in sorted(used):
            if field not in legal or field == "unsubscribe_url":
                raise BadDefinition(
                    step.key,
                    f"config.{name}",
                    f"{{{{ {field} }}}} is not a field of this campaign's contacts",
                )
