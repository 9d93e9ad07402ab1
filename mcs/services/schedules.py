"""Schedules: enrol subjects in a campaign's sequence, withdraw them, keep their actions in line."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any, NoReturn

from sqlalchemy import (
    Integer,
    String,
    bindparam,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from mcs.core import sequences
from mcs.core.sequences import Change, Enrolment, Planned, Standing
from mcs.models import Action, Campaign, Schedule
from mcs.models.base import UtcDateTime
from mcs.models.direct import Direct
from mcs.models.sql import Analyze, among, cell, packed, records
from mcs.services import action_deliveries, audit
from mcs.services.definitions import Plan, known, load, look
from mcs.services.tallies import Effect, Tally
from mcs.services.transactions import Overtaken, met_again, writing

# Large enough that a commit costs little per subject, small enough that nobody waits long.
CHUNK = 2000
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
    _refuse_unwritable(plan, who)
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


def enrol_many(
    session: Session, now: datetime, campaign_id: int, subjects: Iterable[Subject]
) -> Counter[str]:
    """Enrol any number of subjects as ``enrol`` does; how many began, resumed, or were there.

    Each CHUNK of them is one commit. Doing it again after an error enrols nobody twice.
    """
    did = Counter[str]()
    for chunk in _chunks(subjects, CHUNK):
        for who in chunk:
            check(who)
        did += _enrol_chunk(session, now, campaign_id, chunk)
    if did["began"] > CHUNK:
        take_stock(session)
    return did


def take_stock(session: Session) -> None:
    """Let PostgreSQL count what many enrolments added.

    By itself it does so within a minute, and until then it sorts all that is due for each claim.
    """
    if session.get_bind().dialect.name == "postgresql":
        with writing(session):
            for model in (Schedule, Action):
                session.connection().execute(Analyze(model.__table__))


def _enrol_chunk(
    session: Session, now: datetime, campaign_id: int, chunk: Sequence[Subject]
) -> Counter[str]:
    return met_again(session, lambda: enrol_chunk_within(session, now, campaign_id, chunk))


def enrol_chunk_within(
    session: Session, now: datetime, campaign_id: int, chunk: Sequence[Subject]
) -> Counter[str]:
    """``enrol_many`` of no more than CHUNK that were checked, in the caller's transaction."""
    plan = load(session, campaign_id)
    for who in chunk:
        _refuse_unwritable(plan, who)
    return _enrol_all(session, now, plan, chunk)


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
        .execution_options(synchronize_session=False)
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


# Enrolling one.


def _begin_unseen(
    session: Session, now: datetime, campaign: int | str, who: Subject
) -> Enrolled | None:
    """Begin by the plan that is known, without reading anything first: most subjects are new.

    None where that will not do: no plan is known, it is no longer the campaign's, or the subject
    has begun before.
    """
    plan = known(session, campaign)
    if plan is None or _unwritable(plan, who):
        return None
    engine = session.get_bind().engine
    if engine.dialect.name == "postgresql":
        if session.in_transaction():
            session.commit()
        run, rows = _run(now, plan, who, 1)
        schedule_id = _BEGIN_DIRECTLY.number(engine, {**run, "rows": packed(rows)})
        return _enrolled(schedule_id, run)
    with writing(session):
        return _begin(session, now, plan, who, 1)


def _begin(
    session: Session, now: datetime, plan: Plan, who: Subject, number: int
) -> Enrolled | None:
    """A new run, if the plan is still the campaign's and there is no such run: else None."""
    run, rows = _run(now, plan, who, number)
    return _enrolled(_insert_run(session, run, rows), run)


def _run(
    now: datetime, plan: Plan, who: Subject, number: int
) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
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
    return run, [_born(now, plan, None, one) for one in planned]


def _enrolled(schedule_id: int | None, run: Mapping[str, Any]) -> Enrolled | None:
    if schedule_id is None:
        return None
    return Enrolled(schedule_id, run["number"], run["now"], run["contact"], "began")


def _insert_run(
    session: Session, run: Mapping[str, Any], rows: Sequence[tuple[Any, ...]]
) -> int | None:
    """Insert a schedule and its actions; its id, or None as ``_begin`` says."""
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        # The only one that can do it all in one round trip.
        found = connection.execute(_BEGIN_WHOLE, {**run, "rows": packed(rows)}).scalar()
        return None if found is None else int(found)
    made = connection.execute(_BEGIN, run)
    if made.rowcount != 1:
        return None
    _bear(session, [(made.lastrowid, *row[1:]) for row in rows])
    return int(made.lastrowid)


_ACTION = ["schedule_id", "key", "occurrence", "state", "reason", "expected_at", "due_at"]
_ACTION += ["ended_at", "attempts"]
_ROWS = records("rows")
_CELLS = [cell(_ROWS, place, Action.__table__.c[name].type) for place, name in enumerate(_ACTION)]
_SCHEDULE = ["campaign_id", "subject", "subject_id", "run", "active", "contact_id"]
_SCHEDULE += ["started_at", "updated_at"]
_SUBJECT = (
    Schedule.campaign_id == bindparam("campaign"),
    Schedule.subject == bindparam("kind"),
    Schedule.subject_id == bindparam("name"),
)
# Shares the campaign's lock, as ``load`` does.
_BEGIN: Any = insert(Schedule.__table__).from_select(  # type: ignore[arg-type]  # a Table, seen as FromClause
    _SCHEDULE,
    select(
        Campaign.id,
        bindparam("kind", type_=String()),
        bindparam("name", type_=String()),
        bindparam("number", type_=Integer()),
        true(),
        bindparam("contact", type_=Integer()),
        bindparam("now", type_=UtcDateTime()),
        bindparam("now", type_=UtcDateTime()),
    )
    .where(
        Campaign.id == bindparam("campaign"),
        Campaign.edition == bindparam("edition"),
        ~exists().where(*_SUBJECT, Schedule.run == bindparam("number")),
    )
    .with_for_update(read=True, of=Campaign),
    include_defaults=False,
)


def _bear(session: Session, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert actions, each in the order of _ACTION."""
    if rows:
        session.connection().execute(_BEAR, {"rows": packed(rows)})


_BEAR: Any = insert(Action.__table__).from_select(  # type: ignore[arg-type]
    _ACTION,
    select(*_CELLS),
    include_defaults=False,
)


_BEGUN = _BEGIN.returning(Schedule.id).cte("begun")
_BEGIN_WHOLE: Any = select(
    _BEGUN.c.id
).add_cte(
    insert(Action.__table__)  # type: ignore[arg-type]
    .from_select(
        _ACTION,
        select(_BEGUN.c.id, *_CELLS[1:]).select_from(_BEGUN.join(_ROWS, true())),
        include_defaults=False,
    )
    .cte("born")
)
_BEGIN_DIRECTLY = Direct("mcs_begin", _BEGIN_WHOLE)


def _surely(made: Enrolled | None) -> Enrolled:
    if made is None:
        raise Overtaken
    return made


def _born(now: datetime, plan: Plan, schedule_id: int | None, one: Planned) -> tuple[Any, ...]:
    reason = one.reason or ("" if plan.running else sequences.SWITCHED_OFF)
    state, ended_at = ("cancelled", now) if reason else ("pending", None)
    at = one.expected_at
    return (schedule_id, one.key, one.occurrence, state, reason, at, at, ended_at, 0)


def _latest(session: Session, campaign_id: int, subject: str, subject_id: str) -> Any:
    given = {"campaign": campaign_id, "kind": subject, "name": subject_id}
    return session.connection().execute(_LATEST, given).first()


_LATEST = (
    select(Schedule.id, Schedule.run, Schedule.active, Schedule.contact_id, Schedule.started_at)
    .where(*_SUBJECT)
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
        .execution_options(synchronize_session=False)
    )


def _unwritable(plan: Plan, who: Subject) -> bool:
    return plan.writes and who.contact_id is None


def refuse_unwritable() -> NoReturn:
    """Refuse a subject without anybody to write to, where a step writes."""
    raise Refused("contact", "a step of this campaign sends email: say to whom")


def _refuse_unwritable(plan: Plan, who: Subject) -> None:
    if _unwritable(plan, who):
        refuse_unwritable()


# Enrolling many.


def _enrol_all(
    session: Session, now: datetime, plan: Plan, chunk: Sequence[Subject]
) -> Counter[str]:
    named = {(who.subject, who.subject_id): who for who in chunk}
    there = _existing(session, plan.campaign_id, named)
    did = Counter({"nothing": len(chunk) - len(named)})
    for name in there:
        did[enrol_within(session, now, plan, named[name]).did] += 1
    new = [who for name, who in named.items() if name not in there]
    if new:
        _begin_all(session, now, plan, new)
        did["began"] += len(new)
    return did


def _existing(
    session: Session, campaign_id: int, named: Collection[tuple[str, str]]
) -> set[tuple[str, str]]:
    by_kind: dict[str, list[str]] = defaultdict(list)
    for subject, subject_id in named:
        by_kind[subject].append(subject_id)
    return {
        (subject, subject_id)
        for subject, subject_ids in by_kind.items()
        for subject_id in session.scalars(
            select(Schedule.subject_id)
            .where(
                Schedule.campaign_id == campaign_id,
                Schedule.subject == subject,
                among(Schedule.subject_id, subject_ids),
            )
            .distinct()
        )
    }


def _begin_all(session: Session, now: datetime, plan: Plan, new: Sequence[Subject]) -> None:
    shared = [one for one in plan.definitions if not one.drawn]
    drawn = [one for one in plan.definitions if one.drawn]
    # What is not drawn falls at the same instants for all of them: planned once.
    nobody = Enrolment(plan.name, "", "", 1, now)
    common = [_born(now, plan, None, one) for one in sequences.plan(shared, plan.calendar, nobody)]
    ids = _begin_many(session, now, plan.campaign_id, new, common)
    rows = [
        _born(now, plan, ids[who.subject, who.subject_id], one)
        for who in new
        if drawn
        for one in sequences.plan(
            drawn, plan.calendar, Enrolment(plan.name, who.subject, who.subject_id, 1, now)
        )
    ]
    _bear(session, rows)


def _begin_many(
    session: Session,
    now: datetime,
    campaign_id: int,
    new: Sequence[Subject],
    common: Sequence[tuple[Any, ...]],
) -> dict[tuple[str, str], int]:
    """Insert schedules, and the actions that all of them have in common; their ids."""
    connection = session.connection()
    people = packed([(who.subject, who.subject_id, who.contact_id) for who in new])
    given = {"campaign": campaign_id, "now": now, "people": people}
    if connection.dialect.name == "postgresql":
        found = connection.execute(_BEGIN_MANY_WHOLE, given | {"rows": packed(common)})
        return {(row.subject, row.subject_id): row.id for row in found}
    connection.execute(_BEGIN_MANY, given)
    ids = _ids_of(session, campaign_id, new)
    for row in common:
        _insert_for_all(session, list(ids.values()), row)
    return ids


def _ids_of(
    session: Session, campaign_id: int, new: Sequence[Subject]
) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for subject in {who.subject for who in new}:
        found |= {
            (subject, subject_id): id
            for id, subject_id in session.execute(
                select(Schedule.id, Schedule.subject_id).where(
                    Schedule.campaign_id == campaign_id,
                    Schedule.subject == subject,
                    among(Schedule.subject_id, [w.subject_id for w in new if w.subject == subject]),
                )
            )
        }
    return found


def _insert_for_all(session: Session, ids: Sequence[int], row: Sequence[Any]) -> None:
    table = Action.__table__
    columns = [
        literal(value, table.c[name].type) for name, value in zip(_ACTION[1:], row[1:], strict=True)
    ]
    session.connection().execute(
        insert(table).from_select(  # type: ignore[arg-type]
            _ACTION,
            select(Schedule.id, *columns).where(among(Schedule.id, ids)),
            include_defaults=False,
        )
    )


_PEOPLE = records("people")
_BEGIN_MANY: Any = insert(Schedule.__table__).from_select(  # type: ignore[arg-type]
    _SCHEDULE,
    select(
        bindparam("campaign", type_=Integer()),
        cell(_PEOPLE, 0, Schedule.subject.type),
        cell(_PEOPLE, 1, Schedule.subject_id.type),
        literal(1),
        true(),
        cell(_PEOPLE, 2, Schedule.contact_id.type),
        bindparam("now", type_=UtcDateTime()),
        bindparam("now", type_=UtcDateTime()),
    ),
    include_defaults=False,
)
# Read once, not once for each subject.
_COMMON = (
    select(*(one.label(name) for one, name in zip(_CELLS, _ACTION, strict=True)))
    .cte("common")
    .prefix_with("MATERIALIZED")
)
_MANY_BEGUN = _BEGIN_MANY.returning(Schedule.id, Schedule.subject, Schedule.subject_id).cte("begun")
_BEGIN_MANY_WHOLE: Any = select(
    _MANY_BEGUN
).add_cte(
    insert(Action.__table__)  # type: ignore[arg-type]
    .from_select(
        _ACTION,
        select(_MANY_BEGUN.c.id, *(_COMMON.c[name] for name in _ACTION[1:])).select_from(
            _MANY_BEGUN.join(_COMMON, true())
        ),
        include_defaults=False,
    )
    .cte("born")
)


def _chunks(subjects: Iterable[Subject], size: int) -> Iterator[list[Subject]]:
    rest = iter(subjects)
    while chunk := list(islice(rest, size)):
        yield chunk


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
        rows = session.execute(query.order_by(Schedule.id).limit(CHUNK)).all()
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
            state, ended_at = ("cancelled", now) if change.reason else ("pending", None)
            at = change.expected_at
            known = standing[schedule_id].get((change.key, change.occurrence))
            if known is None:
                place = (schedule_id, change.key, change.occurrence)
                born.append((*place, state, change.reason, at, at, ended_at, 0))
            else:
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
    _bear(session, born)
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
