"""The jobs that RQ runs: each parses ids, calls one service, and is harmless when run twice.

Their names are a contract with what waits in Redis (mcs.gateways.jobqueue.JOBS).
"""

import logging
import random
from datetime import timedelta
from functools import partial

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from mcs.gateways import clock, drain, smtp
from mcs.gateways.jobqueue import SLICES
from mcs.runtime import keep_time, runtime
from mcs.services import (
    due,
    email_actions,
    email_starts,
    emailers,
    enrolling,
    imports,
    lane,
    parents,
    planning,
    slice_claims,
    turns,
)
from mcs.services.runners import Surroundings

NOBODY = 0  # An id that no row has.

log = logging.getLogger(__name__)


def rehearse() -> None:
    """Ask for nobody what begins each sending, before a worker forks.

    What is made once a process, such as SQLAlchemy's mappers and the text of a statement, took a
    tenth of a second of every job. Where the database is away or empty, that is left to the jobs.
    """
    try:
        here = runtime()
        with here.sessions() as session:
            due.due_emailers(session, clock.now())
            slice_claims.claim(session, clock.now(), timedelta(), NOBODY)
        here.engine.dispose()
    except SQLAlchemyError as error:
        log.info("the database does not answer yet (%s)", type(error).__name__)


def plan_day() -> None:
    """Plan the day ahead, and let go of files that waited too long: rung at 06:00, and each minute
    as a safety net."""
    here = runtime()
    with here.sessions() as session:
        planning.plan_day(session, clock.now(), here.queue)
        imports.forget_reviews(session, clock.now())


def tick() -> None:
    """Look in SQL for what is due: each second."""
    here = runtime()
    keep_time(here)  # The clock's process lives for months.
    with here.sessions() as session:
        due.tick(session, clock.now(), here.queue, here.settings.on_doubt, here.callbacks.keys())


def send_emailer(emailer_id: int) -> None:
    """Start an emailer: rung at its instant."""
    here = runtime()
    late_limit = timedelta(minutes=here.settings.late_limit_minutes)
    with here.sessions() as session:
        emailers.send(session, clock.now(), here.queue, emailer_id, late_limit)


def start_emails() -> None:
    """Start the email actions that are due, a batch at a time."""
    here = runtime()
    with here.sessions() as session:
        while not drain.requested() and email_starts.start(session, clock.now()):
            email_actions.ring(session, clock.now(), here.queue)


def run_actions(number: int) -> None:
    """Run the actions that are due and that send no email; further workers have further numbers."""
    here = runtime()
    turn = turns.Turn(
        given=Surroundings(here.sessions, here.callbacks, clock.now, here.settings.lease_seconds),
        stopping=drain.requested,
        call_another=partial(due.ring_runner, here.queue, number + 1),
    )
    turns.run(turn)


def _start_due(session: Session) -> None:
    here = runtime()
    late_limit = timedelta(minutes=here.settings.late_limit_minutes)
    due.start_due(session, clock.now(), here.queue, late_limit)


def deliver_slice(slice_id: int) -> None:
    """Send a slice of an emailer or a sequence, and what else is due meanwhile."""
    here = runtime()
    given = lane.Surroundings(
        sessions=here.sessions,
        settings=here.settings,
        server=smtp.server(here.settings),
        now=clock.now,
        dice=random.random,
        stopping=drain.requested,
        start_due=_start_due,
        others_wait=lambda: here.queue.others_wait(than=SLICES),
    )
    worked_on = lane.deliver(given, slice_id)
    with here.sessions() as session:
        for parent in worked_on:
            parents.ring(session, clock.now(), here.queue, parent)


def import_contacts(import_id: int) -> None:
    """Import an uploaded CSV."""
    here = runtime()
    with here.sessions() as session:
        imports.run(session, clock.now, import_id, secret=here.settings.secret_key)


def enrol_batch(campaign_id: int) -> None:
    """Enrol a campaign's batch in its sequence."""
    with runtime().sessions() as session:
        enrolling.enrol_batch(session, clock.now(), campaign_id, drain.requested)
