"""Endings: what became of claimed actions is recorded, and what comes after them is woken."""

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import bindparam, func, literal_column, select, update
from sqlalchemy.orm import Session

from mcs.core import sequences
from mcs.core.retries import next_attempt
from mcs.models import Action, ActionDefinition, Campaign, Schedule
from mcs.models.base import UtcDateTime
from mcs.models.sql import among
from mcs.services import definitions, schedules
from mcs.services.actions import joined
from mcs.services.claims import Claimed
from mcs.services.definitions import Plan
from mcs.services.transactions import NO_SYNC, writing

log = logging.getLogger(__name__)

# A callback that kills its worker each time must come to an end.
MOST_CLAIMS = 20
DIED = f"its worker died each of {MOST_CLAIMS} times"


class Ended(NamedTuple):
    """What became of a call. ``error`` says why it failed; without it, it is complete."""

    claimed: Claimed
    result: Any = None
    error: str | None = None


def record(session: Session, now: datetime, ended: Sequence[Ended], die: float) -> None:
    """Record what has ended, where its token still holds, and wake what comes after it; in the
    caller's transaction."""
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


def close_over(session: Session, now: datetime, over: Mapping[int, Sequence[int]]) -> None:
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


def _completed_by_plan(session: Session, now: datetime, ended: Sequence[Ended]) -> bool:
    """``record`` for what is ordinary: one campaign, whose known plan it still has, and nothing to
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
        joined(_WHETHER_WANTED).where(Action.id.in_(ids), Action.state == "pending")
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


def _cancel(session: Session, now: datetime, ids: Sequence[int], why: str) -> None:
    session.execute(
        update(Action)
        .where(Action.id.in_(ids), Action.state == "pending")
        .values(state="cancelled", reason=why, ended_at=now)
        .execution_options(**NO_SYNC)
    )


_WHETHER_WANTED: Any = select(
    Action.id,
    Schedule.active,
    Campaign.active.label("on"),
    Campaign.archived_at,
    ActionDefinition.id.label("definition_id"),
)
_TABLE: Any = Action.__table__
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
