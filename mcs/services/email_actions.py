"""Email actions: the steps of sequences that go through the ledger and the lane.

Started (mcs.services.email_starts), each action follows its delivery. What holds a sequence's
emails up, and has them go on, is here. Locks are taken as mcs.services.action_deliveries says.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Select, and_, func, select, true, update
from sqlalchemy.orm import Session

from mcs.core import sequences
from mcs.core.breaker import LONGEST_NOTICE
from mcs.core.walltime import instant
from mcs.models import ActionDefinition, Campaign, Emailer, Scenario, Slice
from mcs.services import action_deliveries, audit, definitions, schedules, slices
from mcs.services.callbacks import scenario_id
from mcs.services.definitions import SEND_EMAIL, Plan
from mcs.services.queue import Queue
from mcs.services.transactions import NO_SYNC, writing
from mcs.services.unknown import Unknown

RINGS = 16
# Local dates and UTC ones differ by less than a day either way.
A_DAY = timedelta(days=1)


class NotHeld(Exception):
    """The sequence's emails wait for nobody; the text says so to a person."""


def ring(session: Session, now: datetime, queue: Queue, campaign_id: int | None = None) -> None:
    """Call workers to the slices of sequences that are due, of one campaign or all."""
    query = (
        select(Slice.id)
        .join(Scenario, Scenario.id == Slice.scenario_id)
        .where(Slice.open, Slice.pending > 0, Slice.claim_token.is_(None), Slice.due_at <= now)
        .order_by(Slice.due_at, Slice.id)
        .limit(RINGS)
    )
    if campaign_id is not None:
        query = query.where(Scenario.campaign_id == campaign_id)
    found = session.scalars(query).all()
    session.commit()
    for slice_id in found:
        slices.ring(queue, slice_id)


def plans(session: Session, campaign_ids: Collection[int]) -> list[Plan]:
    """The sequences of these campaigns, which cannot change in this transaction: loaded before
    any slice is locked, to follow deliveries with."""
    return [definitions.load(session, campaign_id) for campaign_id in sorted(campaign_ids)]


def follow(
    session: Session, now: datetime, running: Sequence[Plan], delivery_ids: Collection[int]
) -> None:
    """Bring actions in line with their deliveries, which have moved in this transaction, and give
    a moment to the steps that come after those that have ended."""
    ended = action_deliveries.follow(session, now, delivery_ids)
    if ended.keys:
        for plan in running:
            wake(session, now, plan, ended.keys, ended.schedule_ids)


def wake(
    session: Session,
    now: datetime,
    plan: Plan,
    keys: Collection[str],
    schedule_ids: Collection[int],
) -> None:
    """Give a moment to the steps that come after those of ``keys``."""
    depending = plan.dependents(keys)
    if depending and schedule_ids and plan.running:
        schedules.align(session, now, plan, only=depending, schedule_ids=sorted(set(schedule_ids)))


def close_over(session: Session, now: datetime) -> None:
    """Skip what is still to go of campaigns whose last day is over."""
    rows = session.execute(
        select(Campaign.id, Campaign.end_date, Campaign.timezone)
        .join(Scenario, Scenario.campaign_id == Campaign.id)
        .join(Slice, Slice.scenario_id == Scenario.id)
        .where(Slice.open, Slice.pending > 0, Campaign.end_date <= (now + A_DAY).date())
        .distinct()
    ).all()
    session.commit()
    for row in rows:
        if now >= ends(row.end_date, row.timezone):
            with writing(session):
                definitions.load(session, row.id)
                action_deliveries.withdraw(session, now, row.id, true(), sequences.TOO_LATE)


def ends(last: Any, zone: str) -> datetime:
    """The instant after a campaign's last day."""
    return instant(last + timedelta(days=1), time.min, ZoneInfo(zone))


# What holds them up, and what a person does about it.


def hold(session: Session, now: datetime, campaign_id: int, notice: str) -> None:
    """Start no more emails of the campaign's sequence, until a person resumes them.

    ``notice`` says why. Nobody is marked; what is in flight ends.
    """
    with writing(session):
        campaign = _locked(session, campaign_id)
        if campaign.held_at is None:
            campaign.held_at, campaign.notice = now, notice[:LONGEST_NOTICE]
            said = {"notice": notice}
            audit.note(session, now, None, "held the emails of", "campaign", campaign_id, **said)


def resume(
    session: Session,
    now: datetime,
    queue: Queue,
    campaign_id: int,
    *,
    user_id: int | None = None,
) -> None:
    """Go on with the emails of a held sequence. Raises NotHeld, Unknown."""
    with writing(session):
        campaign = _locked(session, campaign_id)
        if campaign.held_at is None:
            raise NotHeld("The emails of this sequence are not held: there is nothing to resume.")
        campaign.held_at, campaign.notice = None, ""
        # One letter at a time, until it is seen that the server is well again.
        campaign.cuts = min(campaign.cuts, 1)
        audit.note(session, now, user_id, "resumed the emails of", "campaign", campaign_id)
        session.flush()
        session.execute(
            update(Slice)
            .where(Slice.id.in_(_of_campaign(campaign_id)), Slice.claim_token.is_(None))
            .values(due_at=now, begun_at=now)
            .execution_options(**NO_SYNC)
        )
    ring(session, now, queue, campaign_id)


def note(session: Session, campaign_id: int, notice: str) -> None:
    """Say what holds the emails up for now; empty when all is well again."""
    with writing(session):
        session.execute(
            update(Campaign)
            .where(
                Campaign.id == campaign_id,
                Campaign.held_at.is_(None),
                Campaign.notice != notice[:LONGEST_NOTICE],
            )
            .values(notice=notice[:LONGEST_NOTICE])
            .execution_options(**NO_SYNC)
        )


def note_cuts(session: Session, campaign_id: int, cuts: int) -> None:
    """Remember how often in a row the server broke off."""
    with writing(session):
        session.execute(
            update(Campaign)
            .where(Campaign.id == campaign_id, Campaign.cuts != cuts)
            .values(cuts=cuts)
            .execution_options(**NO_SYNC)
        )


def ring_start(queue: Queue) -> None:
    """Call a worker to start what is due."""
    queue.enqueue("mcs.jobs.start_emails", job_id="start-emails")


def record_served(session: Session, sends: int) -> None:
    """Write on the scenario how many contacts it served, by sendings and by steps."""
    by_steps = select(func.coalesce(func.sum(Slice.sent), 0)).where(Slice.scenario_id == sends)
    by_sendings = (
        select(func.coalesce(func.sum(Slice.sent), 0))
        .join(Emailer, Emailer.id == Slice.emailer_id)
        .where(Emailer.scenario_id == sends)
    )
    session.execute(
        update(Scenario)
        .where(Scenario.id == sends)
        .values(contacts_served=by_steps.scalar_subquery() + by_sendings.scalar_subquery())
        .execution_options(**NO_SYNC)
    )


def sending(session: Session, campaign_id: int) -> bool:
    """Whether the emails of the campaign's sequence may go."""
    return (
        session.scalar(select(Campaign.id).where(Campaign.id == campaign_id, may_go())) is not None
    )


def may_go() -> Any:
    """The condition on campaigns whose sequences may send."""
    return and_(Campaign.active, Campaign.archived_at.is_(None), Campaign.held_at.is_(None))


def of_steps(session: Session, campaign_id: int) -> set[int]:
    """The scenarios that the steps of a campaign send."""
    configs = session.scalars(
        select(ActionDefinition.config).where(
            ActionDefinition.campaign_id == campaign_id, ActionDefinition.callback == SEND_EMAIL
        )
    )
    return {found for config in configs if (found := scenario_id(config)) is not None}


def _of_campaign(campaign_id: int) -> Select[int]:
    return (
        select(Slice.id)
        .join(Scenario, Scenario.id == Slice.scenario_id)
        .where(Scenario.campaign_id == campaign_id)
    )


def _locked(session: Session, campaign_id: int) -> Campaign:
    campaign = session.scalars(
        select(Campaign)
        .where(Campaign.id == campaign_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).first()
    if campaign is None:
        raise Unknown(f"campaign {campaign_id}")
    return campaign
