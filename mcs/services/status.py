"""How the installation stands: what is due, under way, and waiting for a person."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from mcs.core.states import EMAILER_STATES
from mcs.gateways.jobqueue import QueueHealth
from mcs.models import Campaign, Contact, Emailer, Slice


@dataclass(frozen=True)
class Status:
    """Counts of the nouns, the emailers by state, and the messages they still owe."""

    campaigns: int
    contacts: int
    emailers: dict[str, int]
    to_go: int
    in_doubt: int
    next_send_at: datetime | None
    redis: bool
    workers: int
    clock: bool


def status(session: Session, health: QueueHealth) -> Status:
    """Ask SQL; what Redis says is given."""
    rows = session.execute(select(Emailer.state, func.count()).group_by(Emailer.state))
    by_state: dict[str, int] = dict(rows.all())
    to_go, in_doubt = session.execute(
        select(
            func.coalesce(func.sum(Slice.pending + Slice.sending), 0),
            func.coalesce(func.sum(Slice.in_doubt), 0),
        )
    ).one()
    return Status(
        campaigns=session.scalars(select(func.count()).where(Campaign.archived_at.is_(None))).one(),
        contacts=session.scalars(select(func.count()).where(Contact.deleted_at.is_(None))).one(),
        emailers={state: by_state.get(state, 0) for state in EMAILER_STATES},
        to_go=int(to_go),
        in_doubt=int(in_doubt),
        next_send_at=session.scalars(
            select(func.min(Emailer.scheduled_at)).where(Emailer.state == "planned")
        ).one(),
        redis=health.redis,
        workers=health.workers,
        clock=health.clock,
    )
