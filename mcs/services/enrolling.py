"""Enrolling contacts: the whole batch, one of them, those who are added; and letting them go."""

from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy import Select, and_, exists, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from mcs.core import sequences
from mcs.core.addresses import BadAddress, parse_address
from mcs.models import Action, Batch, BatchContact, Campaign, Contact, Schedule
from mcs.services import audit, bulk, definitions, schedules
from mcs.services.bulk import CHUNK
from mcs.services.definitions import Plan
from mcs.services.queue import Queue
from mcs.services.schedules import CONTACT, Enrolled, Subject, subject_of
from mcs.services.transactions import writing

ENROL_JOB = "mcs.jobs.enrol_batch"
# As many are enrolled while one waits for the answer; what is left, a worker does.
AT_ONCE = 5 * CHUNK


class Refused(Exception):
    """Somebody who cannot be enrolled; the text says why, and what to do."""


def not_enrolled(session: Session, campaign_id: int) -> int:
    """How many of the batch have not begun the sequence."""
    return session.scalars(select(func.count()).select_from(_outside(campaign_id).subquery())).one()


def ask_batch(
    session: Session, now: datetime, queue: Queue, campaign_id: int, *, by: int | None = None
) -> int:
    """Enrol everybody in the batch who has not begun; how many are still to come.

    The first AT_ONCE are enrolled before this returns; a worker does the rest, and the clock rings
    one until all is done. Raises Unknown.
    """
    new = not_enrolled(session, campaign_id)
    with writing(session):
        plan = definitions.load(session, campaign_id, to_edit=True)
        session.execute(
            update(Campaign).where(Campaign.id == plan.campaign_id).values(enrol_asked_at=now)
        )
        verb = "enrolled the batch of"
        audit.note(session, now, by, verb, "campaign", campaign_id, contacts=new)
    chunks = iter(range(AT_ONCE // CHUNK))
    enrol_batch(session, now, campaign_id, stopping=lambda: next(chunks, None) is None)
    left = session.scalar(select(Campaign.enrol_asked_at).where(Campaign.id == campaign_id))
    if left is None:
        return 0
    ring(queue, campaign_id)
    return not_enrolled(session, campaign_id)


def enrol_batch(
    session: Session,
    now: datetime,
    campaign_id: int,
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Enrol those in the batch who have not begun, if somebody asked for it, a CHUNK to a commit.

    Run twice, or on two workers at once, it enrols nobody twice.
    """
    asked_at = session.scalar(select(Campaign.enrol_asked_at).where(Campaign.id == campaign_id))
    last = 0
    while asked_at is not None and not stopping():
        ids = session.scalars(
            _outside(campaign_id)
            .where(BatchContact.contact_id > last)
            .order_by(BatchContact.contact_id)
            .limit(CHUNK)
        ).all()
        if not ids:
            _done(session, campaign_id, asked_at)
            if last:
                bulk.take_stock(session)
            return
        bulk.enrol(session, now, campaign_id, [subject_of(id) for id in ids])
        last = ids[-1]


def asked(session: Session) -> Sequence[int]:
    """The campaigns whose batch waits to be enrolled."""
    return session.scalars(
        select(Campaign.id).where(Campaign.enrol_asked_at.is_not(None)).order_by(Campaign.id)
    ).all()


def ring(queue: Queue, campaign_id: int) -> bool:
    """Ring a worker to enrol a batch; False when Redis is away."""
    return queue.enqueue(ENROL_JOB, campaign_id, job_id=f"enrol-{campaign_id}")


def enrol_one(
    session: Session, now: datetime, campaign_id: int, address: str, *, by: int | None = None
) -> Enrolled:
    """Enrol the contact of an email address. Raises Refused, Unknown."""
    try:
        key = parse_address(address).key
    except BadAddress as error:
        raise Refused(f"This is not an email address: {error.reason}.") from None
    contact_id = session.scalar(
        select(Contact.id).where(Contact.email_key == key, Contact.deleted_at.is_(None))
    )
    if contact_id is None:
        raise Refused("Nobody has this address yet: add them to the campaign’s contacts first.")
    return schedules.enrol(session, now, campaign_id, subject_of(contact_id), by=by)


def welcome(
    session: Session, now: datetime, campaign_id: int, on: bool, *, by: int | None = None
) -> None:
    """Enrol everyone who is added to the batch from now on, or no longer. Raises Unknown."""
    with writing(session):
        plan = definitions.load(session, campaign_id, to_edit=True)
        session.execute(
            update(Campaign).where(Campaign.id == plan.campaign_id).values(enrols_added=on)
        )
        verb = f"switched {'on' if on else 'off'} enrolling in"
        audit.note(session, now, by, verb, "campaign", campaign_id)


def welcoming(session: Session, campaign_id: int) -> Plan | None:
    """The sequence that begins for who is added to the batch, if there is one, unchanging in the
    caller's transaction. To be asked before contacts are locked."""
    plan = definitions.load(session, campaign_id)
    on = session.scalar(select(Campaign.enrols_added).where(Campaign.id == campaign_id))
    return plan if on and plan.definitions else None


def added(session: Session, now: datetime, plan: Plan, contact_ids: Sequence[int]) -> None:
    """Enrol contacts who have just been added to the batch, in the caller's transaction."""
    subjects = [subject_of(id) for id in contact_ids]
    for first in range(0, len(subjects), CHUNK):
        _enrol_within(session, now, plan, subjects[first : first + CHUNK])


def sequences_of(session: Session, contact_id: int, campaign_id: int | None = None) -> list[Plan]:
    """The sequences that a contact is in, of one campaign or of all, unchanging in the caller's
    transaction. To be asked before any slice is locked."""
    query = select(Schedule.campaign_id).where(Schedule.contact_id == contact_id, Schedule.active)
    if campaign_id is not None:
        query = query.where(Schedule.campaign_id == campaign_id)
    found = session.scalars(query.distinct().order_by(Schedule.campaign_id)).all()
    return [definitions.load(session, one) for one in found]


def let_go(session: Session, now: datetime, contact_id: int, plans: Sequence[Plan]) -> None:
    """Withdraw what is pending of a contact in these sequences, in the caller's transaction."""
    for plan in plans:
        mine = (
            Schedule.contact_id == contact_id,
            Schedule.campaign_id == plan.campaign_id,
            Schedule.active,
        )
        ids = session.scalars(select(Schedule.id).where(*mine)).all()
        session.execute(update(Schedule).where(*mine).values(active=False, updated_at=now))
        schedules.withdraw(session, now, plan, ids, sequences.UNSCHEDULED)


def pending_of(session: Session, contact_id: int, campaign_id: int | None = None) -> int:
    """How many actions ``let_go`` would withdraw."""
    query = (
        select(func.count())
        .select_from(Action)
        .join(Schedule, Schedule.id == Action.schedule_id)
        .where(Schedule.contact_id == contact_id, Action.state == "pending")
    )
    if campaign_id is not None:
        query = query.where(Schedule.campaign_id == campaign_id)
    return session.scalars(query).one()


def _outside(campaign_id: int) -> Select[int]:
    """The contacts of the batch who have no schedule in the campaign."""
    begun = exists().where(
        and_(
            Schedule.campaign_id == campaign_id,
            Schedule.contact_id == BatchContact.contact_id,
            Schedule.subject == CONTACT,
        )
    )
    return (
        select(BatchContact.contact_id)
        .join(Batch, Batch.id == BatchContact.batch_id)
        .where(Batch.campaign_id == campaign_id, ~begun)
    )


def _done(session: Session, campaign_id: int, asked_at: datetime) -> None:
    """Nobody is left. Asked again meanwhile, it is done again."""
    with writing(session):
        session.execute(
            update(Campaign)
            .where(Campaign.id == campaign_id, Campaign.enrol_asked_at == asked_at)
            .values(enrol_asked_at=None)
        )


def _enrol_within(session: Session, now: datetime, plan: Plan, subjects: Sequence[Subject]) -> None:
    try:
        with session.begin_nested():
            bulk.enrol_within(session, now, plan.campaign_id, subjects)
    except IntegrityError:
        # Another enrolled one of them in the same moment: now it is seen.
        bulk.enrol_within(session, now, plan.campaign_id, subjects)
