"""Actions: claim what is due, record what became of it, say how it all stands.

To claim is to fire: a worker claims no more than it starts at once, so what is claimed was still
wanted the moment before its callback is called. A claim carries a token and a lease; who no longer
holds the token can record nothing.
"""

import json
import logging
import secrets
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Integer,
    Select,
    Text,
    and_,
    bindparam,
    cast,
    func,
    literal_column,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.orm import Session

from mcs.core import sequences
from mcs.core.retries import next_attempt
from mcs.core.states import ACTION_STATES
from mcs.models import Action, ActionDefinition, Campaign, Contact, Schedule
from mcs.models.base import UtcDateTime
from mcs.models.sql import among
from mcs.services import definitions, schedules
from mcs.services.definitions import Plan
from mcs.services.transactions import writing

log = logging.getLogger(__name__)

NO_SYNC: dict[str, Any] = {"synchronize_session": False}
# A callback that kills its worker each time must come to an end.
MOST_CLAIMS = 20
DIED = f"its worker died each of {MOST_CLAIMS} times"
# Drift is told of the latest so many: of all, a long history would hide today.
DRIFT_OF = 10_000


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


class Ended(NamedTuple):
    """What became of a call. ``error`` says why it failed; without it, it is complete."""

    claimed: Claimed
    result: Any = None
    error: str | None = None


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


def turn(
    session: Session,
    now: datetime,
    ended: Sequence[Ended],
    *,
    lease: timedelta,
    room: int,
    die: float,
    callbacks: Collection[str],
    campaign_ids: Collection[int] | None = None,
) -> list[Claimed]:
    """Record what has ended and claim up to ``room`` more, the longest due first: in one commit.

    What is claimed has a callback among ``callbacks``, and is due: never early. What is due after
    its campaign's last day is cancelled. ``die`` is a draw from [0, 1) for the retries.
    """
    with writing(session):
        _record(session, now, ended, die)
        if room <= 0 or not callbacks:
            return []
        claimed, over = _claim(session, now, lease, room, callbacks, campaign_ids)
    _close_over(session, now, over)
    return claimed


def renew(session: Session, now: datetime, lease: timedelta, claimed: Iterable[Claimed]) -> None:
    """Hold on to actions whose callbacks take long."""
    rows = [{"row_id": one.id, "token": one.token, "until": now + lease} for one in claimed]
    if not rows:
        return
    with writing(session):
        session.connection().execute(_RENEW, rows)


def rescue(session: Session, now: datetime) -> int:
    """Give back the actions whose worker died: due at once. How many."""
    # Only what is claimed has a lease, and there is an index of those.
    dead = Action.lease_until < now
    campaign_ids = session.scalars(
        select(Schedule.campaign_id)
        .join(Action, Action.schedule_id == Schedule.id)
        .where(dead)
        .distinct()
    ).all()
    if not campaign_ids:
        session.rollback()
        return 0
    with writing(session):
        # Held before their actions are, as everybody does.
        definitions.load_many(session, campaign_ids)
        mine = select(Schedule.id).where(Schedule.campaign_id.in_(campaign_ids))
        rows = session.execute(
            select(Action.id, Action.attempts)
            .where(dead, Action.schedule_id.in_(mine))
            .with_for_update(skip_locked=True)
        ).all()
        _let_go(
            session,
            [row.id for row in rows if row.attempts >= MOST_CLAIMS],
            {"state": "failed", "error": DIED, "ended_at": now},
        )
        back = [row.id for row in rows if row.attempts < MOST_CLAIMS]
        _let_go(session, back, {"state": "pending", "due_at": now})
        _withdraw_unwanted(session, now, back)
        _line_up(session, now, [row.id for row in rows])
        return len(rows)


def _let_go(session: Session, ids: Sequence[int], values: Mapping[str, Any]) -> None:
    if ids:
        session.execute(
            update(Action)
            .where(Action.id.in_(ids))
            .values(claim_token=None, lease_until=None, **values)
            .execution_options(**NO_SYNC)
        )


def _withdraw_unwanted(session: Session, now: datetime, ids: Sequence[int]) -> None:
    """Those that are to go again, and that nobody wants any more since they were claimed."""
    if not ids:
        return
    rows = session.execute(
        _wanted(_WHETHER_WANTED).where(Action.id.in_(ids), Action.state == "pending")
    )
    by_reason: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        if not row.active:
            by_reason[sequences.UNSCHEDULED].append(row.id)
        elif not row.on or row.archived_at is not None:
            by_reason[sequences.SWITCHED_OFF].append(row.id)
        elif row.definition_id is None:
            by_reason[sequences.REMOVED].append(row.id)
    for reason, unwanted in by_reason.items():
        _cancel(session, now, unwanted, reason)
    _line_up(session, now, ids)


def _line_up(
    session: Session, now: datetime, ids: Sequence[int], after: Collection[str] | None = None
) -> None:
    """Bring the schedules of these actions in line: the sequence may have been edited meanwhile,
    and others may come after them. ``after`` limits it to what comes after steps of these keys."""
    rows = session.execute(
        select(Schedule.campaign_id, Schedule.id)
        .join(Action, Action.schedule_id == Schedule.id)
        .where(Action.id.in_(ids))
        .distinct()
    ).all()
    by_campaign: dict[int, list[int]] = defaultdict(list)
    for campaign_id, schedule_id in rows:
        by_campaign[campaign_id].append(schedule_id)
    for campaign_id, schedule_ids in sorted(by_campaign.items()):
        plan = definitions.load(session, campaign_id)
        if plan.running:
            only = None if after is None else plan.dependents(after)
            schedules.align(session, now, plan, only=only, schedule_ids=schedule_ids)


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


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    if not ordered:
        return None
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


# Claiming.


def _claim(
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


def _close_over(session: Session, now: datetime, over: Mapping[int, Sequence[int]]) -> None:
    """Cancel actions that are due after their campaign's last day. Not in the commit that claims:
    the campaign is held before its actions are."""
    for campaign_id, ids in over.items():
        try:
            _close_one(session, now, campaign_id, ids)
        except Exception:
            # Who has claimed must hear of it whatever happens here; these come again.
            log.exception("what is due after the end of campaign %d stands", campaign_id)


def _close_one(session: Session, now: datetime, campaign_id: int, ids: Sequence[int]) -> None:
    with writing(session):
        plans = definitions.load_many(session, [campaign_id])
        # It may have been destroyed since, or been given more days.
        if not plans or now < plans[0].calendar.ends:
            return
        _cancel(session, now, ids, sequences.TOO_LATE)
        keys = set(session.scalars(select(Action.key).where(Action.id.in_(ids))))
        _line_up(session, now, ids, keys)


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
    whole = _wanted(select(*_OWN, *_OF_SUBJECT, *_OF_STEP))
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


def wanted(campaign_id: int) -> ColumnElement[bool]:
    """The condition for actions of a campaign that somebody still wants: subject, step and
    campaign are there and switched on."""
    return _CALLBACK.where(Campaign.id == campaign_id).scalar_subquery().is_not(None)


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
_WHETHER_WANTED: Any = select(
    Action.id,
    Schedule.active,
    Campaign.active.label("on"),
    Campaign.archived_at,
    ActionDefinition.id.label("definition_id"),
)


def _wanted(query: Any) -> Any:
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


@lru_cache(maxsize=1024)
def _ends(last: date, zone: str) -> datetime:
    return sequences.calendar(last, last, ZoneInfo(zone)).ends


def _cancel(session: Session, now: datetime, ids: Sequence[int], why: str) -> None:
    session.execute(
        update(Action)
        .where(Action.id.in_(ids), Action.state == "pending")
        .values(state="cancelled", reason=why, ended_at=now)
        .execution_options(**NO_SYNC)
    )


# Recording.


def _record(session: Session, now: datetime, ended: Sequence[Ended], die: float) -> None:
    if not ended or _completed_by_plan(session, now, ended):
        return
    # Held before their rows are: a step that somebody adds after one of them finds it ended, or is
    # itself found here.
    plans = definitions.load_many(session, {one.claimed.campaign_id for one in ended})
    plain: dict[str, list[int]] = defaultdict(list)
    told = []
    for one in ended:
        if one.error is None and one.result is None:
            plain[one.claimed.token].append(one.claimed.id)
        else:
            told.append(_columns(now, one, die))
    for token, ids in plain.items():
        session.connection().execute(_COMPLETE, {"ids": ids, "token": token, "now": now})
    if told:
        session.connection().execute(_RECORD, told)
        again = [row["row_id"] for row in told if row["state"] == "pending"]
        _withdraw_unwanted(session, now, again)
    _wake_dependents(session, now, plans, ended)


def _completed_by_plan(session: Session, now: datetime, ended: Sequence[Ended]) -> bool:
    """``_record`` for what is ordinary: one campaign, whose known plan it still has, and nothing to
    tell but that all are complete. One statement for both, on PostgreSQL. False where it was not:
    what is complete by then stays so, since it no longer has the token."""
    campaign_id = ended[0].claimed.campaign_id
    plan = definitions.known(session, campaign_id)
    if plan is None or session.get_bind().dialect.name != "postgresql":
        return False
    ids: dict[str, list[int]] = defaultdict(list)
    for claimed, result, error in ended:
        if error is not None or result is not None or claimed.campaign_id != campaign_id:
            return False
        ids[claimed.token].append(claimed.id)
    given = {"campaign": campaign_id, "edition": plan.edition, "now": now}
    for token, mine in ids.items():
        told = given | {"ids": mine, "token": token}
        if session.connection().execute(_COMPLETE_BY_PLAN, told).rowcount != len(mine):
            return False
    _wake_dependents(session, now, [plan], ended)
    return True


def _columns(now: datetime, one: Ended, die: float) -> dict[str, Any]:
    claimed = one.claimed
    row: dict[str, Any] = {
        "row_id": claimed.id,
        "token": claimed.token,
        "state": "completed",
        "error": one.error,
        "result": one.result,
        "due_at": claimed.expected_at,
        "completed_at": now,
        "ended_at": now,
    }
    if one.error is None:
        return row
    if claimed.attempt < claimed.max_attempts:
        again = next_attempt(now, claimed.attempt, die)
        return row | {"state": "pending", "due_at": again, "completed_at": None, "ended_at": None}
    return row | {"state": "failed", "completed_at": None}


def _wake_dependents(
    session: Session, now: datetime, plans: Sequence[Plan], ended: Sequence[Ended]
) -> None:
    """Give a moment to the steps that come after those that have ended."""
    for plan in plans:
        here = [one.claimed for one in ended if one.claimed.campaign_id == plan.campaign_id]
        keys = plan.dependents(one.key for one in here)
        if keys and plan.running:
            schedule_ids = sorted({one.schedule_id for one in here})
            schedules.align(session, now, plan, only=keys, schedule_ids=schedule_ids)


_COMPLETE = (
    update(_TABLE)
    .where(among(_TABLE.c.id, bindparam("ids")), _TABLE.c.claim_token == bindparam("token"))
    .values(
        state="completed",
        completed_at=bindparam("now", type_=UtcDateTime()),
        ended_at=bindparam("now", type_=UtcDateTime()),
        claim_token=None,
        lease_until=None,
    )
)
# Waits for who edits the campaign before it touches an action, as everybody does.
_HELD = (
    select(Campaign.id)
    .where(Campaign.id == bindparam("campaign"), Campaign.edition == bindparam("edition"))
    .with_for_update(read=True)
    .cte("held")
)
_COMPLETE_BY_PLAN = _COMPLETE.where(
    select(func.count()).select_from(_HELD).scalar_subquery() == literal_column("1")
)
_RECORD = (
    update(_TABLE)
    .where(_TABLE.c.id == bindparam("row_id"), _TABLE.c.claim_token == bindparam("token"))
    .values(
        claim_token=None,
        lease_until=None,
        **{
            name: bindparam(name, type_=_TABLE.c[name].type)
            for name in ("state", "error", "result", "due_at", "completed_at", "ended_at")
        },
    )
)
_RENEW = (
    update(_TABLE)
    .where(_TABLE.c.id == bindparam("row_id"), _TABLE.c.claim_token == bindparam("token"))
    .values(lease_until=bindparam("until", type_=UtcDateTime()))
)


# Reading.


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
    query: Select[Any] = _wanted(_FOUND)
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


def _of_campaigns(campaign_ids: Collection[int] | None) -> tuple[ColumnElement[bool], ...]:
    if campaign_ids is None:
        return ()
    mine = select(Schedule.id).where(Schedule.campaign_id.in_(campaign_ids))
    return (Action.schedule_id.in_(mine),)
