"""Emailers: start one at its instant, hold it, go on with it, and stop it."""

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from mcs.core import retries, words
from mcs.core.breaker import LONGEST_NOTICE
from mcs.core.states import EMAILER_MOVES, may_move
from mcs.core.walltime import instant
from mcs.gateways.jobqueue import JobQueue
from mcs.models import AuditEntry, Delivery, Emailer, Scenario, Slice
from mcs.services import email_actions, planning, slices, snapshots
from mcs.services.transactions import NO_SYNC, writing

# More rings than workers would only wake them for nothing; the clock rings again each second.
RINGS = 16


class NotPossible(Exception):
    """The emailer is in no state for this; the text says so to a person."""


def send(
    session: Session, now: datetime, queue: JobQueue, emailer_id: int, late_limit: timedelta
) -> None:
    """Start an emailer that is due: planned -> sending, with a delivery per contact, in one commit.

    Not due yet, or no longer planned: nothing happens, so the bell may ring early, late or twice.
    Later than ``late_limit`` it becomes missed and waits for a person; so does one whose campaign
    lacks a sender or a postal address (CAN-SPAM asks for both).
    """
    if _start(session, now, emailer_id, late_limit):
        ring(session, now, queue, emailer_id)


def ring(session: Session, now: datetime, queue: JobQueue, emailer_id: int) -> None:
    """Call workers to an emailer's slices that are due."""
    due = session.scalars(
        select(Slice.id)
        .where(
            Slice.emailer_id == emailer_id,
            Slice.pending > 0,
            Slice.claim_token.is_(None),
            Slice.due_at <= now,
        )
        .order_by(Slice.id)
        .limit(RINGS)
    ).all()
    session.commit()
    for slice_id in due:
        slices.ring(queue, slice_id)


def pause(
    session: Session,
    now: datetime,
    emailer_id: int,
    *,
    user_id: int | None = None,
    notice: str = "",
) -> None:
    """Stop starting messages; those in flight end. ``notice`` says why when MCS pauses it."""
    with writing(session):
        _move(session, now, emailer_id, "paused", user_id, notice=notice)


def resume(
    session: Session,
    now: datetime,
    queue: JobQueue,
    emailer_id: int,
    late_limit: timedelta,
    *,
    user_id: int | None = None,
) -> None:
    """Go on with a paused emailer. Raises NotPossible when it is not: a missed one has to be begun
    (``send_now``).

    One that would go on later than ``late_limit`` after its instant, with nobody served yet,
    becomes missed instead and waits for a person who says "send now".
    """
    with writing(session):
        emailer = locked(session, emailer_id)
        if emailer.state != "paused":
            raise NotPossible(_refusal(emailer.state, "sending"))
        if now - emailer.scheduled_at > late_limit and not _served(session, emailer_id):
            _move(session, now, emailer_id, "missed", user_id, notice=_too_late(emailer, now))
            return
        _move(session, now, emailer_id, "sending", user_id)
        # One letter at a time, until it is seen that the server is well again.
        emailer.cuts = min(emailer.cuts, 1)
        session.flush()
        _wake(session, now, emailer)
    ring(session, now, queue, emailer_id)


def cancel(session: Session, now: datetime, emailer_id: int, *, user_id: int | None = None) -> None:
    """Stop for good: what is still to go is skipped, what is in flight ends and is recorded.

    Its scenario, if nobody was served, becomes a draft again that can be changed and scheduled.
    """
    with writing(session):
        emailer = locked(session, emailer_id)
        started = emailer.recipients is not None
        _move(session, now, emailer_id, "cancelled", user_id)
        session.execute(
            update(Emailer)
            .where(Emailer.id == emailer_id)
            .values(finished_at=now)
            .execution_options(**NO_SYNC)
        )
        if started:
            _skip_rest(session, emailer_id)
            record_served(session, emailer_id)
        else:
            _unschedule(session, now, emailer.scenario_id)


def send_now(
    session: Session, now: datetime, queue: JobQueue, emailer_id: int, *, user_id: int | None = None
) -> None:
    """Send a missed emailer after all, from now on."""
    with writing(session):
        emailer = locked(session, emailer_id)
        if emailer.state != "missed":
            raise NotPossible(_refusal(emailer.state, "sent now"))
        _refuse_withdrawn(emailer)
        if emailer.recipients is None:
            _refuse_incomplete(emailer)
            snapshots.write(session, now, emailer)
        else:
            _wake(session, now, emailer)
        _move(session, now, emailer_id, "sending", user_id)
    ring(session, now, queue, emailer_id)


def skip(session: Session, now: datetime, emailer_id: int, *, user_id: int | None = None) -> None:
    """Let a missed emailer go: nobody gets it."""
    with writing(session):
        if locked(session, emailer_id).state != "missed":
            raise NotPossible("Only a missed sending can be skipped.")
    cancel(session, now, emailer_id, user_id=user_id)


def reschedule(
    session: Session,
    now: datetime,
    queue: JobQueue,
    emailer_id: int,
    day: date,
    at: time,
    *,
    user_id: int | None = None,
) -> None:
    """Give a missed emailer, of which nothing was sent, a new time: its scenario's."""
    with writing(session):
        emailer = locked(session, emailer_id)
        if emailer.state != "missed" or emailer.recipients is not None:
            raise NotPossible("Only a missed sending that never began can get a new time.")
        scenario, campaign = emailer.scenario, emailer.scenario.campaign
        when = instant(day, at, ZoneInfo(campaign.timezone))
        if when <= now:
            raise NotPossible("The new time has passed already: choose a later one.")
        if not campaign.start_date <= day <= campaign.end_date:
            raise NotPossible(
                f"The campaign runs from {campaign.start_date} to {campaign.end_date}:"
                " choose a day within."
            )
        scenario.date, scenario.time, scenario.updated_at = day, at, now
        emailer.scheduled_at = when
        _move(session, now, emailer_id, "planned", user_id)
    queue.enqueue_at(when, "mcs.jobs.send_emailer", emailer_id, job_id=f"emailer-{emailer_id}")


def finish(session: Session, now: datetime, emailer_id: int) -> bool:
    """Close an emailer of which nothing is left to do; True when this call closed it."""
    with writing(session):
        emailer = locked(session, emailer_id)
        open_slices = select(Slice.id).where(Slice.emailer_id == emailer_id, Slice.open)
        left = session.scalars(open_slices.limit(1)).first() is not None
        record_served(session, emailer_id)
        if left or emailer.state != "sending":
            return False
        emailer.state, emailer.finished_at, emailer.notice = "sent", now, ""
        return True


def finished(session: Session) -> Sequence[int]:
    """Emailers that are sending with nothing left to do: a worker died before it closed them."""
    open_slices = select(Slice.id).where(Slice.emailer_id == Emailer.id, Slice.open)
    return session.scalars(
        select(Emailer.id).where(Emailer.state == "sending", ~open_slices.exists())
    ).all()


def give_up_at(emailer: Emailer) -> datetime:
    """When trying ends: a day after the start, never past the campaign's last day.

    What a person sends, resumes or retries counts from then; after the last day it has its day too.
    """
    campaign = emailer.scenario.campaign
    last_moment = instant(
        campaign.end_date + timedelta(days=1), time.min, ZoneInfo(campaign.timezone)
    )
    begun = emailer.paced_from or emailer.started_at or emailer.scheduled_at
    return retries.give_up_at(begun, last_moment)


def note(session: Session, emailer_id: int, notice: str) -> None:
    """Say on a sending emailer's page what holds it up; empty when all is well again."""
    notice = notice[:LONGEST_NOTICE]
    with writing(session):
        session.execute(
            update(Emailer)
            .where(Emailer.id == emailer_id, Emailer.state == "sending", Emailer.notice != notice)
            .values(notice=notice)
            .execution_options(**NO_SYNC)
        )


def note_cuts(session: Session, emailer_id: int, cuts: int) -> None:
    """Remember, for whichever worker goes on, how often in a row the server broke off."""
    with writing(session):
        session.execute(
            update(Emailer)
            .where(Emailer.id == emailer_id, Emailer.cuts != cuts)
            .values(cuts=cuts)
            .execution_options(**NO_SYNC)
        )


def _start(session: Session, now: datetime, emailer_id: int, late_limit: timedelta) -> bool:
    with writing(session):
        try:
            emailer = locked(session, emailer_id)
        except NotPossible:
            return False  # withdrawn since the bell was set
        if emailer.state != "planned" or emailer.scheduled_at > now:
            return False
        intended = planning.intended(emailer.scenario, emailer.scenario.campaign)
        if intended is None or intended > now:
            return False  # edited or switched off since; the planner is about to say so here too
        if now - emailer.scheduled_at > late_limit:
            _move(session, now, emailer_id, "missed", notice=_too_late(emailer, now))
            return False
        try:
            _refuse_incomplete(emailer)
        except NotPossible as refusal:
            _move(session, now, emailer_id, "missed", notice=str(refusal))
            return False
        _move(session, now, emailer_id, "sending")
        snapshots.write(session, now, emailer)
        return True


def _move(
    session: Session,
    now: datetime,
    emailer_id: int,
    state: str,
    user_id: int | None = None,
    *,
    notice: str = "",
) -> None:
    """The one place where an emailer's state changes by somebody's wish. Raises NotPossible."""
    emailer = locked(session, emailer_id)
    if not may_move(EMAILER_MOVES, emailer.state, state):
        raise NotPossible(_refusal(emailer.state, state))
    verb = "resumed" if emailer.state == "paused" and state == "sending" else _DONE[state]
    emailer.state, emailer.notice = state, notice[:LONGEST_NOTICE]
    session.add(
        AuditEntry(
            at=now,
            user_id=user_id,
            verb=verb,
            noun="emailer",
            noun_id=emailer_id,
            detail={"notice": notice} if notice else {},
        )
    )
    session.flush()


_DONE = {
    "planned": "rescheduled",
    "sending": "started",
    "paused": "paused",
    "missed": "missed",
    "cancelled": "cancelled",
}


def locked(session: Session, emailer_id: int) -> Emailer:
    """The emailer, locked after its scenario: the order in which who edits a scenario locks.

    FOR NO KEY UPDATE: who changes a slice twice in one transaction has PostgreSQL look for the
    emailer again (FOR KEY SHARE), holding the slice that we may be waiting for.
    """
    of_emailer = select(Emailer.scenario_id).where(Emailer.id == emailer_id)
    session.execute(
        select(Scenario.id)
        .where(Scenario.id == of_emailer.scalar_subquery())
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    emailer = session.scalars(
        select(Emailer)
        .where(Emailer.id == emailer_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).first()
    if emailer is None:
        raise NotPossible("This sending is no longer planned.")
    return emailer


def _refuse_withdrawn(emailer: Emailer) -> None:
    scenario, campaign = emailer.scenario, emailer.scenario.campaign
    if scenario.state == "draft":
        raise NotPossible("Its scenario is a draft now: schedule it first, or skip this sending.")
    if campaign.archived_at is not None or not campaign.active:
        raise NotPossible("Its campaign is switched off: activate it first, or skip this sending.")


def _refuse_incomplete(emailer: Emailer) -> None:
    campaign = emailer.scenario.campaign
    if not campaign.from_email:
        raise NotPossible("The campaign has no sender address yet: add one, then send it.")
    if not campaign.postal_address:
        raise NotPossible("The campaign has no postal address yet: add one, then send it.")


def _skip_rest(session: Session, emailer_id: int) -> None:
    # The slices with messages in flight too: one that is put back after this reads "cancelled".
    session.execute(
        select(Slice.id)
        .where(Slice.emailer_id == emailer_id, Slice.open)
        .order_by(Slice.id)
        .with_for_update()
    )
    session.execute(
        update(Delivery)
        .where(Delivery.emailer_id == emailer_id, Delivery.state == "pending")
        .values(state="skipped", reason="cancelled")
        .execution_options(**NO_SYNC)
    )
    session.execute(
        update(Slice)
        .where(Slice.emailer_id == emailer_id, Slice.pending > 0)
        .values(skipped=Slice.skipped + Slice.pending, pending=0)
        .execution_options(**NO_SYNC)
    )


def _unschedule(session: Session, now: datetime, scenario_id: int) -> None:
    session.execute(
        update(Scenario)
        .where(Scenario.id == scenario_id)
        .values(state="draft", updated_at=now)
        .execution_options(**NO_SYNC)
    )


def _wake(session: Session, now: datetime, emailer: Emailer) -> None:
    """Let the slices that wait for a server that was away be tried at once."""
    emailer.paced_from, emailer.paced_sent = now, _served(session, emailer.id)
    session.flush()
    session.execute(
        update(Slice)
        .where(Slice.emailer_id == emailer.id, Slice.pending > 0, Slice.claim_token.is_(None))
        .values(due_at=now)
        .execution_options(**NO_SYNC)
    )


def _served(session: Session, emailer_id: int) -> int:
    return session.scalars(
        select(func.coalesce(func.sum(Slice.sent), 0)).where(Slice.emailer_id == emailer_id)
    ).one()


def record_served(session: Session, emailer_id: int) -> None:
    """Write on the scenario how many contacts all its sendings served."""
    scenario_id = session.scalars(select(Emailer.scenario_id).where(Emailer.id == emailer_id)).one()
    email_actions.record_served(session, scenario_id)


def _too_late(emailer: Emailer, now: datetime) -> str:
    minutes = int((now - emailer.scheduled_at).total_seconds() // 60)
    return f"It could not start in time: it was {words.count(minutes, 'minute')} late."


_REFUSED = {
    "sent": "it has been sent already",
    "cancelled": "it has been cancelled",
    "missed": "its time has passed",
    "planned": "it has not started yet",
    "sending": "it is being sent",
    "paused": "it is paused",
}
_WISHES = {"paused": "paused", "sending": "resumed", "cancelled": "cancelled"}


def _refusal(state: str, wish: str) -> str:
    already = " already" if state == wish and state in ("paused", "sending") else ""
    return f"This sending cannot be {_WISHES.get(wish, wish)}: {_REFUSED[state]}{already}."
