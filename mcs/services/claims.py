"""Claims: actions that are due become a worker's, so that it alone calls their callbacks.

To claim is to fire: a worker claims no more than it starts at once, so what is claimed was still
wanted the moment before its callback is called. A claim carries a token and a lease; who no longer
holds the token can record nothing.
"""

import json
import secrets
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Integer,
    Text,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    true,
    update,
)
from sqlalchemy.orm import Session

from mcs.core import sequences
from mcs.core.states import ACTION_STATES
from mcs.models import Action, ActionDefinition, Campaign, Schedule
from mcs.models.base import UtcDateTime
from mcs.models.sql import among
from mcs.services.actions import joined
from mcs.services.transactions import writing


class Claimed(NamedTuple):
    """An action that is ours to run, with all that its callback may need.

    A tuple, since thousands are made a second: a frozen dataclass takes ten times as long.
    """

    id: int
    token: str
    schedule_id: int
    campaign_id: int
    campaign: str
    subject: str
    subject_id: str
    run: int
    key: str
    occurrence: int
    action_id: str
    callback: str
    config: Mapping[str, Any]
    attempt: int
    max_attempts: int
    expected_at: datetime
    contact_id: int | None
    idempotency_key: str


def claim(
    session: Session,
    now: datetime,
    lease: timedelta,
    room: int,
    callbacks: Collection[str],
    campaign_ids: Collection[int] | None,
) -> tuple[list[Claimed], dict[int, list[int]]]:
    """What is claimed, and what is not since its campaign is over: actions by campaign."""
    connection = session.connection()
    # Without row locks, the conditional update below sorts out who claims what.
    claimable = _claimable_locked if connection.dialect.name == "postgresql" else _claimable
    query = claimable(campaign_ids is not None)
    given = {"now": now, "room": room, "callbacks": list(callbacks), "campaigns": campaign_ids}
    token = secrets.token_urlsafe(12)
    claimed, over = _sorted_out(connection.execute(query, given), now, token)
    if not claimed:
        return [], over
    given = {"ids": [one.id for one in claimed], "drawn": token, "until": now + lease, "now": now}
    if connection.execute(_CLAIM, given).rowcount != len(claimed):
        # Somebody else was quicker with some of them.
        ours = set(session.scalars(select(Action.id).where(Action.claim_token == token)))
        claimed = [one for one in claimed if one.id in ours]
    return claimed, over


def renew(session: Session, now: datetime, lease: timedelta, claimed: Iterable[Claimed]) -> None:
    """Hold on to actions whose callbacks take long."""
    rows = [{"row_id": one.id, "token": one.token, "until": now + lease} for one in claimed]
    if not rows:
        return
    with writing(session):
        session.connection().execute(_RENEW, rows)


def next_due(
    session: Session, callbacks: Collection[str], campaign_ids: Collection[int] | None = None
) -> datetime | None:
    """When the next action that such a worker could run is due, or its lease ends."""
    due = session.scalar(
        select(Action.due_at)
        .where(*_runnable(callbacks, campaign_ids))
        .order_by(Action.due_at)
        .limit(1)
    )
    lease = session.scalar(
        select(func.min(Action.lease_until)).where(Action.lease_until.is_not(None))
    )
    session.rollback()
    return min((moment for moment in (due, lease) if moment is not None), default=None)


def wanted(campaign_id: int) -> ColumnElement[bool]:
    """The condition for actions of a campaign that somebody still wants: subject, step and
    campaign are there and switched on."""
    return _CALLBACK.where(Campaign.id == campaign_id).scalar_subquery().is_not(None)


def _sorted_out(
    rows: Iterable[Any], now: datetime, token: str
) -> tuple[list[Claimed], dict[int, list[int]]]:
    claimed: list[Claimed] = []
    over: dict[int, list[int]] = defaultdict(list)
    # In one go, without names: of what claiming costs, this is the part in Python.
    for (
        id, schedule_id, key, occurrence, attempts, expected_at,
        campaign_id, subject, subject_id, run, contact_id,
        campaign_key, uid, end_date, timezone, repeat, callback, config, max_attempts,
    ) in rows:  # fmt: skip
        if now >= _ends(end_date, timezone):
            over[campaign_id].append(id)
            continue
        claimed.append(
            Claimed(
                id,
                token,
                schedule_id,
                campaign_id,
                campaign_key or uid,
                subject,
                subject_id,
                run,
                key,
                occurrence,
                sequences.action_id(key, occurrence, bool(repeat)),
                callback,
                {} if config == "{}" else json.loads(config),
                attempts + 1,
                max_attempts,
                expected_at,
                contact_id,
                # The same on every attempt, and nowhere else in the world.
                f"{uid}-{id}",
            )
        )
    return claimed, over


@lru_cache(maxsize=2)
def _claimable(of_campaigns: bool) -> Any:
    """The actions that have been due the longest, with all that a claim tells of them.

    Made once: it is asked hundreds of times a second, and takes longer to build than to answer.
    """
    campaigns: Any = bindparam("campaigns", expanding=True) if of_campaigns else None
    first = (
        select(Action.id)
        .where(*_runnable(bindparam("callbacks", expanding=True), campaigns), _due())
        .order_by(Action.due_at)
        .limit(_room())
        .subquery()
    )
    whole = joined(select(*_OWN, *_OF_SUBJECT, *_OF_STEP))
    return whole.join(first, first.c.id == Action.id).order_by(Action.due_at, Action.id)


@lru_cache(maxsize=2)
def _claimable_locked(of_campaigns: bool) -> Any:
    """``_claimable`` for PostgreSQL, where workers pass each other by.

    What is told of an action is looked up by lateral queries, whose LIMIT keeps them from becoming
    joins: once it knows its tables, PostgreSQL asks them of no more than it claims. A step is
    looked up once for all its actions (it is memoized).
    """
    whose = select(*_OF_SUBJECT).where(Schedule.id == Action.schedule_id, Schedule.active)
    subject = whose.limit(1).correlate(Action).lateral("subject")
    which = select(*_OF_STEP).join(Campaign, Campaign.id == ActionDefinition.campaign_id)
    which = which.where(
        Campaign.id == subject.c.campaign_id,
        *_ON,
        ActionDefinition.key == Action.key,
        among(ActionDefinition.callback, bindparam("callbacks")),
    )
    if of_campaigns:
        which = which.where(among(Campaign.id, bindparam("campaigns")))
    step = which.limit(1).correlate(Action, subject).lateral("step")
    return (
        select(*_OWN, *subject.c, *step.c)
        .select_from(Action)
        .join(subject, true())
        .join(step, true())
        .where(_PENDING, _due())
        .order_by(Action.due_at)
        .limit(_room())
        .with_for_update(skip_locked=True, of=Action)
    )


def _due() -> ColumnElement[bool]:
    return Action.due_at <= bindparam("now", type_=UtcDateTime())


def _room() -> BindParameter[int]:
    return bindparam("room", type_=Integer())


def _runnable(
    callbacks: Collection[str] | BindParameter[Any],
    campaign_ids: Collection[int] | BindParameter[Any] | None,
) -> tuple[ColumnElement[bool], ...]:
    """What a worker with these callbacks could run once it is due.

    Asked of the actions one by one, so that a database goes along the index of what is due, oldest
    first, until it has enough. As a join, PostgreSQL sorted all that was due.
    """
    callback = _CALLBACK
    if campaign_ids is not None:
        callback = callback.where(Campaign.id.in_(campaign_ids))
    return (
        _PENDING,
        Action.due_at.is_not(None),
        callback.scalar_subquery().in_(callbacks),
    )


# A literal: that what it asks for is in a partial index must be plain without its parameters.
_PENDING = Action.state == literal_column("'pending'")
_ON = (Campaign.active, Campaign.archived_at.is_(None))
_CALLBACK = (
    select(ActionDefinition.callback)
    .join(Campaign, Campaign.id == ActionDefinition.campaign_id)
    .join(Schedule, Schedule.campaign_id == Campaign.id)
    .where(
        Schedule.id == Action.schedule_id,
        Schedule.active,
        *_ON,
        ActionDefinition.key == Action.key,
    )
    .correlate(Action)
)
# Pending, said so that no database looks for all that is pending among the actions of a claim.
_NOT_PENDING: list[Any] = [
    literal_column(f"'{state}'") for state in ACTION_STATES if state != "pending"
]
# What a claim tells of an action, in the order in which ``_sorted_out`` takes it.
_OWN = (
    Action.id,
    Action.schedule_id,
    Action.key,
    Action.occurrence,
    Action.attempts,
    Action.expected_at,
)
_OF_SUBJECT = (
    Schedule.campaign_id,
    Schedule.subject,
    Schedule.subject_id,
    Schedule.run,
    Schedule.contact_id,
)
_OF_STEP = (
    Campaign.key.label("campaign_key"),
    Campaign.uid,
    Campaign.end_date,
    Campaign.timezone,
    ActionDefinition.repeat,
    ActionDefinition.callback,
    # As a text, most of which are empty: drivers take ten times as long to read JSON.
    cast(ActionDefinition.config, Text).label("config"),
    ActionDefinition.max_attempts,
)
_TABLE: Any = Action.__table__
_CLAIM = (
    update(_TABLE)
    .where(among(_TABLE.c.id, bindparam("ids")), _TABLE.c.state.not_in(_NOT_PENDING))
    .values(
        state="processing",
        claim_token=bindparam("drawn"),
        lease_until=bindparam("until", type_=UtcDateTime()),
        started_at=func.coalesce(_TABLE.c.started_at, bindparam("now", type_=UtcDateTime())),
        attempts=_TABLE.c.attempts + 1,
    )
)
_RENEW = (
    update(_TABLE)
    .where(_TABLE.c.id == bindparam("row_id"), _TABLE.c.claim_token == bindparam("token"))
    .values(lease_until=bindparam("until", type_=UtcDateTime()))
)


@lru_cache(maxsize=1024)
def _ends(last: date, zone: str) -> datetime:
    return sequences.calendar(last, last, ZoneInfo(zone)).ends
