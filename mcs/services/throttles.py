"""Throttles: slots of a rate limit, reserved in SQL: it holds across workers and restarts."""

from datetime import datetime

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from mcs.core.pacing import window_length
from mcs.models import Throttle
from mcs.services.transactions import writing

INSTALLATION = "installation"


def of_campaign(campaign_id: int) -> str:
    """The key of a campaign's own limit."""
    return f"campaign-{campaign_id}"


def reserve(session: Session, now: datetime, key: str, rate: float, slots: int) -> datetime:
    """Reserve the next slots of a limit of ``rate`` a second; when the first of them is.

    Slots that nobody reserved in time are gone: there is no catching up.
    """
    while True:
        with writing(session):
            next_at = session.scalars(
                select(Throttle.next_at).where(Throttle.key == key).with_for_update()
            ).first()
            if next_at is not None:
                start = max(next_at, now)
                session.execute(
                    update(Throttle)
                    .where(Throttle.key == key)
                    .values(next_at=start + window_length(rate, slots))
                    .execution_options(synchronize_session=False)
                )
                return start
        _make(session, now, key)


def _make(session: Session, now: datetime, key: str) -> None:
    try:
        with writing(session):
            session.execute(insert(Throttle).values(key=key, next_at=now))
    except IntegrityError:
        return  # Another worker was first.
