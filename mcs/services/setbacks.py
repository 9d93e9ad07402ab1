"""Setbacks: what to do where the host's clock has been set back while an emailer is being sent."""

from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from mcs.models import Delivery, Emailer, Slice
from mcs.services.slices import lies_in
from mcs.services.transactions import NO_SYNC, writing


def make_due(session: Session, now: datetime) -> None:
    """Have what nobody has tried yet be due now: its moment, that at which the emailer started, is
    to come once more, hours later perhaps.

    What waits for another try waits for the moment that was set for it.
    """
    ahead = select(Emailer.id).where(Emailer.state == "sending", Emailer.started_at > now)
    emailer_ids = session.scalars(ahead).all()
    session.commit()
    if not emailer_ids:
        return
    untried = select(Delivery.id).where(
        lies_in(Slice), Delivery.state == "pending", Delivery.attempts == 0
    )
    with writing(session):
        session.execute(
            update(Slice)
            .where(
                Slice.emailer_id.in_(emailer_ids),
                Slice.claim_token.is_(None),
                Slice.pending > 0,
                Slice.due_at > now,
                untried.exists(),
            )
            .values(due_at=now)
            .execution_options(**NO_SYNC)
        )
