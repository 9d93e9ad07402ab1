"""Actions, read: each with whose it is, and how all of them stand."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.orm import Session

from mcs.core import sequences
from mcs.core.states import ACTION_STATES
from mcs.models import Action, ActionDefinition, Campaign, Contact, Schedule

# Drift is told of the latest so many: of all, a long history would hide today.
DRIFT_OF = 10_000


@dataclass(frozen=True)
class Status:
    """Counts by state; ``waiting`` are pending ones without a moment yet. Drift is in seconds."""

    counts: Mapping[str, int]
    waiting: int
    overdue: int
    next_due: datetime | None
    drift_p50: float | None
    drift_p95: float | None
    drift_max: float | None


@dataclass(frozen=True)
class Found:
    """An action with whose it is."""

    action: Action
    schedule: Schedule
    campaign: Campaign
    repeats: bool
    contact: Contact | None

    @property
    def action_id(self) -> str:
        """Its name, as people read it."""
        return sequences.action_id(self.action.key, self.action.occurrence, self.repeats)


_FOUND: Any = select(Action, Schedule, Campaign, ActionDefinition.repeat, Contact)


def status(session: Session, now: datetime, campaign_ids: Collection[int] | None = None) -> Status:
    """How the actions stand, of all campaigns or of some."""
    mine = _of_campaigns(campaign_ids)
    rows = session.execute(select(Action.state, func.count()).where(*mine).group_by(Action.state))
    pending = (Action.state == "pending", *mine)
    waiting = session.scalars(
        select(func.count()).select_from(Action).where(*pending, Action.due_at.is_(None))
    ).one()
    overdue = session.scalars(
        select(func.count()).select_from(Action).where(*pending, Action.due_at <= now)
    ).one()
    soon = session.scalar(
        select(func.min(Action.due_at)).where(*pending, Action.due_at.is_not(None))
    )
    begun = session.execute(
        select(Action.started_at, Action.expected_at)
        .where(Action.started_at.is_not(None), *mine)
        .order_by(Action.id.desc())
        .limit(DRIFT_OF)
    )
    drifts = sorted((at - due).total_seconds() for at, due in begun if at and due)
    session.rollback()
    return Status(
        dict.fromkeys(ACTION_STATES, 0) | dict(rows.all()),
        waiting,
        overdue,
        soon,
        *(_quantile(drifts, share) for share in (0.5, 0.95, 1.0)),
    )


def find(
    session: Session,
    conditions: Sequence[ColumnElement[bool]],
    *,
    order: Sequence[ColumnElement[Any]],
    limit: int | None,
) -> list[Found]:
    """Actions with their schedule and campaign, by conditions on those three."""
    rows = session.execute(found(conditions).order_by(*order).limit(limit))
    return [as_found(*row) for row in rows]


def found(conditions: Sequence[ColumnElement[bool]]) -> Select[Any]:
    """What ``find`` asks, without an order: each row is for ``as_found``."""
    query: Select[Any] = joined(_FOUND)
    return query.join(Contact, Contact.id == Schedule.contact_id, isouter=True).where(*conditions)


def as_found(
    action: Action,
    schedule: Schedule,
    campaign: Campaign,
    repeat: str | None,
    contact: Contact | None,
) -> Found:
    return Found(action, schedule, campaign, bool(repeat), contact)


def named(action_ids: Collection[str]) -> ColumnElement[bool]:
    """The condition for actions of these names: action1 means each of its occurrences."""
    wanted = []
    for text in action_ids:
        key, occurrence = sequences.read_action_id(text)
        one: ColumnElement[bool] = Action.key == key
        wanted.append(one if occurrence is None else and_(one, Action.occurrence == occurrence))
    return or_(*wanted)


def joined(query: Any) -> Any:
    """Actions with their schedule and campaign, and their definition while there is one."""
    return (
        query.join(Schedule, Schedule.id == Action.schedule_id)
        .join(Campaign, Campaign.id == Schedule.campaign_id)
        .join(
            ActionDefinition,
            and_(
                ActionDefinition.campaign_id == Schedule.campaign_id,
                ActionDefinition.key == Action.key,
            ),
            isouter=True,
        )
    )


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    if not ordered:
        return None
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def _of_campaigns(campaign_ids: Collection[int] | None) -> tuple[ColumnElement[bool], ...]:
    if campaign_ids is None:
        return ()
    mine = select(Schedule.id).where(Schedule.campaign_id.in_(campaign_ids))
    return (Action.schedule_id.in_(mine),)
