"""Failures: actions of a sequence that failed, tried once more by a person's word."""

from datetime import datetime
from typing import Any

from sqlalchemy import CursorResult, Select, func, select, update
from sqlalchemy.orm import Session

from mcs.models import Action, ActionDefinition, Campaign, Schedule
from mcs.services import audit
from mcs.services.transactions import writing
from mcs.services.unknown import Unknown


def retriable(session: Session, campaign_id: int, step: str = "") -> int:
    """How many failed actions ``retry`` would try again: those that are still wanted."""
    query = _failed(campaign_id, step).with_only_columns(func.count())
    return session.scalars(query.order_by(None)).one()


def retry(
    session: Session, now: datetime, campaign_id: int, step: str = "", *, by: int | None = None
) -> int:
    """Try the failed actions of a campaign again, at once, of one step or of all; how many.

    Left out are those of subjects that were withdrawn, and of steps that were removed.
    """
    return _retry(session, now, campaign_id, _failed(campaign_id, step), by)


def retry_one(
    session: Session, now: datetime, campaign_id: int, action_id: int, *, by: int | None = None
) -> bool:
    """Try one failed action again, at once; whether it was failed, and is still wanted.

    Raises Unknown.
    """
    known = (
        select(Action.id)
        .join(Schedule, Schedule.id == Action.schedule_id)
        .where(Action.id == action_id, Schedule.campaign_id == campaign_id)
    )
    if session.scalar(known) is None:
        raise Unknown(f"action {action_id}")
    query = _failed(campaign_id, "").where(Action.id == action_id)
    return _retry(session, now, campaign_id, query, by) == 1


def _failed(campaign_id: int, step: str) -> Select[int]:
    query = (
        select(Action.id)
        .join(Schedule, Schedule.id == Action.schedule_id)
        .join(Campaign, Campaign.id == Schedule.campaign_id)
        .join(
            ActionDefinition,
            (ActionDefinition.campaign_id == Campaign.id) & (ActionDefinition.key == Action.key),
        )
        .where(
            Campaign.id == campaign_id,
            Campaign.active,
            Campaign.archived_at.is_(None),
            Schedule.active,
            Action.state == "failed",
        )
    )
    return query.where(Action.key == step) if step else query


def _retry(
    session: Session, now: datetime, campaign_id: int, wanted: Select[int], by: int | None
) -> int:
    values: dict[str, Any] = {"state": "pending", "due_at": now, "ended_at": None, "attempts": 0}
    with writing(session):
        moved = session.execute(
            update(Action)
            .where(Action.id.in_(wanted), Action.state == "failed")
            .values(**values)
            .execution_options(synchronize_session=False)
        )
        assert isinstance(moved, CursorResult)
        if moved.rowcount:
            verb = "retried actions of"
            audit.note(session, now, by, verb, "campaign", campaign_id, actions=moved.rowcount)
        return moved.rowcount
