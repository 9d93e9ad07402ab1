"""Actions over HTTP: what is due, what became of it, and how it all stands."""

from collections.abc import Callable
from typing import Any

from mcs.api.access import MANAGE, READ
from mcs.api.filters import WHOSE, filters
from mcs.api.operations import PAGING, Answer, Asked, Operation, instant
from mcs.api.problems import Problem, invalid, of_parameter
from mcs.core import words
from mcs.core.sequences import read_action_id
from mcs.core.states import ACTION_STATES
from mcs.services import actions, campaigns, failures, search
from mcs.services.actions import Found

_MOMENT = {"type": "string", "format": "date-time"}


def listing(asked: Asked) -> Answer:
    query = asked.query
    wanted = filters(
        asked,
        states=query.get("state", ()),
        action_ids=_named(query.get("action_id", ())),
        due_from=query.get("due_from"),
        due_to=query.get("due_to"),
    )
    return asked.page(search.due(asked.session, wanted, asked.after, asked.limit), shown)


def read(asked: Asked, action_id: int) -> Answer:
    return Answer(shown(search.action(asked.session, action_id)))


def retry(asked: Asked, action_id: int) -> Answer:
    if not failures.retry_one(asked.session, asked.now, action_id):
        state = search.action(asked.session, action_id).action.state
        said = f"It is {state}: only a failed action is tried again."
        if state == "failed":
            said = "Nobody wants it any more: its subject, step or campaign is switched off."
        raise Problem("conflict", said)
    return Answer(shown(search.action(asked.session, action_id)))


def status(asked: Asked) -> Answer:
    return _status(asked, None)


def status_of_campaign(asked: Asked, campaign: str) -> Answer:
    return _status(asked, [campaigns.known_as(asked.session, campaign).id])


def shown(found: Found) -> dict[str, Any]:
    """An action as it is answered."""
    action, schedule, campaign = found.action, found.schedule, found.campaign
    return {
        "id": action.id,
        "schedule_id": schedule.id,
        "campaign_id": campaign.id,
        "campaign_key": campaign.key,
        "subject": schedule.subject,
        "subject_id": schedule.subject_id,
        "run": schedule.run,
        "active": schedule.active,
        "contact_id": schedule.contact_id,
        "action_id": found.action_id,
        "state": action.state,
        "reason": action.reason,
        "expected_at": instant(action.expected_at),
        "due_at": instant(action.due_at),
        "started_at": instant(action.started_at),
        "completed_at": instant(action.completed_at),
        "ended_at": instant(action.ended_at),
        "attempts": action.attempts,
        "error": None if action.error is None else words.error(action.error),
        "result": action.result,
    }


def _status(asked: Asked, campaign_ids: list[int] | None) -> Answer:
    told = actions.status(asked.session, asked.now, campaign_ids)
    return Answer(
        {
            "counts": dict(told.counts),
            "waiting": told.waiting,
            "overdue": told.overdue,
            "next_due": instant(told.next_due),
            "drift": {"p50": told.drift_p50, "p95": told.drift_p95, "max": told.drift_max},
        }
    )


def _named(action_ids: list[str]) -> list[str]:
    for text in action_ids:
        try:
            read_action_id(text)
        except ValueError as error:
            raise invalid(of_parameter("action_id", str(error))) from None
    return action_ids


def _reading(
    name: str, rule: str, verb: Callable[..., Answer], summary: str, answer: str
) -> Operation:
    return Operation(name, "GET", rule, verb, READ, summary, {200: answer})


OPERATIONS = (
    Operation(
        "listActions",
        "GET",
        "/actions",
        listing,
        READ,
        "List actions by whose they are, state, name, and when they are to be",
        {200: "ActionPage"},
        query={
            **WHOSE,
            "state": {
                "type": "array",
                "items": {"type": "string", "enum": list(ACTION_STATES)},
                "description": "One or more of them.",
            },
            "action_id": {
                "type": "array",
                "items": {
                    "type": "string",
                    "maxLength": 110,
                    "pattern": r"^[A-Za-z0-9_-]+(\.[0-9]{1,4})?$",
                },
                "description": "One or more; the id of a repeating step means each of its actions.",
            },
            "due_from": {**_MOMENT, "description": "`expected_at`, this moment included."},
            "due_to": {**_MOMENT, "description": "`expected_at`, this moment included."},
            **PAGING,
        },
    ),
    _reading("readAction", "/actions/{action_id}", read, "Read an action", "Action"),
    Operation(
        "retryAction",
        "POST",
        "/actions/{action_id}/retry",
        retry,
        MANAGE,
        "Try a failed action again, at once",
        {200: "Action"},
        conflicts=True,
    ),
    _reading("status", "/status", status, "Say how all actions stand", "Status"),
    _reading(
        "campaignStatus",
        "/campaigns/{campaign}/status",
        status_of_campaign,
        "Say how a campaign's actions stand",
        "Status",
    ),
)
