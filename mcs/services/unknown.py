"""What every service says of an id that leads nowhere."""

from sqlalchemy.orm import Session

from mcs.models import Campaign


class Unknown(LookupError):
    """There is no such row, or it was deleted."""


def find_campaign(session: Session, campaign_id: int) -> Campaign:
    """The campaign of that id. Raises Unknown."""
    campaign = session.get(Campaign, campaign_id)
    if campaign is None:
        raise Unknown(f"campaign {campaign_id}")
    return campaign
