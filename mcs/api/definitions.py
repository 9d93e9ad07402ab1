"""The steps of a campaign's sequence over HTTP."""

from collections.abc import Mapping
from typing import Any, cast

from flask import current_app

from mcs.api.access import MANAGE, READ
from mcs.api.operations import Answer, Asked, Operation
from mcs.api.problems import at, invalid
from mcs.core.sequences import PAST_SKIP, BadDefinition
from mcs.services import callbacks, campaigns, definitions, sequences, written_steps
from mcs.services.definitions import Step
from mcs.services.tallies import Tally
from mcs.services.written_steps import BadActionDef


def read(asked: Asked, campaign: str) -> Answer:
    campaign_id = campaigns.known_as(asked.session, campaign).id
    return Answer({"action_defs": _shown(definitions.steps_of(asked.session, campaign_id))})


def save(asked: Asked, campaign: str) -> Answer:
    """Save the steps, or with dry_run only say what that would do."""
    campaign_id = campaigns.known_as(asked.session, campaign).id
    dry = asked.query.get("dry_run", False)
    try:
        steps = written_steps.read([_with_attempts(one) for one in asked.body["action_defs"]])
        before = definitions.steps_of(asked.session, campaign_id)
        steps = callbacks.with_known_secrets(steps, before, _known())
        tally = _save(asked, campaign_id, steps, dry)
    except BadActionDef as error:
        raise invalid(at(["action_defs", *error.path], error.reason)) from None
    return Answer(
        {"action_defs": _shown(steps), "saved": not dry, "consequences": _consequences(tally)}
    )


def _with_attempts(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"attempts": callbacks.usual_attempts(given["callback"]), **given}


def _save(asked: Asked, campaign_id: int, steps: list[Step], dry: bool) -> Tally:
    verb = sequences.preview if dry else sequences.define
    past = asked.body.get("past", PAST_SKIP)
    try:
        return verb(asked.session, asked.now, campaign_id, steps, past, known=_known())
    except BadDefinition as error:
        raise written_steps.located(asked.body["action_defs"], error) from None


def _shown(steps: list[Step]) -> list[dict[str, Any]]:
    return [written_steps.written(callbacks.without_secrets(step, _known())) for step in steps]


def _known() -> Mapping[str, Any]:
    """The callbacks that a step may use, by id."""
    return cast(Mapping[str, Any], current_app.extensions["callbacks"])


def _consequences(tally: Tally) -> dict[str, Any]:
    counts = {name: getattr(tally, name) for name in _COUNTS}
    return counts | {"by_key": {key: dict(kinds) for key, kinds in tally.by_key.items()}}


_COUNTS = ("subjects", "appear", "move", "never", "vanish", "skipped", "at_once")


OPERATIONS = (
    Operation(
        "readDefinitions",
        "GET",
        "/campaigns/{campaign}/definitions",
        read,
        READ,
        "Read the steps of a campaign's sequence",
        {200: "KnownDefinitions"},
    ),
    Operation(
        "putDefinitions",
        "PUT",
        "/campaigns/{campaign}/definitions",
        save,
        MANAGE,
        "Save the steps of a campaign's sequence; only pending actions of what changed move",
        {200: "SavedDefinitions"},
        query={
            "dry_run": {
                "type": "boolean",
                "default": False,
                "description": "Only say what saving would do.",
            }
        },
        body="Definitions",
    ),
)
