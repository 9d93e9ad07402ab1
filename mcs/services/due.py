"""What is due, asked of SQL: the one look that makes up for every bell that did not ring."""

import logging
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from mcs.gateways.jobqueue import JobQueue
from mcs.models import Emailer
from mcs.services import (
    claims,
    email_actions,
    email_starts,
    emailers,
    enrolling,
    imports,
    parents,
    planning,
    rescues,
    setbacks,
    slice_claims,
    slices,
)
from mcs.services.transactions import PASSING

log = logging.getLogger(__name__)

# A second's worth of work for many workers; what is more is found the next second.
RINGS = 64
# Workers that run callbacks side by side: each has many under way, and others have emails to send.
RUNNERS = 4


def tick(
    session: Session,
    now: datetime,
    queue: JobQueue,
    on_doubt: str,
    callbacks: Collection[str] = (),
) -> None:
    """Plan what nobody planned, take over what dead workers held, close what is done, and ring
    workers for what is due. ``callbacks`` are those that the workers have.

    Idempotent, and harmless on several clocks at once: every job it rings claims before it acts.
    """
    if planning.overlooked(session, now):
        planning.plan_day(session, now, queue)
    for parent in rescues.rescue(session, now, on_doubt):
        parents.finish(session, now, parent)
    for emailer_id in emailers.finished(session):
        emailers.finish(session, now, emailer_id)
    email_actions.close_over(session, now)
    setbacks.make_due(session, now)
    for emailer_id in due_emailers(session, now):
        queue.enqueue("mcs.jobs.send_emailer", emailer_id, job_id=f"emailer-{emailer_id}")
    if email_starts.due(session, now):
        email_actions.ring_start(queue)
    for slice_id in slice_claims.due_slices(session, now, RINGS):
        slices.ring(queue, slice_id)
    for import_id in imports.waiting_imports(session, now):
        imports.ring(queue, import_id)
    for campaign_id in enrolling.asked(session):
        enrolling.ring(queue, campaign_id)
    due_at = claims.next_due(session, callbacks)
    if due_at is not None and due_at <= now:
        ring_runner(queue, 0)


def ring_runner(queue: JobQueue, number: int) -> None:
    """Call a worker to the actions that are due: the first, or one more that helps it."""
    if number < RUNNERS:
        queue.enqueue("mcs.jobs.run_actions", number, job_id=f"run-actions-{number}")


def due_emailers(session: Session, now: datetime) -> Sequence[int]:
    """Planned emailers whose instant has come."""
    found = session.scalars(
        select(Emailer.id)
        .where(Emailer.state == "planned", Emailer.scheduled_at <= now)
        .order_by(Emailer.scheduled_at)
        .limit(RINGS)
    ).all()
    session.commit()
    return found


def start_due(session: Session, now: datetime, queue: JobQueue, late_limit: timedelta) -> None:
    """Start the emailers and email actions whose instant has come, for a worker that has others in
    its hands: one that cannot be started is left to its own alarm, and stops nobody."""
    for emailer_id in due_emailers(session, now):
        try:
            emailers.send(session, now, queue, emailer_id, late_limit)
        except PASSING:
            raise
        except Exception:
            log.exception("emailer %d could not be started", emailer_id)
    if email_starts.start(session, now):
        email_actions.ring(session, now, queue)
