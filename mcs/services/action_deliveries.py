"""The deliveries of email actions: an action follows its delivery, and is withdrawn with it.

Locks are taken in the order campaign, scenario, slices, actions, deliveries. Who makes deliveries
holds their scenario alone, so who shares it knows all there are.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Text, case, cast, func, literal, null, select, update
from sqlalchemy.orm import Session

from mcs.core import sequences
from mcs.models import Action, Delivery, Scenario, Schedule, Slice, UtcDateTime
from mcs.models.sql import among
from mcs.services.transactions import NO_SYNC

# Why a delivery is skipped whose action is not done by that, but withdrawn: it may come back.
WITHDRAWN = (
    sequences.UNSCHEDULED,
    sequences.SWITCHED_OFF,
    sequences.REMOVED,
    sequences.TOO_LATE,
)


@dataclass(frozen=True)
class Ended:
    """Actions that have ended with their deliveries: whose they are, and of which steps."""

    schedule_ids: frozenset[int]
    keys: frozenset[str]


def follow(session: Session, now: datetime, delivery_ids: Collection[int]) -> Ended:
    """Bring the actions that are under way in line with their deliveries; which of them ended.

    Sent or skipped completes an action, failed fails it; one whose delivery was withdrawn is
    cancelled. Anything else leaves it processing. In the caller's transaction.
    """
    if not delivery_ids:
        return Ended(frozenset(), frozenset())
    rows = session.execute(
        update(Action)
        .where(
            Action.id == Delivery.action_id,
            among(Delivery.id, list(delivery_ids)),
            Delivery.state.in_(("sent", "failed", "skipped")),
            Action.state == "processing",
        )
        .values(_followed(now))
        .returning(Action.schedule_id, Action.key)
        .execution_options(**NO_SYNC)
    ).all()
    return Ended(frozenset(row.schedule_id for row in rows), frozenset(row.key for row in rows))


def withdraw(
    session: Session, now: datetime, campaign_id: int, these: ColumnElement[bool], why: str
) -> None:
    """Skip what has not started of a campaign's email actions, and cancel those, to the last
    moment. ``these`` is a condition on actions and schedules.

    In the caller's transaction, which holds the campaign and has locked no action yet.
    """
    share_births(session, [campaign_id])
    # By what is open, of which there is little however long the campaign's history.
    open_slices = (
        select(Slice.id)
        .join(Scenario, Scenario.id == Slice.scenario_id)
        .where(Slice.open, Scenario.campaign_id == campaign_id)
    )
    rows = session.execute(
        select(Delivery.id, Delivery.slice_id)
        .join(Action, Action.id == Delivery.action_id)
        .join(Schedule, Schedule.id == Action.schedule_id)
        .where(
            Delivery.slice_id.in_(open_slices),
            Schedule.campaign_id == campaign_id,
            Action.state == "processing",
            # What is in flight may be put back: its slice is held too.
            Delivery.state.in_(("pending", "sending")),
            these,
        )
    ).all()
    hold_slices(session, [row.slice_id for row in rows])
    skip(session, [row.id for row in rows], why)
    follow(session, now, [row.id for row in rows])


def skip(session: Session, delivery_ids: Sequence[int], why: str) -> None:
    """Skip those of the deliveries that are pending, whose slices the caller holds."""
    if not delivery_ids:
        return
    rows = session.execute(
        update(Delivery)
        .where(among(Delivery.id, list(delivery_ids)), Delivery.state == "pending")
        .values(state="skipped", reason=why)
        .returning(Delivery.slice_id)
        .execution_options(**NO_SYNC)
    ).all()
    for slice_id, number in Counter(row.slice_id for row in rows).items():
        session.execute(
            update(Slice)
            .where(Slice.id == slice_id)
            .values(pending=Slice.pending - number, skipped=Slice.skipped + number)
            .execution_options(**NO_SYNC)
        )


def share_births(session: Session, campaign_ids: Collection[int]) -> None:
    """Wait until no email action of these campaigns is being started, and keep it so."""
    session.execute(
        select(Scenario.id)
        .where(Scenario.campaign_id.in_(campaign_ids), Scenario.state == "draft")
        .order_by(Scenario.id)
        .with_for_update(read=True)
    )


def hold_slices(session: Session, slice_ids: Iterable[int | None]) -> None:
    """Lock slices, so that nothing of them starts or ends: in the order of their ids."""
    wanted = sorted({slice_id for slice_id in slice_ids if slice_id is not None})
    if wanted:
        session.execute(
            select(Slice.id)
            .where(among(Slice.id, wanted))
            .order_by(Slice.id)
            .with_for_update(key_share=True)
        )


def _followed(now: datetime) -> dict[str, Any]:
    moment = literal(now, type_=UtcDateTime())
    withdrawn = Delivery.reason.in_(WITHDRAWN)
    skipped = Delivery.state == "skipped"
    ended_at = case(
        (Delivery.state == "sent", func.coalesce(Delivery.sent_at, moment)), else_=moment
    )
    answer = case(
        (
            Delivery.reply_text != "",
            ": " + cast(Delivery.reply_code, Text) + " " + Delivery.reply_text,
        ),
        else_="",
    )
    failed = Delivery.state == "failed"
    return {
        "state": case((failed, "failed"), (skipped & withdrawn, "cancelled"), else_="completed"),
        "reason": case((skipped, Delivery.reason), else_=""),
        "error": case((failed, Delivery.reason + answer), else_=null()),
        "completed_at": case((failed | (skipped & withdrawn), null()), else_=ended_at),
        "ended_at": ended_at,
    }
