"""Subjects, read: who is in a campaign's sequence, and what became of each action owed to them."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, and_, case, exists, func, or_, select
from sqlalchemy.orm import Session

from mcs.core import sequences
from mcs.core.addresses import BadAddress, parse_address
from mcs.core.states import ACTION_STATES
from mcs.core.walltime import instant, local
from mcs.models import Action, ActionDefinition, Campaign, Contact, Schedule
from mcs.services.paging import LARGEST_BIG_ID, At, Order, Page, Rows, by_id, read_number, turn
from mcs.services.tallies import Period
from mcs.services.unknown import Unknown

# Under way: something is still to come. Done: nothing is. Failed: something needs a person.
STATES = ("under way", "done", "failed", "withdrawn")
OUTCOMES = ACTION_STATES
# After all that has a moment.
_SOME_DAY = datetime(9999, 1, 1, tzinfo=UTC)
_TO_COME = ("pending", "processing")
# So long after its moment, an action that nobody took needs a person to look.
LATE = timedelta(minutes=5)


@dataclass(frozen=True)
class Enrolled:
    """A schedule, the contact to write to, and how its actions stand."""

    schedule: Schedule
    contact: Contact | None
    counts: Mapping[str, int]
    next_at: datetime | None

    @property
    def state(self) -> str:
        """One of STATES, the one that most wants to be known."""
        if not self.schedule.active:
            return "withdrawn"
        if self.counts.get("failed"):
            return "failed"
        return "under way" if any(self.counts.get(state) for state in _TO_COME) else "done"


@dataclass(frozen=True)
class Owed:
    """An action with whose it is. ``kind`` is its callback, empty where its step was removed."""

    action: Action
    schedule: Schedule
    contact: Contact | None
    kind: str
    repeats: bool

    @property
    def name(self) -> str:
        """The action's id, as people read it."""
        return sequences.action_id(self.action.key, self.action.occurrence, self.repeats)


@dataclass(frozen=True)
class Summary:
    """A sequence in numbers: its steps, those under way in it, and what is owed to them."""

    steps: int
    subjects: int
    counts: Mapping[str, int]
    next_at: datetime | None


@dataclass(frozen=True)
class Coming:
    """What a step does on one day, by the campaign's calendar: how many actions, the first at."""

    campaign: Campaign
    key: str
    first_at: datetime
    number: int


@dataclass(frozen=True)
class Journey:
    """A contact's way through one campaign's sequence."""

    schedule: Schedule
    campaign: Campaign
    pending: int
    next_at: datetime | None


def listing(
    session: Session,
    campaign_id: int,
    *,
    search: str = "",
    state: str = "",
    step: str = "",
    at: At = At(),  # noqa: B008 - frozen
    limit: int = 50,
) -> Page[Enrolled]:
    """The schedules of a campaign, the latest first. ``step`` leaves those who wait for it.

    ``search`` is a whole address, or a part of an address, a name, or the subject's kind and id.
    """
    query: Rows = (
        select(Schedule, Contact)
        .outerjoin(Contact, Contact.id == Schedule.contact_id)
        .where(Schedule.campaign_id == campaign_id, *_matching(session, search))
    )
    if state:
        query = query.where(_in_state(state))
    if step:
        query = query.where(_has(Action.key == step, Action.state.in_(_TO_COME)))
    page = turn(
        session,
        query,
        by_id(Schedule.id),
        at,
        limit,
        lambda schedule, contact: Enrolled(schedule, contact, {}, None),
        lambda row: row.schedule.id,
    )
    counts, soon = _standing(session, [row.schedule.id for row in page.rows])
    rows = [
        Enrolled(row.schedule, row.contact, counts[row.schedule.id], soon.get(row.schedule.id))
        for row in page.rows
    ]
    return Page(rows, page.previous, page.next)


def find(session: Session, campaign_id: int, schedule_id: int) -> Enrolled:
    """A schedule of the campaign. Raises Unknown."""
    row = session.execute(
        select(Schedule, Contact)
        .outerjoin(Contact, Contact.id == Schedule.contact_id)
        .where(Schedule.id == schedule_id, Schedule.campaign_id == campaign_id)
    ).first()
    if row is None:
        raise Unknown(f"subject {schedule_id}")
    counts, soon = _standing(session, [schedule_id])
    return Enrolled(row[0], row[1], counts[schedule_id], soon.get(schedule_id))


def runs(session: Session, schedule: Schedule) -> Sequence[Schedule]:
    """Every run of the schedule's subject, the latest first."""
    return session.scalars(
        select(Schedule)
        .where(
            Schedule.campaign_id == schedule.campaign_id,
            Schedule.subject == schedule.subject,
            Schedule.subject_id == schedule.subject_id,
        )
        .order_by(Schedule.run.desc())
    ).all()


def actions(
    session: Session,
    campaign_id: int,
    *,
    state: str = "",
    step: str = "",
    search: str = "",
    schedule_id: int | None = None,
    at: At = At(),  # noqa: B008 - frozen
    limit: int = 50,
) -> Page[Owed]:
    """The actions of a campaign, or of one schedule, by their moment.

    The soonest first where they are still to come, or all of one schedule; else the latest.
    """
    query: Rows = (
        select(Action, Schedule, Contact, ActionDefinition.callback, ActionDefinition.repeat)
        .join(Schedule, Schedule.id == Action.schedule_id)
        .outerjoin(Contact, Contact.id == Schedule.contact_id)
        .outerjoin(
            ActionDefinition,
            and_(
                ActionDefinition.campaign_id == Schedule.campaign_id,
                ActionDefinition.key == Action.key,
            ),
        )
        .where(Schedule.campaign_id == campaign_id, *_matching(session, search))
    )
    if state:
        query = query.where(Action.state == state)
    if step:
        query = query.where(Action.key == step)
    if schedule_id is not None:
        query = query.where(Schedule.id == schedule_id)
    forwards = schedule_id is not None or state in _TO_COME
    moment = func.coalesce(Action.due_at, _SOME_DAY, type_=Action.due_at.type)
    order = Order((moment, Action.id), not forwards, _read_key)
    return turn(session, query, order, at, limit, _owed, _key_of)


def counts_by_step(session: Session, campaign_id: int) -> Mapping[str, Mapping[str, int]]:
    """How the actions of each step stand: a count by state, for each key there ever was."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    rows = session.execute(
        select(Action.key, Action.state, func.count())
        .join(Schedule, Schedule.id == Action.schedule_id)
        .where(Schedule.campaign_id == campaign_id)
        .group_by(Action.key, Action.state)
    )
    for key, state, number in rows:
        found[key][state] = number
    return found


def summary(session: Session, campaign_id: int) -> Summary:
    """The sequence of a campaign in numbers."""
    steps = select(func.count()).where(ActionDefinition.campaign_id == campaign_id)
    subjects = select(func.count()).where(Schedule.campaign_id == campaign_id, Schedule.active)
    counts = Counter[str]()
    for by_state in counts_by_step(session, campaign_id).values():
        counts.update(by_state)
    soon = (
        select(func.min(Action.due_at))
        .join(Schedule, Schedule.id == Action.schedule_id)
        .where(Schedule.campaign_id == campaign_id, Action.state == "pending")
    )
    return Summary(
        session.scalars(steps).one(), session.scalars(subjects).one(), counts, session.scalar(soon)
    )


def affected(session: Session, campaign_id: int) -> tuple[int, int, Period]:
    """How many actions are pending, of how many subjects, and when: what switching off
    withdraws."""
    moments = func.min(Action.expected_at), func.max(Action.expected_at)
    row = session.execute(
        select(func.count(), func.count(func.distinct(Action.schedule_id)), *moments)
        .join(Schedule, Schedule.id == Action.schedule_id)
        .where(Schedule.campaign_id == campaign_id, Action.state == "pending")
    ).one()
    return row[0], row[1], Period(row[2], row[3])


def without_contact(session: Session, campaign_id: int, keys: Collection[str]) -> int:
    """How many subjects wait for one of these email steps, with nobody to write to."""
    waits = _has(Action.key.in_(keys), Action.state == "pending")
    query = select(func.count()).where(
        Schedule.campaign_id == campaign_id, Schedule.active, Schedule.contact_id.is_(None), waits
    )
    return session.scalars(query).one()


def coming(session: Session, now: datetime, days: int) -> list[Coming]:
    """What sequences do in the next days: a line for each step and day, by its campaign's own
    calendar, the soonest first."""
    until = now + timedelta(days=days)
    active = session.scalars(
        select(Campaign)
        .where(
            Campaign.active,
            Campaign.archived_at.is_(None),
            exists().where(ActionDefinition.campaign_id == Campaign.id),
        )
        .order_by(Campaign.id)
    ).all()
    lines = [
        line for campaign in active for line in _coming_of(session, now, until, days, campaign)
    ]
    return sorted(lines, key=lambda line: (line.first_at, line.campaign.id, line.key))


def failed(session: Session) -> list[tuple[Campaign, int]]:
    """The campaigns whose sequence has failed actions, and how many."""
    number = func.count(Action.id)
    rows = session.execute(
        select(Campaign, number)
        .join(Schedule, Schedule.campaign_id == Campaign.id)
        .join(Action, Action.schedule_id == Schedule.id)
        .where(Action.state == "failed", Campaign.archived_at.is_(None))
        .group_by(Campaign.id)
        .order_by(Campaign.id.desc())
    )
    return [(campaign, count) for campaign, count in rows]


def overdue(session: Session, now: datetime) -> list[tuple[Campaign, int]]:
    """The campaigns whose actions nobody took for LATE, though they are due, and how many."""
    number = func.count(Action.id)
    rows = session.execute(
        select(Campaign, number)
        .join(Schedule, Schedule.campaign_id == Campaign.id)
        .join(Action, Action.schedule_id == Schedule.id)
        .where(
            Action.state == "pending",
            Action.due_at < now - LATE,
            Schedule.active,
            Campaign.active,
            Campaign.archived_at.is_(None),
        )
        .group_by(Campaign.id)
        .order_by(Campaign.id.desc())
    )
    return [(campaign, count) for campaign, count in rows]


def of_contact(session: Session, contact_id: int, limit: int = 100) -> list[Journey]:
    """The sequences a contact is in, or was, the latest first."""
    rows = session.execute(
        select(Schedule, Campaign)
        .join(Campaign, Campaign.id == Schedule.campaign_id)
        .where(Schedule.contact_id == contact_id)
        .order_by(Schedule.id.desc())
        .limit(limit)
    ).all()
    counts, soon = _standing(session, [schedule.id for schedule, _ in rows])
    return [
        Journey(schedule, campaign, counts[schedule.id].get("pending", 0), soon.get(schedule.id))
        for schedule, campaign in rows
    ]


def _standing(
    session: Session, ids: Collection[int]
) -> tuple[dict[int, Counter[str]], dict[int, datetime]]:
    """Counts by state, and the next moment, of each of these schedules."""
    counts: dict[int, Counter[str]] = {id: Counter() for id in ids}
    soon: dict[int, datetime] = {}
    rows = session.execute(
        select(Action.schedule_id, Action.state, func.count(), func.min(Action.due_at))
        .where(Action.schedule_id.in_(ids))
        .group_by(Action.schedule_id, Action.state)
    )
    for schedule_id, state, number, first in rows:
        counts[schedule_id][state] = number
        if state == "pending" and first is not None:
            soon[schedule_id] = first
    return counts, soon


def _has(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(Action.schedule_id == Schedule.id, *conditions)


def _in_state(state: str) -> ColumnElement[bool]:
    failing = _has(Action.state == "failed")
    going = _has(Action.state.in_(_TO_COME))
    meant = {
        "withdrawn": ~Schedule.active,
        "failed": and_(Schedule.active, failing),
        "under way": and_(Schedule.active, ~failing, going),
        "done": and_(Schedule.active, ~failing, ~going),
    }
    return meant[state]


def _matching(session: Session, search: str) -> tuple[ColumnElement[bool], ...]:
    if not search:
        return ()
    try:
        key = parse_address(search).key
    except BadAddress:
        key = ""
    contact_id = session.scalar(select(Contact.id).where(Contact.email_key == key)) if key else None
    if contact_id is not None:
        return (Schedule.contact_id == contact_id,)
    found = or_(
        Contact.email_key.contains(search.lower(), autoescape=True),
        Contact.name.icontains(search, autoescape=True),
        (Schedule.subject + " " + Schedule.subject_id).icontains(search, autoescape=True),
    )
    return (found,)


def _owed(
    action: Action, schedule: Schedule, contact: Contact | None, kind: str | None, repeat: Any
) -> Owed:
    return Owed(action, schedule, contact, kind or "", bool(repeat))


def _key_of(row: Owed) -> str:
    moment = (row.action.due_at or _SOME_DAY).astimezone(UTC)
    return f"{moment.isoformat()}_{row.action.id}"


def _read_key(text: str) -> tuple[datetime, int]:
    at, number = text.rsplit("_", 1)
    moment = datetime.fromisoformat(at)
    if moment.utcoffset() != timedelta(0):
        raise ValueError(text)
    return moment, read_number(number, LARGEST_BIG_ID)


def _coming_of(
    session: Session, now: datetime, until: datetime, days: int, campaign: Campaign
) -> list[Coming]:
    zone = ZoneInfo(campaign.timezone)
    today = local(now, zone).date()
    midnights = [
        instant(today + timedelta(days=number), datetime.min.time(), zone)
        for number in range(1, days + 1)
    ]
    day = case(
        *((Action.due_at < midnight, number) for number, midnight in enumerate(midnights)),
        else_=days,
    )
    rows = session.execute(
        select(Action.key, day.label("day"), func.min(Action.due_at), func.count())
        .join(Schedule, Schedule.id == Action.schedule_id)
        .where(
            Schedule.campaign_id == campaign.id,
            Schedule.active,
            Action.state == "pending",
            Action.due_at > now,
            Action.due_at < until,
        )
        .group_by(Action.key, "day")
    )
    return [Coming(campaign, key, first, number) for key, _, first, number in rows]
