"""Unwanted: deliveries that must not go again, and why.

What is in flight cannot be skipped when an address is suppressed, an emailer cancelled or a subject
withdrawn. So whoever puts a delivery back, or is asked by a person to send it again, looks here.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import and_, case, select
from sqlalchemy.orm import Session

from mcs.core import sequences
from mcs.models import (
    Action,
    ActionDefinition,
    Campaign,
    Contact,
    Delivery,
    Emailer,
    Scenario,
    Schedule,
)
from mcs.services import audiences, email_actions
from mcs.services.slice_claims import Claim


def of_sequence(
    session: Session, now: datetime, campaign_id: int, delivery_ids: Sequence[int]
) -> dict[int, str]:
    """Those of a sequence's deliveries that must not go again, and why: the address is suppressed,
    the subject or the campaign withdrawn, or its last day over."""
    suppressed = _suppressed(session, campaign_id, delivery_ids)
    return suppressed | _withdrawn(session, now, delivery_ids)


def since(
    session: Session, now: datetime, claim: Claim, delivery_ids: Sequence[int]
) -> dict[int, str]:
    """Those of the deliveries that must not go again, and why: the emailer was cancelled, the
    subject or its campaign withdrawn, or the address suppressed, while they were in flight.
    """
    if claim.parent.campaign_id is not None:
        return of_sequence(session, now, claim.parent.campaign_id, delivery_ids)
    state, campaign_id = session.execute(
        select(Emailer.state, Scenario.campaign_id)
        .join(Scenario, Scenario.id == Emailer.scenario_id)
        .where(Emailer.id == claim.emailer_id)
    ).one()
    if state == "cancelled":
        return dict.fromkeys(delivery_ids, "cancelled")
    return _suppressed(session, campaign_id, delivery_ids)


def _suppressed(session: Session, campaign_id: int, delivery_ids: Sequence[int]) -> dict[int, str]:
    suppressed = audiences.suppressed_addresses(campaign_id)
    rows = session.execute(
        select(Delivery.id, suppressed.c.reason)
        .join(Contact, Contact.id == Delivery.contact_id)
        .join(suppressed, suppressed.c.email_key == Contact.email_key)
        .where(Delivery.id.in_(delivery_ids))
    )
    return dict(rows.all())


def _withdrawn(session: Session, now: datetime, delivery_ids: Sequence[int]) -> dict[int, str]:
    step = and_(
        ActionDefinition.campaign_id == Schedule.campaign_id, ActionDefinition.key == Action.key
    )
    rows = session.execute(
        select(
            Delivery.id,
            Campaign.end_date,
            Campaign.timezone,
            case(
                (~Schedule.active, sequences.UNSCHEDULED),
                (~Campaign.active | Campaign.archived_at.is_not(None), sequences.SWITCHED_OFF),
                (ActionDefinition.id.is_(None), sequences.REMOVED),
                (Contact.deleted_at.is_not(None), "deleted"),
                else_="",
            ).label("why"),
        )
        .join(Action, Action.id == Delivery.action_id)
        .join(Schedule, Schedule.id == Action.schedule_id)
        .join(Campaign, Campaign.id == Schedule.campaign_id)
        .join(Contact, Contact.id == Delivery.contact_id)
        .outerjoin(ActionDefinition, step)
        .where(Delivery.id.in_(delivery_ids))
    ).all()
    over = {
        row.id: sequences.TOO_LATE
        for row in rows
        if now >= email_actions.ends(row.end_date, row.timezone)
    }
    return over | {row.id: row.why for row in rows if row.why}
