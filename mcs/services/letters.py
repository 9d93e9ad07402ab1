"""Letters: a scenario as the message that its campaign sends to one contact."""

from mcs.config import Settings
from mcs.core.message import MessageTemplate, Person
from mcs.core.tokens import UNSUBSCRIBE, Recipient, Signer
from mcs.models import Campaign, Scenario
from mcs.services.slice_claims import Due


def template(settings: Settings, campaign: Campaign, scenario: Scenario) -> MessageTemplate:
    """What all the messages of the scenario share."""
    return MessageTemplate(
        subject=scenario.subject,
        content=scenario.content,
        format=scenario.format,
        from_name=campaign.from_name,
        from_email=campaign.from_email,
        reply_to=campaign.reply_to,
        postal_address=campaign.postal_address,
        campaign_uid=campaign.uid,
        campaign_name=campaign.name,
        base_url=settings.base_url,
        mail_domain=settings.mail_domain,
    )


class Unsubscribing:
    """Makes the unsubscribe links of one campaign."""

    def __init__(self, settings: Settings, campaign_uid: str) -> None:
        self._signer = Signer(settings.unsubscribe_keys, UNSUBSCRIBE)
        self._base_url = settings.base_url
        self._campaign_uid = campaign_uid

    def url(self, contact_uid: str) -> str:
        """The link for this contact: https in production, MCS_BASE_URL as it is elsewhere."""
        token = self._signer.sign(Recipient(contact_uid, self._campaign_uid))
        return f"{self._base_url}/u/{token}"


def person(due: Due, links: Unsubscribing) -> Person:
    """The contact of a delivery, as the composer wants to know it."""
    return Person(
        email=due.email,
        name=due.name,
        attributes=due.attributes,
        opaque=due.opaque,
        unsubscribe_url=links.url(due.contact_uid),
    )
