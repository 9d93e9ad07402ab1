"""Enrolling subjects over HTTP, and what becomes of them."""

from collections.abc import Mapping
from typing import Any

from mcs.api.access import ENROL, READ
from mcs.api.actions import shown as shown_action
from mcs.api.contacts import person
from mcs.api.filters import SUBJECT, WHOSE, filters
from mcs.api.operations import PAGING, PREFIX, Answer, Asked, Operation, instant
from mcs.api.problems import at, invalid
from mcs.models import Campaign, Schedule
from mcs.services import campaigns, enrolments, schedules, search, sequences
from mcs.services.enrolments import Newcomer, RefusedAt
from mcs.services.schedules import Refused, Subject


def enrol(asked: Asked, campaign: str) -> Answer:
    name = campaigns.known_as(asked.session, campaign)
    one = _newcomer(asked.body, ())
    try:
        who, made, reason = enrolments.enrol(
            asked.session,
            asked.now,
            asked.settings.secret_key,
            name.id,
            one,
            restart=asked.body.get("restart", False),
            since=asked.since,
        )
    except Refused as error:
        raise invalid(at([error.argument], error.reason)) from None
    answer = {
        "id": made.schedule_id,
        "campaign_id": name.id,
        "campaign_key": name.key,
        "subject": who.subject,
        "subject_id": who.subject_id,
        "run": made.run,
        "active": True,
        "contact_id": made.contact_id,
        "started_at": instant(made.started_at),
        "did": made.did,
        "reason": reason,
    }
    if made.did != "began":
        return Answer(answer)
    return Answer(answer, 201, f"{PREFIX}/schedules/{made.schedule_id}")


def enrol_many(asked: Asked, campaign: str) -> Answer:
    campaign_id = campaigns.known_as(asked.session, campaign).id
    given = asked.body["subjects"]
    many = [_newcomer(one, ("subjects", place)) for place, one in enumerate(given)]
    try:
        did, reason = enrolments.enrol_many(
            asked.session, asked.now, asked.settings.secret_key, campaign_id, many
        )
    except RefusedAt as error:
        raise invalid(at(["subjects", error.place, error.argument], error.reason)) from None
    except Refused as error:
        # A step writes to somebody: it is said of each who has nobody to write to.
        unaddressed = [
            at(["subjects", place], error.reason)
            for place, one in enumerate(many)
            if one.person is None and one.contact_id is None
        ]
        raise invalid(*unaddressed) from None
    return Answer({"began": 0, "resumed": 0, "nothing": 0, "reason": reason} | dict(did))


def unschedule(asked: Asked, campaign: str) -> Answer:
    campaign_id = campaigns.known_as(asked.session, campaign).id
    try:
        whose = enrolments.subject_of(asked.session, _newcomer(asked.body, ()))
    except Refused as error:
        raise invalid(at([error.argument], error.reason)) from None
    done = whose is not None and schedules.unschedule(asked.session, asked.now, campaign_id, *whose)
    return Answer({"unscheduled": done})


def outlook(asked: Asked, campaign: str) -> Answer:
    campaign_id = campaigns.known_as(asked.session, campaign).id
    who = Subject(asked.query["subject"], asked.query["subject_id"])
    found = sequences.outlook(asked.session, asked.now, campaign_id, who)
    planned = [
        {
            "action_id": found.name(one),
            "expected_at": instant(one.expected_at),
            "reason": one.reason,
        }
        for one in found.planned
    ]
    return Answer({"run": found.run, "actions": planned})


def listing(asked: Asked) -> Answer:
    found = search.schedules(asked.session, filters(asked), asked.after, asked.limit)
    return asked.page(found, lambda row: _shown(*row))


def read(asked: Asked, schedule_id: int) -> Answer:
    schedule, campaign, found = search.schedule(asked.session, schedule_id)
    return Answer(_shown(schedule, campaign) | {"actions": [shown_action(one) for one in found]})


def _newcomer(given: Mapping[str, Any], path: tuple[int | str, ...]) -> Newcomer:
    contact = given.get("contact")
    return Newcomer(
        given.get("subject", ""),
        str(given.get("subject_id", "")),
        None if contact is None else person(contact, (*path, "contact")),
        given.get("contact_id"),
    )


def _shown(schedule: Schedule, campaign: Campaign) -> dict[str, Any]:
    return {
        "id": schedule.id,
        "campaign_id": campaign.id,
        "campaign_key": campaign.key,
        "subject": schedule.subject,
        "subject_id": schedule.subject_id,
        "run": schedule.run,
        "active": schedule.active,
        "contact_id": schedule.contact_id,
        "started_at": instant(schedule.started_at),
    }


OPERATIONS = (
    Operation(
        "enrol",
        "POST",
        "/campaigns/{campaign}/schedules",
        enrol,
        ENROL,
        "Begin the campaign's sequence for a subject, and take its contact in: twice is once",
        {200: "Enrolled", 201: "Enrolled"},
        body="Enrolment",
        creates=True,
    ),
    Operation(
        "enrolMany",
        "POST",
        "/campaigns/{campaign}/schedules/bulk",
        enrol_many,
        ENROL,
        "Enrol up to 10,000 subjects; as NDJSON, each line is one of them",
        {200: "EnrolledMany"},
        body="Newcomers",
        creates=True,
        lines=True,
    ),
    Operation(
        "unschedule",
        "POST",
        "/campaigns/{campaign}/unschedule",
        unschedule,
        ENROL,
        "Withdraw what is pending of a subject; its history stays",
        {200: "Unscheduled"},
        body="Newcomer",
    ),
    Operation(
        "outlook",
        "GET",
        "/campaigns/{campaign}/outlook",
        outlook,
        READ,
        "Say what would be due when for a subject that is enrolled now, without enrolling it",
        {200: "Outlook"},
        query=SUBJECT,
        needs=tuple(SUBJECT),
    ),
    Operation(
        "listSchedules",
        "GET",
        "/schedules",
        listing,
        READ,
        "List schedules, the earliest first",
        {200: "SchedulePage"},
        query={**WHOSE, **PAGING},
    ),
    Operation(
        "readSchedule",
        "GET",
        "/schedules/{schedule_id}",
        read,
        READ,
        "Read a schedule with its actions, past and to come",
        {200: "ScheduleWithActions"},
    ),
)
