"""How the installation stands: what is due, under way, and waiting for a person."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from mcs.core.states import EMAILER_STATES
from mcs.gateways.jobqueue import QueueHealth
from mcs.models import Campaign, Contact, Emailer, Scenario, Schedule, Slice
from mcs.services import actions, planning, reach

LOOKAHEAD = timedelta(days=366)
LATEST = 20


@dataclass(frozen=True)
class Status:
    """Counts of the nouns, emailers and actions by state, and the messages they still owe.

    ``held`` are the campaigns the emails of whose sequences wait for a person.
    """

    campaigns: int
    contacts: int
    emailers: dict[str, int]
    to_go: int
    in_doubt: int
    next_send_at: datetime | None
    subjects: int
    actions: dict[str, int]
    next_action_at: datetime | None
    held: int
    redis: bool
    workers: int
    clock: bool


@dataclass(frozen=True)
class Row:
    """A campaign or an emailer with the number that the command line asks for."""

    id: int
    state: str
    words: str


def status(session: Session, now: datetime, health: QueueHealth) -> Status:
    """Ask SQL; what Redis says is given. The next send is looked for LOOKAHEAD days ahead."""
    rows = session.execute(select(Emailer.state, func.count()).group_by(Emailer.state))
    by_state: dict[str, int] = dict(rows.all())
    upcoming = (when for _scenario, when in planning.upcoming(session, now, now + LOOKAHEAD))
    to_go, in_doubt = session.execute(
        select(
            func.coalesce(func.sum(Slice.pending + Slice.sending), 0),
            func.coalesce(func.sum(Slice.in_doubt), 0),
        )
    ).one()
    acting = actions.status(session, now)
    return Status(
        campaigns=session.scalars(select(func.count()).where(Campaign.archived_at.is_(None))).one(),
        contacts=session.scalars(select(func.count()).where(Contact.deleted_at.is_(None))).one(),
        emailers={state: by_state.get(state, 0) for state in EMAILER_STATES},
        to_go=int(to_go),
        in_doubt=int(in_doubt),
        next_send_at=next(iter(upcoming), None),
        subjects=session.scalars(select(func.count()).where(Schedule.active)).one(),
        actions=dict(acting.counts),
        next_action_at=acting.next_due,
        held=session.scalars(
            select(func.count()).where(Campaign.held_at.is_not(None), Campaign.active)
        ).one(),
        redis=health.redis,
        workers=health.workers,
        clock=health.clock,
    )


def campaigns(session: Session) -> list[Row]:
    """The latest campaigns, the newest first."""
    query = select(Campaign).order_by(Campaign.id.desc()).limit(LATEST)
    return [
        Row(
            campaign.id,
            "archived" if campaign.archived_at else "active" if campaign.active else "inactive",
            f"{campaign.name}, {campaign.start_date} to {campaign.end_date}",
        )
        for campaign in session.scalars(query)
    ]


def emailers(session: Session) -> list[Row]:
    """The latest emailers, the newest first, those that have begun with how far they have got."""
    rows = session.execute(
        select(Emailer, Scenario.name, Campaign.name)
        .join(Scenario, Scenario.id == Emailer.scenario_id)
        .join(Campaign, Campaign.id == Scenario.campaign_id)
        .order_by(Emailer.id.desc())
        .limit(LATEST)
    ).all()
    reached = reach.of_emailers(session, [emailer.id for emailer, _, _ in rows])
    return [
        Row(
            emailer.id,
            emailer.state,
            f"{scenario} of {campaign}, {emailer.scheduled_at:%Y-%m-%d %H:%M} UTC"
            + (f": {reached[emailer.id].words}" if emailer.id in reached else ""),
        )
        for emailer, scenario, campaign in rows
    ]
