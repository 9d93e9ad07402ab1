"""Previews: a message as one person would get it, made by the code that sends."""

import secrets
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from mcs.config import Settings, catcher_port
from mcs.core import content
from mcs.core.message import BadTemplate, CannotCompose, Composer, Person, Preview
from mcs.gateways import mailer
from mcs.models import Batch, BatchContact, Campaign, Contact, Scenario
from mcs.services import audiences, audit, letters
from mcs.services.scenarios import Fields
from mcs.services.transactions import writing
from mcs.services.unknown import find_campaign

TEST_MARK = "[Test] "
# Links of previews lead here: a preview must not be able to unsubscribe a real person.
NOWHERE = "/u/preview"
_OFFERED = 20


@dataclass(frozen=True)
class Shown:
    """A message as ``person`` would get it, or the reason why this one person cannot get it."""

    person: Person
    preview: Preview | None
    reason: str


def readers(
    session: Session, campaign_id: int, search: str = "", *, excludes_id: int | None = None
) -> list[Contact]:
    """Contacts of the batch to look through the eyes of: the first that match and may be written
    to, without those whom the scenario ``excludes_id`` served. Who is not to get the message is no
    example of what people get."""
    query = (
        select(Contact)
        .join(BatchContact, BatchContact.contact_id == Contact.id)
        .join(Batch, Batch.id == BatchContact.batch_id)
        .where(
            Batch.campaign_id == campaign_id,
            Contact.deleted_at.is_(None),
            ~audiences.suppressed_in(campaign_id).exists(),
        )
    )
    if excludes_id is not None:
        query = query.where(audiences.not_served_by(excludes_id))
    if search:
        query = query.where(
            or_(
                Contact.email_key.contains(search.lower(), autoescape=True),
                Contact.name.icontains(search, autoescape=True),
            )
        )
    return list(session.scalars(query.order_by(BatchContact.contact_id).limit(_OFFERED)))


def preview(
    session: Session,
    settings: Settings,
    campaign_id: int,
    fields: Fields,
    reader: str = "",
    *,
    excludes_id: int | None = None,
) -> Shown:
    """The message as the first of the ``readers`` that matches ``reader`` would get it.

    Where nobody matches, as a made-up person with every field filled in. Raises Unknown.
    """
    campaign = find_campaign(session, campaign_id)
    person = _person(session, settings, campaign, fields, reader, excludes_id)
    try:
        shown = _composer(settings, campaign, fields).preview(person)
    except (BadTemplate, CannotCompose) as error:
        return Shown(person, None, str(error))
    return Shown(person, shown, "")


def send_test(
    session: Session,
    now: datetime,
    settings: Settings,
    campaign_id: int,
    fields: Fields,
    reader: str,
    to: str,
    *,
    excludes_id: int | None = None,
    scenario_id: int | None = None,
    by: int | None = None,
) -> str:
    """Send the message, as ``reader`` would get it, to ``to``; what the mail server answered.

    Its subject begins with TEST_MARK. Raises mailer.NotSent, BadTemplate and CannotCompose,
    each with a sentence.
    """
    campaign = find_campaign(session, campaign_id)
    person = _person(session, settings, campaign, fields, reader, excludes_id)
    marked = replace(fields, subject=TEST_MARK + fields.subject)
    message = _composer(settings, campaign, marked).compose(person._replace(email=to), now)
    answer = mailer.send(
        _server(settings),
        message.envelope_from,
        message.envelope_to,
        message.data,
        message.needs_smtputf8,
    )
    with writing(session):
        detail = {"name": fields.name, "to": to}
        audit.note(session, now, by, "sent a test of", "scenario", scenario_id, **detail)
    return answer


def _composer(settings: Settings, campaign: Campaign, fields: Fields) -> Composer:
    return Composer(letters.template(settings, campaign, Scenario(**asdict(fields))))


def _person(
    session: Session,
    settings: Settings,
    campaign: Campaign,
    fields: Fields,
    reader: str,
    excludes_id: int | None,
) -> Person:
    found = readers(session, campaign.id, reader, excludes_id=excludes_id)
    opaque = secrets.token_hex(16)
    nowhere = settings.base_url + NOWHERE
    if found:
        contact = found[0]
        return Person(contact.email, contact.name, contact.attributes, opaque, nowhere)
    made_up = content.fields_used(fields.subject, fields.content) - set(content.BUILT_IN_FIELDS)
    attributes = {name: f"[{name}]" for name in made_up}
    return Person("ann@example.com", "Ann Example", attributes, opaque, nowhere)


def _server(settings: Settings) -> mailer.MailServer:
    return mailer.MailServer(
        host=settings.mail_server,
        # The embedded catcher may have moved to another port since these settings were read.
        port=catcher_port(settings.instance) if settings.embedded_mail else settings.mail_port,
        username=settings.mail_username,
        password=settings.mail_password,
        use_tls=settings.mail_use_tls,
        use_ssl=settings.mail_use_ssl,
    )
