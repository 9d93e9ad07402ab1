"""Schedules: enrol subjects in a campaign's sequence, withdraw them, keep their actions in line."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import (
    bindparam,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from mcs.core import sequences
from mcs.core.sequences import Change, Enrolment, Standing
from mcs.models import Action, Schedule
from mcs.models.base import UtcDateTime
from mcs.services import action_deliveries, audit, births
from mcs.services.definitions import Plan, known, load, look
from mcs.services.tallies import Effect, Tally
from mcs.services.transactions import NO_SYNC, Overtaken, writing

# How many schedules are brought in line with one look at their actions.
AT_ONCE = 2000
LONGEST_SUBJECT, LONGEST_SUBJECT_ID = 100, 255
# The kind of subject that is a contact: what somebody who is enrolled without any other is.
CONTACT = "contact"


class Refused(ValueError):
    """A subject that cannot be enrolled; ``argument`` names what is wrong with it."""

    def __init__(self, argument: str, reason: str) -> None:
        super().__init__(f"{argument}: {reason}")
        self.argument, self.reason = argument, reason


@dataclass(frozen=True)
class Subject:
    """Who is enrolled: a kind and an id, and the contact to write to."""

    subject: str
    subject_id: str
    contact_id: int | None = None


def subject_of(contact_id: int) -> Subject:
    """A contact as the subject of a sequence."""
    return Subject(CONTACT, str(contact_id), contact_id)


@dataclass(frozen=True)
class Enrolled:
    """The schedule of a subject, and what enrolling it did: began, resumed or nothing."""

    schedule_id: int
    run: int
    started_at: datetime
    contact_id: int | None
    did: str


def enrol(
    session: Session,
    now: datetime,
    campaign: int | str,
    who: Subject,
    *,
    restart: bool = False,
    ends: int | None = None,
    by: int | None = None,
) -> Enrolled:
    """Begin the campaign's sequence for a subject: its actions are all there in the same commit.

    Enrolled already: nothing happens. Withdrawn before: what was never completed comes back,
    counted from the original start. ``restart`` begins a new run instead, after the run ``ends``,
    or the latest there is now: where that is no longer the latest, somebody else has restarted it,
    and it is not done twice. Raises Unknown, Refused.
    """
    check(who)
    if restart and ends is None:
        plan = look(session, campaign)
        ends = last_run(session, plan.campaign_id, who.subject, who.subject_id)
    for last_try in (False, True):
        try:
            # What the audit log is told of is noted in the same commit, so not by one statement.
            alone = not restart and not audit.asked_for(session, by)
            made = _begin_unseen(session, now, campaign, who) if alone else None
            if made is None:
                with writing(session):
                    plan = load(session, campaign)
                    made = enrol_within(session, now, plan, who, ends=ends)
                    note_enrolled(session, now, by, plan, who, made)
            return made
        except (IntegrityError, Overtaken):
            # Somebody enrolled the same subject in the same moment: there is one now.
            if last_try:
                raise
    raise AssertionError("unreachable")


def last_run(
    session: Session,
    campaign_id: int,
    subject: str,
    subject_id: str,
    before: datetime | None = None,
) -> int:
    """The latest run of a subject, or of those that began before a moment; 0 where there is none.

    It is read without a lock, before the transaction that ends it.
    """
    query = select(func.max(Schedule.run)).where(
        Schedule.campaign_id == campaign_id,
        Schedule.subject == subject,
        Schedule.subject_id == subject_id,
    )
    if before is not None:
        query = query.where(Schedule.started_at < before)
    return session.scalar(query) or 0


def note_enrolled(
    session: Session, now: datetime, by: int | None, plan: Plan, who: Subject, made: Enrolled
) -> None:
    """Tell the audit log what enrolling a subject did."""
    if made.did == "began":
        note(session, now, by, "enrolled" if made.run == 1 else "restarted", plan, who)
    elif made.did == "resumed":
        note(session, now, by, "resumed", plan, who)


def note(
    session: Session, now: datetime, by: int | None, verb: str, plan: Plan, who: Subject
) -> None:
    """Tell the audit log what was done to a subject's schedule, where somebody asked for it."""
    if audit.asked_for(session, by):
        said = {"who": f"{who.subject} {who.subject_id}"}
        audit.note(session, now, by, f"{verb} a subject of", "campaign", plan.campaign_id, **said)


def enrol_within(
    session: Session,
    now: datetime,
    plan: Plan,
    who: Subject,
    *,
    ends: int | None = None,
) -> Enrolled:
    """``enrol`` in the caller's transaction, which has loaded the plan and checked the subject.

    With ``ends``, a new run begins where that is the subject's latest, and else nothing happens.
    """
    refuse_unwritable(plan, [who.contact_id])
    latest = _latest(session, plan.campaign_id, who.subject, who.subject_id)
    if latest is None:
        return _surely(_begin(session, now, plan, who, 1))
    if ends is not None and latest.run != ends:
        return Enrolled(latest.id, latest.run, latest.started_at, latest.contact_id, "nothing")
    if ends is not None:
        _set_active(session, now, latest.id, active=False)
        withdraw(session, now, plan, [latest.id], sequences.UNSCHEDULED)
        return _surely(_begin(session, now, plan, who, latest.run + 1))
    contact_id = latest.contact_id if who.contact_id is None else who.contact_id
    if contact_id != latest.contact_id:
        _set_active(session, now, latest.id, active=latest.active, contact_id=contact_id)
    if latest.active:
        return Enrolled(latest.id, latest.run, latest.started_at, contact_id, "nothing")
    _set_active(session, now, latest.id, active=True)
    if plan.running:
        align(session, now, plan, schedule_ids=[latest.id])
    return Enrolled(latest.id, latest.run, latest.started_at, contact_id, "resumed")


def unschedule(
    session: Session,
    now: datetime,
    campaign_id: int,
    subject: str,
    subject_id: str,
    *,
    by: int | None = None,
) -> bool:
    """Withdraw what is still pending of a subject; whether it was enrolled. History stays."""
    with writing(session):
        plan = load(session, campaign_id)
        latest = _latest(session, campaign_id, subject, subject_id)
        if latest is None or not latest.active:
            return False
        _set_active(session, now, latest.id, active=False)
        withdraw(session, now, plan, [latest.id], sequences.UNSCHEDULED)
        note(session, now, by, "withdrew", plan, Subject(subject, subject_id))
        return True


def withdraw(
    session: Session, now: datetime, plan: Plan, schedule_ids: Collection[int], why: str
) -> None:
    """Cancel the pending actions of schedules, and emails that have not started, in the caller's
    transaction."""
    if plan.writes:
        these = Schedule.id.in_(schedule_ids)
        action_deliveries.withdraw(session, now, plan.campaign_id, these, why)
    session.execute(
        update(Action)
        .where(Action.schedule_id.in_(schedule_ids), Action.state == "pending")
        .values(state="cancelled", reason=why, ended_at=now)
        .execution_options(**NO_SYNC)
    )


def align(
    session: Session,
    now: datetime,
    plan: Plan,
    *,
    only: Collection[str] | None = None,
    past: str = sequences.PAST_RUN,
    schedule_ids: Collection[int] | None = None,
    write: bool = True,
) -> Tally:
    """Bring the pending actions of active schedules in line with the plan; what that changes.

    In the caller's transaction. Without ``write`` it only counts. ``schedule_ids`` are few.
    """
    tally, plan = Tally(), _concerned(plan, only)
    for rows, standing in _standing_of(session, plan, only, schedule_ids):
        changes = {row.id: _settle(plan, row, standing[row.id], now, only, past) for row in rows}
        for change in changes.values():
            tally.add(change)
        if write:
            _write(session, now, changes, standing)
    return tally


def foretell(
    session: Session, now: datetime, plan: Plan, only: Collection[str] | None = None
) -> Effect:
    """What ``align`` would change, for either answer: both from one look."""
    found, plan = Effect(), _concerned(plan, only)
    for rows, standing in _standing_of(session, plan, only, None):
        for row in rows:
            changes = _settle(plan, row, standing[row.id], now, only, sequences.PAST_RUN)
            found.run.add(changes)
            if any(one.late for one in changes):
                changes = _settle(plan, row, standing[row.id], now, only, sequences.PAST_SKIP)
            found.skip.add(changes)
    return found


def check(who: Subject) -> None:
    """Whether the subject can be stored as it is given. Raises Refused."""
    for argument, text, longest in (
        ("subject", who.subject, LONGEST_SUBJECT),
        ("subject_id", who.subject_id, LONGEST_SUBJECT_ID),
    ):
        if not isinstance(text, str) or not text or "\0" in text:
            raise Refused(argument, f"{text!r} is no name: give a text")
        if len(text) > longest:
            raise Refused(argument, f"it is longer than {longest} characters")


def refuse_unwritable(plan: Plan, contact_ids: Iterable[int | None]) -> None:
    """Refuse subjects without anybody to write to, where a step writes. Raises Refused."""
    if plan.writes and None in contact_ids:
        raise Refused("contact", "a step of this campaign sends email: say to whom")


# Enrolling one.


def _begin_unseen(
    session: Session, now: datetime, campaign: int | str, who: Subject
) -> Enrolled | None:
    """Begin by the plan that is known, without reading anything first: most subjects are new.

    None where that will not do: no plan is known, it is no longer the campaign's, or the subject
    has begun before.
    """
    plan = known(session, campaign)
    if plan is None or (plan.writes and who.contact_id is None):
        return None
    engine = session.get_bind().engine
    if engine.dialect.name == "postgresql":
        if session.in_transaction():
            session.commit()
        run, rows = _run(now, plan, who, 1)
        return _enrolled(births.begin_directly(engine, run, rows), run)
    with writing(session):
        return _begin(session, now, plan, who, 1)


def _begin(
    session: Session, now: datetime, plan: Plan, who: Subject, number: int
) -> Enrolled | None:
    """A new run, if the plan is still the campaign's and there is no such run: else None."""
    run, rows = _run(now, plan, who, number)
    return _enrolled(births.begin(session, run, rows), run)


def _run(
    now: datetime, plan: Plan, who: Subject, number: int
) -> tuple[dict[str, Any], list[births.Row]]:
    """What is stored of a run: its schedule, and its actions."""
    enrolment = Enrolment(plan.name, who.subject, who.subject_id, number, now)
    planned = sequences.plan(plan.definitions, plan.calendar, enrolment)
    run = {
        "campaign": plan.campaign_id,
        "edition": plan.edition,
        "kind": who.subject,
        "name": who.subject_id,
        "number": number,
        "contact": who.contact_id,
        "now": now,
    }
    return run, [births.row_of(now, plan, None, one) for one in planned]


def _enrolled(schedule_id: int | None, run: Mapping[str, Any]) -> Enrolled | None:
    if schedule_id is None:
        return None
    return Enrolled(schedule_id, run["number"], run["now"], run["contact"], "began")


def _surely(made: Enrolled | None) -> Enrolled:
    if made is None:
        raise Overtaken
    return made


def _latest(session: Session, campaign_id: int, subject: str, subject_id: str) -> Any:
    given = {"campaign": campaign_id, "kind": subject, "name": subject_id}
    return session.connection().execute(_LATEST, given).first()


_LATEST = (
    select(Schedule.id, Schedule.run, Schedule.active, Schedule.contact_id, Schedule.started_at)
    .where(*births.OF_SUBJECT)
    .order_by(Schedule.run.desc())
    .limit(1)
)


def _set_active(
    session: Session, now: datetime, schedule_id: int, *, active: bool, **changes: Any
) -> None:
    session.execute(
        update(Schedule)
        .where(Schedule.id == schedule_id)
        .values(active=active, updated_at=now, **changes)
        .execution_options(**NO_SYNC)
    )


# Aligning.


def _active(
    session: Session, campaign_id: int, schedule_ids: Collection[int] | None
) -> Iterator[Sequence[Any]]:
    last = 0
    while True:
        query = select(
            Schedule.id, Schedule.subject, Schedule.subject_id, Schedule.run, Schedule.started_at
        ).where(Schedule.campaign_id == campaign_id, Schedule.active, Schedule.id > last)
        if schedule_ids is not None:
            query = query.where(Schedule.id.in_(schedule_ids))
        rows = session.execute(query.order_by(Schedule.id).limit(AT_ONCE)).all()
        if not rows:
            return
        yield rows
        last = rows[-1].id


_Standing = dict[tuple[str, int], tuple[Standing, int]]


def _concerned(plan: Plan, only: Collection[str] | None) -> Plan:
    """The plan without the steps that a change of these leaves as they are."""
    if only is None:
        return plan
    return replace(plan, definitions=tuple(sequences.concerned(plan.definitions, only)))


def _standing_of(
    session: Session,
    plan: Plan,
    only: Collection[str] | None,
    schedule_ids: Collection[int] | None,
) -> Iterator[tuple[Sequence[Any], dict[int, _Standing]]]:
    """The active schedules, a piece at a time, with their actions: with ``only``, those of the
    plan's steps, and of what these come after."""
    keys: set[str] | None = None
    if only is not None:
        steps = plan.definitions
        keys = {*only, *(one.key for one in steps), *(one.after[0] for one in steps if one.after)}
    for rows in _active(session, plan.campaign_id, schedule_ids):
        yield rows, _standing(session, [row.id for row in rows], keys)


def _settle(
    plan: Plan,
    row: Any,
    standing: _Standing,
    now: datetime,
    only: Collection[str] | None,
    past: str,
) -> list[Change]:
    return sequences.settle(
        plan.definitions,
        plan.calendar,
        Enrolment(plan.name, row.subject, row.subject_id, row.run, row.started_at),
        [one for one, _ in standing.values()],
        now,
        only=only,
        past=past,
    )


def _standing(
    session: Session, ids: Collection[int], keys: Collection[str] | None
) -> dict[int, _Standing]:
    """The actions of schedules as they stand, each with its id; of all keys, or of some."""
    found: dict[int, _Standing] = {id: {} for id in ids}
    of_keys = () if keys is None else (Action.key.in_(keys),)
    rows = session.execute(
        select(
            Action.id,
            Action.schedule_id,
            Action.key,
            Action.occurrence,
            Action.state,
            Action.expected_at,
            Action.ended_at,
            Action.reason,
        ).where(Action.schedule_id.in_(ids), *of_keys)
    )
    for row in rows:
        one = Standing(
            row.key, row.occurrence, row.state, row.expected_at, row.ended_at, row.reason
        )
        found[row.schedule_id][row.key, row.occurrence] = (one, row.id)
    return found


def _write(
    session: Session,
    now: datetime,
    changes: dict[int, list[Change]],
    standing: dict[int, _Standing],
) -> None:
    born, moved = [], []
    for schedule_id, made in changes.items():
        for change in made:
            key, occurrence, at = change.key, change.occurrence, change.expected_at
            known = standing[schedule_id].get((key, occurrence))
            if known is None:
                born.append(births.row(now, schedule_id, key, occurrence, change.reason, at))
            else:
                state, ended_at = ("cancelled", now) if change.reason else ("pending", None)
                moved.append(
                    {
                        "row_id": known[1],
                        "state": state,
                        "reason": change.reason,
                        "expected_at": at,
                        "due_at": at,
                        "ended_at": ended_at,
                    }
                )
    births.bear(session, born)
    if moved:
        session.connection().execute(_MOVE, moved)


# What has been claimed since it was read is left alone: it is running.
_MOVE = (
    update(Action.__table__)  # type: ignore[arg-type]
    .where(
        Action.__table__.c.id == bindparam("row_id"),
        or_(Action.__table__.c.state == "pending", Action.__table__.c.state == "cancelled"),
    )
    .values(
        {
            name: bindparam(name, type_=type_)
            for name, type_ in (
                ("state", None),
                ("reason", None),
                ("expected_at", UtcDateTime()),
                ("due_at", UtcDateTime()),
                ("ended_at", UtcDateTime()),
            )
        }
    )
)
