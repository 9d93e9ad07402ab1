"""The schemas of what is sent and answered (JSON Schema 2020-12): the same ones are documented,
and held against each body that comes."""

from collections.abc import Mapping
from typing import Any

from mcs.core.sequences import MOST_DEFINITIONS, ON_FAILURE, PAST
from mcs.core.states import ACTION_STATES
from mcs.core.timelines import CAMPAIGN_STATES
from mcs.services.campaigns import FASTEST, LONGEST, SLOWEST
from mcs.services.people import LONGEST_NAME
from mcs.services.schedules import LONGEST_SUBJECT, LONGEST_SUBJECT_ID

Schema = dict[str, Any]

MOST_AT_ONCE = 10_000
LARGEST_ID = 2**31 - 1
LARGEST_BIG_ID = 2**63 - 1  # Of an action.
MOST_ATTRIBUTES = 100
LONGEST_ATTRIBUTE, LONGEST_VALUE = 50, 1000
LONGEST_ADDRESS = 320


def _text(longest: int, shortest: int = 0, **more: Any) -> Schema:
    return {"type": "string", "minLength": shortest, "maxLength": longest, **more}


def _number(low: int, high: int, **more: Any) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high, **more}


def _object(
    properties: Mapping[str, Schema], required: tuple[str, ...] = (), **more: Any
) -> Schema:
    """What is sent: nothing else may be in it."""
    needed = {"required": list(required)} if required else {}
    return {
        "type": "object",
        "properties": dict(properties),
        **needed,
        "additionalProperties": False,
        **more,
    }


def _answer(**properties: Schema) -> Schema:
    """What is answered: all of it is always there."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _page(name: str) -> Schema:
    return _answer(
        items={"type": "array", "items": _ref(name)},
        next=_or_null(_text(4000, description="The address of the page after this one.")),
    )


_STRING: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_FLAG: Schema = {"type": "boolean"}
_DAY: Schema = {"type": "string", "format": "date"}
_MOMENT: Schema = {
    "type": "string",
    "format": "date-time",
    "description": "RFC 3339, in UTC.",
    "examples": ["2026-11-24T09:00:00Z"],
}
_LATER = _or_null(_MOMENT)
_HALTED: Schema = {
    "type": "string",
    "description": "Why nothing is planned, where nothing is: the campaign is switched off or"
    " archived, so that what was enrolled begins when it is switched on; or it is over.",
    "examples": ["the campaign was switched off"],
}
_ID = _number(1, LARGEST_ID)
_SUBJECT = _text(LONGEST_SUBJECT, 1, description="The subject's kind.", examples=["order"])
_SUBJECT_ID: Schema = {
    **_text(LONGEST_SUBJECT_ID, 1),
    "type": ["string", "integer"],
    "description": 'The subject\'s id; 17 and "17" are the same.',
    "examples": ["A-17"],
}

_CAMPAIGN_FIELDS: dict[str, Schema] = {
    "name": _text(LONGEST["name"], 1),
    "description": _text(LONGEST["description"]),
    "start_date": {**_DAY, "description": "The first day, included."},
    "end_date": {**_DAY, "description": "The last day, included."},
    "timezone": _text(64, 1, examples=["Europe/Berlin"]),
    "from_name": _text(LONGEST["from_name"]),
    "from_email": _text(LONGEST_ADDRESS),
    "reply_to": _text(LONGEST_ADDRESS),
    "postal_address": _text(LONGEST["postal_address"]),
    "send_rate": {"type": ["number", "null"], "minimum": SLOWEST, "maximum": FASTEST},
    "active": _FLAG,
}
_KEY = _text(
    100,
    1,
    description="What programs call the campaign by: letters, digits, dots, - and _; not digits"
    " alone.",
    pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$",
    examples=["after-purchase"],
)
_INTERVAL_FIELDS: dict[str, Schema] = {
    "offset": _text(200, 1, examples=["2days", "1day 2hours", "2days-5days"]),
    "time": _text(100, examples=["10:00", "10:00-15:00"]),
    "days": _text(200, examples=["mon-fri"]),
    "excluded": _text(20_000, examples=["2026-12-25, 2026-12-26"]),
}
_ACTION_DEF_FIELDS: dict[str, Schema] = {
    "id": _text(100, 1, examples=["review"]),
    "callback": _text(100, 1, examples=["send_email", "webhook"]),
    # What is wrong in it can be told only where it is no choice between two schemas.
    "interval": {
        **_INTERVAL_FIELDS["offset"],
        **_object(_INTERVAL_FIELDS, ("offset",)),
        "type": ["string", "object"],
        "description": "An offset alone, or with a time, weekdays and dates left out.",
    },
    "repeat": _text(200, examples=["every 1month, 6 times"]),
    "after": _text(110, examples=["thanks"]),
    "on_failure": {"type": "string", "enum": list(ON_FAILURE)},
    "config": {
        "type": "object",
        "description": "What the callback needs. A secret is never shown again; where one is left"
        " out, the one that is known stays.",
    },
    "attempts": _number(
        1,
        20,
        description="How often it is tried in all; left out, a webhook or notify 5 times, and any"
        " other once.",
    ),
}
_PERSON_FIELDS: dict[str, Schema] = {
    "email": _text(LONGEST_ADDRESS, 1, examples=["jane@people.example"]),
    "name": _text(LONGEST_NAME),
    "attributes": {
        "type": "object",
        "description": "Merge fields: small letters, digits and _.",
        "maxProperties": MOST_ATTRIBUTES,
        "additionalProperties": _text(LONGEST_VALUE),
        "examples": [{"company": "Kettles Ltd"}],
    },
}
_NEWCOMER_FIELDS: dict[str, Schema] = {
    "subject": _SUBJECT,
    "subject_id": _SUBJECT_ID,
    "contact": _ref("Person"),
    "contact_id": _ID,
}
# A subject, a contact, or both; a subject is a kind and an id.
_WHO: Schema = {
    "dependentRequired": {"subject": ["subject_id"], "subject_id": ["subject"]},
    "anyOf": [{"required": [name]} for name in ("subject", "contact", "contact_id")],
    "not": {"required": ["contact", "contact_id"]},
}
_OF_SCHEDULE: dict[str, Schema] = {
    "campaign_id": _ID,
    "campaign_key": _or_null(_STRING),
    "subject": _STRING,
    "subject_id": _STRING,
    "run": _number(1, LARGEST_ID),
    "active": {**_FLAG, "description": "Whether the subject is enrolled still."},
    "contact_id": _or_null(_ID),
}

SCHEMAS: dict[str, Schema] = {
    "Problem": {
        "type": "object",
        "properties": {
            "type": {**_STRING, "examples": ["urn:mcs:problem:invalid"]},
            "title": _STRING,
            "status": _number(400, 599),
            "detail": _STRING,
            "errors": {"type": "array", "items": _ref("ProblemError")},
        },
        "required": ["type", "title", "status"],
    },
    "ProblemError": {
        "type": "object",
        "properties": {
            "pointer": {**_STRING, "description": "Where in the body (RFC 6901)."},
            "parameter": {**_STRING, "description": "Which parameter of the address."},
            "detail": _STRING,
        },
        "required": ["detail"],
    },
    "NewCampaign": _object(
        {"key": _KEY, **_CAMPAIGN_FIELDS}, ("name", "start_date", "end_date", "timezone")
    ),
    "CampaignChanges": _object(_CAMPAIGN_FIELDS),
    "Campaign": _answer(
        id=_ID,
        key=_or_null(_STRING),
        **{name: _CAMPAIGN_FIELDS[name] for name in _CAMPAIGN_FIELDS},
        archived=_FLAG,
        state={"type": "string", "enum": list(CAMPAIGN_STATES)},
        created_at=_MOMENT,
        updated_at=_MOMENT,
    ),
    "CampaignPage": _page("Campaign"),
    "ActionDef": _object(_ACTION_DEF_FIELDS, ("id", "callback", "interval")),
    "Definitions": _object(
        {
            "action_defs": {
                "type": "array",
                "items": _ref("ActionDef"),
                "maxItems": MOST_DEFINITIONS,
            },
            "past": {
                "type": "string",
                "enum": list(PAST),
                "description": "What becomes of a step whose moment has passed for a subject:"
                " skipped (the default), or run at once.",
            },
        },
        ("action_defs",),
    ),
    "KnownDefinitions": _answer(action_defs={"type": "array", "items": _ref("ActionDef")}),
    "SavedDefinitions": _answer(
        action_defs={"type": "array", "items": _ref("ActionDef")},
        saved={**_FLAG, "description": "False where it was only asked what it would do."},
        consequences=_ref("Consequences"),
    ),
    "Consequences": _answer(
        subjects={**_COUNT, "description": "Subjects of which an action changes."},
        appear=_COUNT,
        move=_COUNT,
        never={
            **_COUNT,
            "description": "New, and will not fall due: they would after the campaign's last day,"
            " or what they come after was left out.",
        },
        vanish=_COUNT,
        skipped={**_COUNT, "description": "Not run, since their moment has passed."},
        at_once={**_COUNT, "description": "Run at once, since their moment has passed."},
        by_key={
            "type": "object",
            "additionalProperties": {"type": "object", "additionalProperties": _COUNT},
        },
    ),
    "Person": _object(_PERSON_FIELDS, ("email",)),
    "Contact": _answer(
        id=_ID,
        email=_STRING,
        name=_STRING,
        attributes={"type": "object"},
        suppressed={
            **_or_null(_STRING),
            "description": "Why nobody writes to it: unsubscribed, bounced, complained, blocked.",
        },
        created_at=_MOMENT,
        updated_at=_MOMENT,
    ),
    "ContactPage": _page("Contact"),
    "Newcomer": _object(_NEWCOMER_FIELDS, **_WHO),
    "Enrolment": _object(
        {
            **_NEWCOMER_FIELDS,
            "restart": {**_FLAG, "description": "Begin a new run, whatever there is."},
        },
        **_WHO,
    ),
    "Newcomers": _object(
        {
            "subjects": {
                "type": "array",
                "items": _ref("Newcomer"),
                "minItems": 1,
                "maxItems": MOST_AT_ONCE,
            }
        },
        ("subjects",),
    ),
    "Schedule": _answer(id=_ID, **_OF_SCHEDULE, started_at=_MOMENT),
    "Enrolled": _answer(
        id=_ID,
        **_OF_SCHEDULE,
        started_at=_MOMENT,
        did={
            "type": "string",
            "enum": ["began", "resumed", "nothing"],
            "description": "What enrolling did; nothing, where the subject was enrolled already.",
        },
        reason=_HALTED,
    ),
    "EnrolledMany": _answer(began=_COUNT, resumed=_COUNT, nothing=_COUNT, reason=_HALTED),
    "SchedulePage": _page("Schedule"),
    "ScheduleWithActions": _answer(
        id=_ID,
        **_OF_SCHEDULE,
        started_at=_MOMENT,
        actions={"type": "array", "items": _ref("Action")},
    ),
    "Unscheduled": _answer(
        unscheduled={**_FLAG, "description": "Whether the subject was enrolled."}
    ),
    "Action": _answer(
        id=_number(1, LARGEST_BIG_ID),
        schedule_id=_ID,
        **_OF_SCHEDULE,
        action_id={**_STRING, "examples": ["review", "reminder.2"]},
        state={"type": "string", "enum": list(ACTION_STATES)},
        reason={**_STRING, "description": "Why it was cancelled, where it was."},
        expected_at={**_LATER, "description": "None while it waits for another action."},
        due_at={**_LATER, "description": "When it is tried next: a retry moves it."},
        started_at=_LATER,
        completed_at=_LATER,
        ended_at=_LATER,
        attempts=_COUNT,
        error={
            **_or_null(_STRING),
            "description": "What the last attempt failed with, in one line.",
        },
        result={"description": "What the callback answered: any JSON."},
    ),
    "ActionPage": _page("Action"),
    "Outlook": _answer(
        run=_number(1, LARGEST_ID), actions={"type": "array", "items": _ref("PlannedAction")}
    ),
    "PlannedAction": _answer(
        action_id=_STRING,
        expected_at=_LATER,
        reason={**_STRING, "description": "Why it will not happen, where it will not."},
    ),
    "Status": _answer(
        counts={
            "type": "object",
            "properties": dict.fromkeys(ACTION_STATES, _COUNT),
            "required": list(ACTION_STATES),
        },
        waiting={**_COUNT, "description": "Pending, and waiting for another action."},
        overdue={**_COUNT, "description": "Due, and not begun yet."},
        next_due=_LATER,
        drift=_answer(
            **{
                name: _or_null({"type": "number", "description": "Seconds."})
                for name in ("p50", "p95", "max")
            }
        ),
    ),
}
