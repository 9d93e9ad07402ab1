"""A sample campaign: made-up people and an email two minutes from now, to see the whole circle."""

import secrets
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import select
from sqlalchemy.orm import Session

from mcs.gateways.jobqueue import JobQueue
from mcs.models import Batch, BatchContact, Campaign, Contact, Scenario
from mcs.services import audit, planning
from mcs.services.transactions import writing

# Nobody can have an address under .example (RFC 2606): mail to it reaches the mailbox page only.
PEOPLE = (
    ("Ada Fischer", "ada.fischer", "Fischer Tools"),
    ("Ben Okafor", "ben.okafor", "Okafor & Sons"),
    ("Chloé Martin", "chloe.martin", "Atelier Martin"),
    ("Daniel Novák", "daniel.novak", ""),
    ("Elif Yılmaz", "elif.yilmaz", "Yılmaz Textiles"),
    ("Farah Haddad", "farah.haddad", ""),
    ("Grace O'Neill", "grace.oneill", "O'Neill Garden Centre"),
    ("Hiroshi Tanaka", "hiroshi.tanaka", "Tanaka Foods"),
    ("Inés García", "ines.garcia", "Librería García"),
    ("Jonas Lindqvist", "jonas.lindqvist", "Lindqvist Bygg"),
    ("Karin Schöne", "karin.schoene", ""),
    ("Lucas Pereira", "lucas.pereira", "Pereira Café"),
)
DOMAIN = "sample.example"
IN = timedelta(minutes=2)
DAYS = 7

SUBJECT = "Hello {{ first_name }}, this is MCS"
CONTENT = """Hello {{ first_name }},

this is a sample: one message of a campaign to twelve people who do not exist.
{% if company %}It knows that you work at {{ company }}.{% else %}It knows no company of yours, and says so gracefully.{% endif %}

Each of you got it once, at the minute that was chosen, with a link to unsubscribe.

Kind regards
The sample campaign"""  # noqa: E501 - as it is shown in the editor


def make(session: Session, now: datetime, queue: JobQueue, zone: ZoneInfo, by: int | None) -> int:
    """Make a campaign of today and seven days more, its contacts, and a scenario that goes out in
    two minutes, to the nearest whole one; the scenario's id. The contacts are made only once."""
    at = (now + IN + timedelta(seconds=30)).astimezone(zone).replace(second=0, microsecond=0)
    with writing(session):
        campaign = _campaign(now, at, zone)
        session.add(campaign)
        session.flush()
        for contact in _contacts(session, now):
            session.add(
                BatchContact(batch_id=campaign.batch.id, contact_id=contact.id, added_at=now)
            )
        scenario = Scenario(
            campaign_id=campaign.id,
            name="A first hello",
            subject=SUBJECT,
            content=CONTENT,
            format="text",
            date=at.date(),
            time=at.time(),
            state="scheduled",
            created_at=now,
            updated_at=now,
        )
        session.add(scenario)
        session.flush()
        audit.note(session, now, by, "made", "campaign", campaign.id, name=campaign.name)
        campaign_id, scenario_id = campaign.id, scenario.id
    planning.plan_campaign(session, now, queue, campaign_id)
    return scenario_id


def _campaign(now: datetime, at: datetime, zone: ZoneInfo) -> Campaign:
    today = now.astimezone(zone).date()
    return Campaign(
        uid=secrets.token_urlsafe(16),
        name="Sample campaign",
        description="Made by the button on the home page. Archive it when you have seen enough.",
        start_date=today,
        end_date=max(today + timedelta(days=DAYS), at.date()),
        timezone=zone.key,
        from_name="Sample Shop",
        from_email="hello@shop.example",
        postal_address="Sample Shop\n1 Example Street\n12345 Sampletown",
        created_at=now,
        updated_at=now,
        batch=Batch(),
    )


def _contacts(session: Session, now: datetime) -> list[Contact]:
    keys = [f"{local}@{DOMAIN}" for _, local, _ in PEOPLE]
    found = select(Contact).where(Contact.email_key.in_(keys))
    known = {contact.email_key: contact for contact in session.scalars(found)}
    contacts = [
        known.get(key)
        or Contact(
            uid=secrets.token_urlsafe(16),
            email=key,
            email_key=key,
            name=name,
            attributes={"company": company} if company else {},
            created_at=now,
            updated_at=now,
        )
        for key, (name, _, company) in zip(keys, PEOPLE, strict=True)
    ]
    session.add_all(contacts)
    session.flush()
    return contacts
