"""Bulk: enrol many subjects with a handful of statements, however many they are."""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from mcs.core import sequences
from mcs.core.sequences import Enrolment
from mcs.models import Action, Schedule
from mcs.models.sql import Analyze, among
from mcs.services import births, schedules
from mcs.services.definitions import Plan, load
from mcs.services.schedules import Subject
from mcs.services.transactions import met_again, writing

# Large enough that a commit costs little per subject, small enough that nobody waits long.
CHUNK = 2000


def enrol(
    session: Session, now: datetime, campaign_id: int, subjects: Sequence[Subject]
) -> Counter[str]:
    """Enrol subjects as ``schedules.enrol`` does, in one commit, for which a CHUNK of them is a
    good number; how many began, resumed, or were there. Done again, it enrols nobody twice.

    Raises Unknown, Refused.
    """
    for who in subjects:
        schedules.check(who)
    return met_again(session, lambda: enrol_within(session, now, campaign_id, subjects))


def enrol_within(
    session: Session, now: datetime, campaign_id: int, subjects: Sequence[Subject]
) -> Counter[str]:
    """``enrol`` of subjects that were checked, in the caller's transaction."""
    plan = load(session, campaign_id)
    schedules.refuse_unwritable(plan, (who.contact_id for who in subjects))
    named = {(who.subject, who.subject_id): who for who in subjects}
    there = _existing(session, plan.campaign_id, named)
    did = Counter({"nothing": len(subjects) - len(named)})
    for name in there:
        did[schedules.enrol_within(session, now, plan, named[name]).did] += 1
    new = [who for name, who in named.items() if name not in there]
    if new:
        _begin(session, now, plan, new)
        did["began"] += len(new)
    return did


def take_stock(session: Session) -> None:
    """Let PostgreSQL count what many enrolments added.

    By itself it does so within a minute, and until then it sorts all that is due for each claim.
    """
    if session.get_bind().dialect.name == "postgresql":
        with writing(session):
            connection = session.connection()
            # A sample of 3,000 rows, not 30,000, tells it all that claims need: 12 ms for 65.
            connection.exec_driver_sql("SET LOCAL default_statistics_target = 10")
            for model in (Schedule, Action):
                connection.execute(Analyze(model.__table__))


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


def _begin(session: Session, now: datetime, plan: Plan, new: Sequence[Subject]) -> None:
    shared = [one for one in plan.definitions if not one.drawn]
    drawn = [one for one in plan.definitions if one.drawn]
    # What is not drawn falls at the same instants for all of them: planned once.
    nobody = Enrolment(plan.name, "", "", 1, now)
    common = [
        births.row_of(now, plan, None, one) for one in sequences.plan(shared, plan.calendar, nobody)
    ]
    people = [(who.subject, who.subject_id, who.contact_id) for who in new]
    ids = births.begin_many(session, now, plan.campaign_id, people, common, numbered=bool(drawn))
    if drawn:
        births.bear(
            session,
            [
                births.row_of(now, plan, ids[who.subject, who.subject_id], one)
                for who in new
                for one in sequences.plan(
                    drawn, plan.calendar, Enrolment(plan.name, who.subject, who.subject_id, 1, now)
                )
            ],
        )
