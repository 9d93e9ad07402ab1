"""What schedules and actions can be asked by alike: whose they are."""

from typing import Any

from mcs.api.operations import Asked
from mcs.api.schemas import LARGEST_ID
from mcs.services import campaigns
from mcs.services.schedules import LONGEST_SUBJECT, LONGEST_SUBJECT_ID
from mcs.services.search import Filters

SUBJECT: dict[str, dict[str, Any]] = {
    "subject": {"type": "string", "minLength": 1, "maxLength": LONGEST_SUBJECT},
    "subject_id": {"type": "string", "minLength": 1, "maxLength": LONGEST_SUBJECT_ID},
}
WHOSE: dict[str, dict[str, Any]] = {
    "campaign": {"type": "string", "minLength": 1, "description": "A campaign's id or key."},
    **SUBJECT,
    "contact_id": {"type": "integer", "minimum": 1, "maximum": LARGEST_ID},
    "active": {"type": "boolean", "description": "Whether the subject is enrolled still."},
}


def filters(asked: Asked, **more: Any) -> Filters:
    """The filters that a request names, and ``more``. Raises Unknown for the campaign."""
    query = asked.query
    campaign = query.get("campaign")
    return Filters(
        campaign_id=None if campaign is None else campaigns.known_as(asked.session, campaign).id,
        subject=query.get("subject"),
        subject_id=query.get("subject_id"),
        contact_id=query.get("contact_id"),
        active=query.get("active"),
        **more,
    )
