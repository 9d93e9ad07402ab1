"""The people and campaigns of the stories: rows made directly, for tests that begin later."""

import itertools
from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy.orm import Session

from mcs.models import Batch, BatchContact, Campaign, Contact, Scenario

MADE_AT = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
_numbers = itertools.count(1)


def add_campaign(session: Session, **given: object) -> Campaign:
    """A campaign in Berlin from 23 November 2026 to the 30th, with an empty batch."""
    number = next(_numbers)
    fields: dict[str, object] = {
        "uid": f"campaign{number}",
        "name": f"Autumn {number}",
        "start_date": date(2026, 11, 23),
        "end_date": date(2026, 11, 30),
        "timezone": "Europe/Berlin",
        "from_name": "Ada's Shop",
        "from_email": "ada@shop.example",
        "postal_address": "Ada's Shop, 1 Main Street, 10115 Berlin",
        "created_at": MADE_AT,
        "updated_at": MADE_AT,
    }
    campaign = Campaign(**(fields | given))
    campaign.batch = Batch()
    session.add(campaign)
    session.commit()
    return campaign


def add_contact(
    session: Session, campaign: Campaign | None, name: str, **attributes: str
) -> Contact:
    """Ann is ann@people.example, and in the campaign's batch."""
    contact = Contact(
        uid=f"contact{next(_numbers)}",
        email=f"{name.lower()}@people.example",
        email_key=f"{name.lower()}@people.example",
        name=name,
        attributes=attributes,
        created_at=MADE_AT,
        updated_at=MADE_AT,
    )
    session.add(contact)
    session.flush()
    if campaign is not None:
        place = BatchContact(batch_id=campaign.batch.id, contact_id=contact.id, added_at=MADE_AT)
        session.add(place)
    session.commit()
    return contact


def add_scenario(session: Session, campaign: Campaign, **given: object) -> Scenario:
    """A scenario scheduled for Monday 23 November 2026, 10:00 Berlin (09:00 UTC)."""
    fields: dict[str, object] = {
        "campaign_id": campaign.id,
        "name": "Hello",
        "subject": "Hello {{ name }}",
        "content": "Dear {{ name }}, good morning.",
        "date": date(2026, 11, 23),
        "time": time(10, 0),
        "state": "scheduled",
        "created_at": MADE_AT,
        "updated_at": MADE_AT + timedelta(seconds=1),
    }
    scenario = Scenario(**(fields | given))
    session.add(scenario)
    session.commit()
    return scenario


def add_contacts(session: Session, campaign: Campaign, number: int) -> list[Contact]:
    """P0 to P<number-1>, in one commit."""
    contacts = [
        Contact(
            uid=f"contact{next(_numbers)}",
            email=f"p{n}@people.example",
            email_key=f"p{n}@people.example",
            name=f"P{n}",
            attributes={},
            created_at=MADE_AT,
            updated_at=MADE_AT,
        )
        for n in range(number)
    ]
    session.add_all(contacts)
    session.flush()
    batch_id = campaign.batch.id
    session.add_all(
        BatchContact(batch_id=batch_id, contact_id=contact.id, added_at=MADE_AT)
        for contact in contacts
    )
    session.commit()
    return contacts
