"""The planner: makes the emailers that should exist, moves and withdraws those that should not.

It compares what the scenarios say with the emailers there are, so it may run at any time, twice,
or on two clocks at once: the same comes out. ``planned`` rows are all it ever touches.
"""

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Select, and_, delete, exists, or_, select, update
from sqlalchemy.orm import Session

from mcs.core.walltime import instant
from mcs.gateways.jobqueue import JobQueue
from mcs.models import Campaign, Emailer, Scenario
from mcs.models.sql import insert_into
from mcs.services.transactions import writing

# From one daily run to the next. The minute's run makes up for a scenario written in between.
HORIZON = timedelta(hours=24)
# Local dates are at most 14 hours from the UTC date.
ZONES = timedelta(days=1)


def plan_day(
    session: Session, now: datetime, queue: JobQueue, on: date | None = None
) -> Sequence[int]:
    """Plan every active campaign's scenarios of the day; the ids of the emailers made or moved.

    Without ``on``, the day is the 24 hours from now on (and what is overdue); with it, the
    scenarios whose date in their campaign's zone is ``on``.
    """
    if on is not None:
        due = _scenarios().where(Scenario.date == on, or_(_without_emailer(), _has_planned()))
    else:
        # A planned one whatever its scenario says by now: who edited it may have died before
        # planning it anew.
        near = Scenario.date <= (now + HORIZON + ZONES).date()
        due = _scenarios().where(or_(_has_planned(), and_(near, _without_emailer())))
    return _plan(session, now, queue, due, on)


def plan_campaign(
    session: Session, now: datetime, queue: JobQueue, campaign_id: int
) -> Sequence[int]:
    """Plan one campaign anew, after its dates, zone, activity or scenarios changed."""
    return _plan(session, now, queue, _scenarios().where(Scenario.campaign_id == campaign_id))


def overlooked(session: Session, now: datetime) -> bool:
    """Whether ``plan_day`` would make an emailer now: a look that writes nothing."""
    rows = session.execute(
        _scenarios().where(
            Scenario.state == "scheduled",
            Campaign.active,
            Scenario.date <= (now + HORIZON + ZONES).date(),
            Scenario.date.between(Campaign.start_date, Campaign.end_date),
            _without_emailer(),
        )
    )
    found = any(
        (when := intended(scenario, campaign)) is not None and when <= now + HORIZON
        for scenario, campaign in rows
    )
    session.commit()
    return found


def upcoming(
    session: Session, now: datetime, until: datetime
) -> Sequence[tuple[Scenario, datetime]]:
    """What will go out between now and ``until`` by itself, soonest first: the planner's view."""
    rows = session.execute(
        _scenarios().where(
            Scenario.date >= (now - ZONES).date(), Scenario.date <= (until + ZONES).date()
        )
    )
    found = [
        (scenario, when)
        for scenario, campaign in rows
        if (when := intended(scenario, campaign)) is not None and now <= when <= until
    ]
    return sorted(found, key=lambda pair: (pair[1], pair[0].id))


def intended(scenario: Scenario, campaign: Campaign) -> datetime | None:
    """The instant at which the scenario should go out; None when it should not."""
    if scenario.state != "scheduled" or scenario.date is None or scenario.time is None:
        return None
    if not campaign.active or campaign.archived_at is not None:
        return None
    if not campaign.start_date <= scenario.date <= campaign.end_date:
        return None
    return instant(scenario.date, scenario.time, ZoneInfo(campaign.timezone))


def stands() -> ColumnElement[bool]:
    """Whether an emailer stands for its scenario: any but those cancelled before they began.

    A planned emailer that a person cancelled made its scenario a draft; scheduled again, it is
    planned again.
    """
    return or_(Emailer.state != "cancelled", Emailer.recipients.is_not(None))


def _scenarios() -> Select[Scenario, Campaign]:
    return select(Scenario, Campaign).join(Campaign, Campaign.id == Scenario.campaign_id)


def _without_emailer() -> ColumnElement[bool]:
    return ~exists().where(Emailer.scenario_id == Scenario.id, stands())


def _has_planned() -> ColumnElement[bool]:
    return exists().where(Emailer.scenario_id == Scenario.id, Emailer.state == "planned")


def _plan(
    session: Session,
    now: datetime,
    queue: JobQueue,
    due: Select[Scenario, Campaign],
    on: date | None = None,
) -> Sequence[int]:
    with writing(session):
        # Locked, so that what is planned is what the last edit said.
        rows = session.execute(
            due.order_by(Scenario.id)
            .with_for_update(of=Scenario, key_share=True)
            .execution_options(populate_existing=True)
        ).all()
        # All at once, in the order of their ids: who suppresses an address locks them like that.
        session.execute(
            select(Emailer.id)
            .where(
                Emailer.scenario_id.in_([scenario.id for scenario, _ in rows]),
                Emailer.state.in_(("planned", "missed")),
            )
            .order_by(Emailer.id)
            .with_for_update(key_share=True)
        )
        changed = [
            emailer_id
            for scenario, campaign in rows
            if (emailer_id := _reconcile(session, now, scenario, campaign, on)) is not None
        ]
    _set_alarms(session, queue, changed)
    return changed


def _reconcile(
    session: Session, now: datetime, scenario: Scenario, campaign: Campaign, on: date | None
) -> int | None:
    """Make, move or withdraw the scenario's planned emailer; its id when it has a new instant."""
    when = intended(scenario, campaign)
    existing = _current(session, scenario.id)
    if existing is None:
        if when is None or (on is None and when > now + HORIZON):
            return None
        return _make(session, now, scenario.id, when)
    if existing.state == "planned" and when is None:
        session.execute(
            delete(Emailer).where(Emailer.id == existing.id, Emailer.state == "planned")
        )
        return None
    moved = when is not None and when != existing.scheduled_at
    # A missed one that never began follows its scenario to a new time, if that is still to come.
    revived = (
        when is not None
        and when > now
        and existing.state == "missed"
        and existing.recipients is None
        and moved
    )
    if (existing.state == "planned" and moved) or revived:
        session.execute(
            update(Emailer)
            .where(Emailer.id == existing.id, Emailer.state == existing.state)
            .values(scheduled_at=when, state="planned", notice="")
        )
        return existing.id
    return None


def _current(session: Session, scenario_id: int) -> Emailer | None:
    """The emailer that stands for the scenario."""
    return session.scalars(
        select(Emailer)
        .where(Emailer.scenario_id == scenario_id, stands())
        .order_by(Emailer.id.desc())
        .limit(1)
        .execution_options(populate_existing=True)
    ).first()


def _make(session: Session, now: datetime, scenario_id: int, when: datetime) -> int | None:
    """Insert a planned emailer, unless another planner was first (uq_emailers_live_scenario)."""
    return session.scalars(
        insert_into(session, Emailer)
        .values(
            scenario_id=scenario_id, state="planned", scheduled_at=when, created_at=now, notice=""
        )
        .on_conflict_do_nothing()
        .returning(Emailer.id)
    ).first()


def _set_alarms(session: Session, queue: JobQueue, emailer_ids: Iterable[int]) -> None:
    """After the commit: an alarm that rang before would find nothing."""
    for emailer_id in emailer_ids:
        when = session.scalars(select(Emailer.scheduled_at).where(Emailer.id == emailer_id)).first()
        if when is not None:
            queue.enqueue_at(
                when, "mcs.jobs.send_emailer", emailer_id, job_id=f"emailer-{emailer_id}"
            )
    session.commit()
