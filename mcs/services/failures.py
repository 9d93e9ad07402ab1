"""Failures: actions of a sequence that failed, tried once more by a person's word."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, func, select, update
from sqlalchemy.orm import Session

from mcs.models import Action, Schedule
from mcs.services import audit
from mcs.services.claims import wanted
from mcs.services.transactions import NO_SYNC, writing
from mcs.services.unknown import Unknown


def retriable(session: Session, campaign_id: int, step: str = "") -> int:
    """How many failed actions ``retry`` would try again: those that are still wanted."""
    query = select(func.count()).select_from(Action).where(*_failed(campaign_id, step))
    return session.scalars(query).one()


def retry(
    session: Session, now: datetime, campaign_id: int, step: str = "", *, by: int | None = None
) -> int:
    """Try the failed actions of a campaign again, at once, of one step or of all; how many.

    Left out are those of subjects that were withdrawn, and of steps that were removed.
    """
    with writing(session):
        moved = _retry(session, now, _failed(campaign_id, step))
        _note(session, now, campaign_id, moved, by)
        return moved


def retry_one(
    session: Session,
    now: datetime,
    action_id: int,
    *,
    campaign_id: int | None = None,
    by: int | None = None,
) -> bool:
    """Try one failed action again, at once; whether it was failed, and is still wanted: its
    subject, step and campaign are there and switched on.

    With ``campaign_id`` it is one of that campaign. Raises Unknown.
    """
    query = (
        select(Schedule.campaign_id)
        .join(Action, Action.schedule_id == Schedule.id)
        .where(Action.id == action_id)
    )
    with writing(session):
        found = session.scalar(query)
        if found is None or found != (campaign_id or found):
            raise Unknown(f"action {action_id}")
        moved = _retry(session, now, (*_failed(found, ""), Action.id == action_id))
        _note(session, now, found, moved, by)
        return moved == 1


def _failed(campaign_id: int, step: str) -> Sequence[ColumnElement[bool]]:
    conditions = (Action.state == "failed", wanted(campaign_id))
    return (*conditions, Action.key == step) if step else conditions


def _retry(session: Session, now: datetime, which: Sequence[ColumnElement[bool]]) -> int:
    values: dict[str, Any] = {"state": "pending", "due_at": now, "ended_at": None, "attempts": 0}
    moved = session.execute(
        update(Action).where(*which).values(**values).execution_options(**NO_SYNC)
    )
    assert isinstance(moved, CursorResult)
    return moved.rowcount


def _note(session: Session, now: datetime, campaign_id: int, moved: int, by: int | None) -> None:
    if moved and audit.asked_for(session, by):
        audit.note(session, now, by, "retried actions of", "campaign", campaign_id, actions=moved)
