"""Campaigns over HTTP."""

from collections.abc import Callable, Mapping
from typing import Any

from mcs.api import bodies
from mcs.api.access import MANAGE, READ
from mcs.api.operations import PAGING, PREFIX, Answer, Asked, Operation, instant
from mcs.api.problems import at, invalid
from mcs.models import Campaign
from mcs.services import campaigns, search
from mcs.services.campaigns import Fields, RefusedCampaign, TakenKey
from mcs.services.unknown import Unknown, find_campaign

DAYS = ("start_date", "end_date")
NEEDED = ("name", *DAYS, "timezone")


def listing(asked: Asked) -> Answer:
    found = search.campaigns(asked.session, asked.query.get("active"), asked.after, asked.limit)
    return asked.page(found, lambda campaign: shown(asked, campaign))


def read(asked: Asked, campaign: str) -> Answer:
    return Answer(shown(asked, campaigns.named(asked.session, campaign)))


def create(asked: Asked) -> Answer:
    return _create(asked, asked.body.get("key"), asked.body)


def upsert(asked: Asked, campaign: str) -> Answer:
    """Change the campaign, or make one of that key; what is left out stays as it is."""
    try:
        campaign_id = campaigns.known_as(asked.session, campaign).id
    except Unknown:
        if campaign.isdigit():
            raise
        try:
            return _create(asked, campaign, asked.body)
        except TakenKey:
            # Somebody made it in the same moment.
            campaign_id = campaigns.known_as(asked.session, campaign).id
    given = _fields(asked.body)
    active = asked.body.get("active")
    campaigns.change(asked.session, asked.now, asked.queue, campaign_id, given, active, None)
    return Answer(shown(asked, find_campaign(asked.session, campaign_id)))


def _switch(verb: Callable[..., object]) -> Callable[..., Answer]:
    def switched(asked: Asked, campaign: str) -> Answer:
        campaign_id = campaigns.known_as(asked.session, campaign).id
        verb(asked.session, asked.now, asked.queue, campaign_id, None)
        return Answer(shown(asked, find_campaign(asked.session, campaign_id)))

    return switched


def shown(asked: Asked, campaign: Campaign) -> dict[str, Any]:
    """A campaign as it is answered."""
    return {
        "id": campaign.id,
        "key": campaign.key,
        "name": campaign.name,
        "description": campaign.description,
        "start_date": campaign.start_date.isoformat(),
        "end_date": campaign.end_date.isoformat(),
        "timezone": campaign.timezone,
        "from_name": campaign.from_name,
        "from_email": campaign.from_email,
        "reply_to": campaign.reply_to,
        "postal_address": campaign.postal_address,
        "send_rate": campaign.send_rate,
        "active": campaign.active,
        "archived": campaign.archived_at is not None,
        "state": campaigns.state_of(campaign, asked.now),
        "created_at": instant(campaign.created_at),
        "updated_at": instant(campaign.updated_at),
    }


def _create(asked: Asked, key: str | None, body: Mapping[str, Any]) -> Answer:
    missing = [name for name in NEEDED if name not in body]
    if missing:
        raise invalid(*(at([name], "a new campaign needs it") for name in missing))
    fields = Fields(**({"description": ""} | _fields(body)))
    active = body.get("active", True)
    try:
        made = campaigns.create(
            asked.session, asked.now, fields, None, key=key, active=active, uid=asked.mark
        )
    except RefusedCampaign as refusal:
        # The key is a part of the address there.
        if set(refusal.reasons) == {"key"} and "key" not in body:
            raise Unknown(f"campaign {key}: {refusal.reasons['key']}") from None
        raise
    campaign = find_campaign(asked.session, made)
    return Answer(shown(asked, campaign), 201, f"{PREFIX}/campaigns/{made}")


def _fields(body: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in body.items() if name not in ("key", "active")}
    return given | {name: bodies.day(given[name]) for name in DAYS if name in given}


OPERATIONS = (
    Operation(
        "listCampaigns",
        "GET",
        "/campaigns",
        listing,
        READ,
        "List campaigns, the earliest first",
        {200: "CampaignPage"},
        query={"active": {"type": "boolean"}, **PAGING},
    ),
    Operation(
        "createCampaign",
        "POST",
        "/campaigns",
        create,
        MANAGE,
        "Create a campaign",
        {201: "Campaign"},
        body="NewCampaign",
        creates=True,
        conflicts=True,
    ),
    Operation(
        "readCampaign",
        "GET",
        "/campaigns/{campaign}",
        read,
        READ,
        "Read a campaign",
        {200: "Campaign"},
    ),
    Operation(
        "putCampaign",
        "PUT",
        "/campaigns/{campaign}",
        upsert,
        MANAGE,
        "Change a campaign, or create one of this key; what is left out stays as it is",
        {200: "Campaign", 201: "Campaign"},
        body="CampaignChanges",
    ),
    *(
        Operation(
            f"{name}Campaign",
            "POST",
            f"/campaigns/{{campaign}}/{name}",
            _switch(verb),
            MANAGE,
            summary,
            {200: "Campaign"},
        )
        for name, verb, summary in (
            (
                "activate",
                campaigns.activate,
                "Switch a campaign on: what was withdrawn and never run comes back, counted from"
                " each subject's original start",
            ),
            (
                "deactivate",
                campaigns.deactivate,
                "Switch a campaign off: what is pending is withdrawn",
            ),
            (
                "archive",
                campaigns.archive,
                "Switch a campaign off and put it out of sight; its history stays",
            ),
            (
                "unarchive",
                campaigns.unarchive,
                "Bring an archived campaign back, switched off: nothing runs until it is activated",
            ),
        )
    ),
)
