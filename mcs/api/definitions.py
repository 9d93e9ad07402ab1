"""The steps of a campaign's sequence over HTTP."""

from typing import Any

from mcs.api.access import MANAGE, READ
from mcs.api.operations import Answer, Asked, Operation
from mcs.api.problems import at, invalid
from mcs.core.sequences import PAST_SKIP
from mcs.services import campaigns, definitions, sequences, written_steps
from mcs.services.definitions import Step
from mcs.services.schedules import Tally
from mcs.services.written_steps import BadActionDef


def read(asked: Asked, campaign: str) -> Answer:
    campaign_id = campaigns.known_as(asked.session, campaign).id
    return Answer({"action_defs": _shown(definitions.steps_of(asked.session, campaign_id))})


def save(asked: Asked, campaign: str) -> Answer:
    """Save the steps, or with dry_run only say what that would do."""
    campaign_id = campaigns.known_as(asked.session, campaign).id
    try:
        steps = written_steps.read(asked.body["action_defs"])
    except BadActionDef as error:
        raise invalid(at(["action_defs", *error.path], error.reason)) from None
    known = definitions.steps_of(asked.session, campaign_id)
    steps = written_steps.with_known_secrets(steps, known)
    dry = asked.query.get("dry_run", False)
    verb = sequences.preview if dry else sequences.define
    past = asked.body.get("past", PAST_SKIP)
    tally = verb(asked.session, asked.now, campaign_id, steps, past)
    return Answer(
        {"action_defs": _shown(steps), "saved": not dry, "consequences": _consequences(tally)}
    )


def _shown(steps: list[Step]) -> list[dict[str, Any]]:
    return [written_steps.written(written_steps.without_secrets(step)) for step in steps]


def _consequences(tally: Tally) -> dict[str, Any]:
    counts = {name: getattr(tally, name) for name in _COUNTS}
    return counts | {"by_key": {key: dict(kinds) for key, kinds in tally.by_key.items()}}


_COUNTS = ("subjects", "appear", "move", "vanish", "skipped", "at_once")


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
