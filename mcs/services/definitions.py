"""Action definitions: the steps of a campaign's sequence, kept and read."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary
from zoneinfo import ZoneInfo

from sqlalchemy import bindparam, select, update
from sqlalchemy.orm import Session

from mcs.core import calls, sequences
from mcs.core.sequences import BadDefinition, Calendar, Definition
from mcs.models import ActionDefinition, Campaign
from mcs.models.campaigns import new_edition
from mcs.services.unknown import Unknown

SEND_EMAIL = calls.SEND_EMAIL
MOST_ATTEMPTS = 20


@dataclass(frozen=True)
class Step:
    """A step as somebody writes it: texts, which mcs.core.sequences reads.

    ``config`` is the callback's own; ``max_attempts`` how often it is tried in all.
    """

    key: str
    callback: str
    offset: str
    time: str = ""
    days: str = ""
    excluded: str = ""
    repeat: str = ""
    after: str = ""
    on_failure: str = sequences.WAIT
    config: Mapping[str, Any] = field(default_factory=dict)
    max_attempts: int = 1


@dataclass(frozen=True)
class Plan:
    """A campaign's sequence, ready to plan with. ``name`` is what its draws hang on.

    It is the campaign's for as long as that has the same ``edition``.
    """

    campaign_id: int
    edition: str
    name: str
    calendar: Calendar
    running: bool
    definitions: tuple[Definition, ...]

    @property
    def writes(self) -> bool:
        """Whether a step of it writes to somebody."""
        return bool(self.mailing)

    @property
    def mailing(self) -> set[str]:
        """The steps that write to somebody."""
        return {one.key for one in self.definitions if one.callback == SEND_EMAIL}

    def halted(self, now: datetime) -> str:
        """Why nothing is planned for who is enrolled now; empty where it is."""
        if not self.running:
            return sequences.SWITCHED_OFF
        return sequences.TOO_LATE if now >= self.calendar.ends else ""

    def dependents(self, keys: Iterable[str]) -> set[str]:
        """The steps that come after any of these."""
        parents = set(keys)
        return {one.key for one in self.definitions if one.after and one.after[0] in parents}


def read(steps: Sequence[Step]) -> tuple[Definition, ...]:
    """The definitions that steps make together. Raises BadDefinition."""
    definitions = tuple(_read(step) for step in steps)
    sequences.check(definitions)
    for step in steps:
        if not isinstance(step.max_attempts, int) or not 1 <= step.max_attempts <= MOST_ATTEMPTS:
            raise BadDefinition(
                step.key, "attempts", f"{step.max_attempts!r}: try 1 to {MOST_ATTEMPTS} times"
            )
    return definitions


def load(session: Session, campaign: int | str, *, to_edit: bool = False) -> Plan:
    """The sequence of a campaign, by its id or key, which cannot change in this transaction.

    Enrolments share the campaign's lock; ``to_edit`` takes it alone and begins a new edition, so
    that an edit meets every schedule there is. Raises Unknown.
    """
    if to_edit:
        session.flush()
        session.connection().execute(
            _RENEW[_name_of(campaign)], {"campaign": campaign, "drawn": new_edition()}
        )
        return _read_plan(session, campaign)
    edition = (
        session.connection().execute(_SHARE[_name_of(campaign)], {"campaign": campaign}).scalar()
    )
    return _of_edition(session, campaign, edition)


def look(session: Session, campaign: int | str) -> Plan:
    """The sequence of a campaign as it stands, without a lock: who only looks does not wait until
    a long edit is done. Raises Unknown."""
    return _read_plan(session, campaign)


def load_many(session: Session, campaign_ids: Collection[int]) -> list[Plan]:
    """``load`` for those of these campaigns that there are, their locks shared by one statement."""
    given = {"campaigns": sorted(campaign_ids)}
    rows = session.connection().execute(_SHARE_MANY, given).all()
    return [_of_edition(session, row.id, row.edition) for row in rows]


def known(session: Session, campaign: int | str) -> Plan | None:
    """The plan that was loaded last, without asking the database: it may be of an old edition."""
    return _plans.get(session.get_bind(), {}).get(campaign)


# By database, since a process may have several.
_plans: WeakKeyDictionary[Any, dict[int | str, Plan]] = WeakKeyDictionary()


def steps_of(session: Session, campaign_id: int) -> list[Step]:
    """The steps as they were written, in their order."""
    return steps_of_many(session, [campaign_id])[campaign_id]


def steps_of_many(session: Session, campaign_ids: Collection[int]) -> dict[int, list[Step]]:
    """``steps_of`` for each of these campaigns, by its id, from one statement."""
    found: dict[int, list[Step]] = {campaign_id: [] for campaign_id in campaign_ids}
    rows = session.scalars(
        select(ActionDefinition)
        .where(ActionDefinition.campaign_id.in_(found))
        .order_by(ActionDefinition.place)
    )
    for row in rows:
        found[row.campaign_id].append(_as_written(row))
    return found


def write(session: Session, now: datetime, campaign_id: int, steps: Sequence[Step]) -> None:
    """Replace the campaign's steps, in the caller's transaction."""
    known = {
        row.key: row
        for row in session.scalars(
            select(ActionDefinition).where(ActionDefinition.campaign_id == campaign_id)
        )
    }
    for place, step in enumerate(steps):
        row = known.pop(step.key, None)
        if row is None:
            row = ActionDefinition(campaign_id=campaign_id, key=step.key, created_at=now)
            session.add(row)
        row.place, row.updated_at = place, now
        for name in _TEXTS:
            setattr(row, name, getattr(step, name))
        row.config, row.max_attempts = dict(step.config), step.max_attempts
    for row in known.values():
        session.delete(row)
    session.flush()


_TEXTS = (
    "callback",
    "offset",
    "time",
    "days",
    "excluded",
    "repeat",
    "after",
    "on_failure",
)


def _as_written(row: ActionDefinition) -> Step:
    return Step(
        row.key,
        row.callback,
        row.offset,
        row.time,
        row.days,
        row.excluded,
        row.repeat,
        row.after,
        row.on_failure,
        row.config,
        row.max_attempts,
    )


def _name_of(campaign: int | str) -> str:
    return "key" if isinstance(campaign, str) else "id"


def _of_edition(session: Session, campaign: int | str, edition: str | None) -> Plan:
    plan = known(session, campaign)
    if plan is None or plan.edition != edition:
        plan = _read_plan(session, campaign)
        _plans.setdefault(session.get_bind(), {})[campaign] = plan
    return plan


def _read_plan(session: Session, campaign: int | str) -> Plan:
    rows = session.connection().execute(_PLAN[_name_of(campaign)], {"campaign": campaign}).all()
    if not rows:
        raise Unknown(f"campaign {campaign}")
    first = rows[0]
    return Plan(
        first.id,
        first.edition,
        first.campaign_key or first.uid,
        _calendar(first.start_date, first.end_date, first.timezone),
        first.active and first.archived_at is None,
        tuple(_read_row(*row[_CAMPAIGN_COLUMNS:]) for row in rows if row.key is not None),
    )


_CAMPAIGN_COLUMNS = 9
_SELECT: Any = (
    select(
        Campaign.id,
        Campaign.edition,
        Campaign.key.label("campaign_key"),
        Campaign.uid,
        Campaign.start_date,
        Campaign.end_date,
        Campaign.timezone,
        Campaign.active,
        Campaign.archived_at,
        *(getattr(ActionDefinition, name) for name in ("key", *_TEXTS)),
    )
    .outerjoin(ActionDefinition, ActionDefinition.campaign_id == Campaign.id)
    .order_by(ActionDefinition.place)
)
_THIS = {name: getattr(Campaign, name) == bindparam("campaign") for name in ("id", "key")}
_PLAN = {name: _SELECT.where(this) for name, this in _THIS.items()}
# A statement of its own: one that waits for the lock would go on with the steps as they were.
_SHARE = {
    name: select(Campaign.edition).where(this).with_for_update(read=True)
    for name, this in _THIS.items()
}
_SHARE_MANY = (
    select(Campaign.id, Campaign.edition)
    .where(Campaign.id.in_(bindparam("campaigns", expanding=True)))
    # Everybody who takes several takes them in this order.
    .order_by(Campaign.id)
    .with_for_update(read=True)
)
_RENEW = {
    name: update(Campaign.__table__).where(this).values(edition=bindparam("drawn"))  # type: ignore[arg-type]  # a Table, seen as FromClause
    for name, this in _THIS.items()
}


def _read(step: Step) -> Definition:
    return sequences.define(
        step.key,
        step.callback,
        offset=step.offset,
        time=step.time,
        days=step.days,
        excluded=step.excluded,
        repeat=step.repeat,
        after=step.after,
        on_failure=step.on_failure,
    )


@lru_cache(maxsize=4096)
def _read_row(
    key: str,
    callback: str,
    offset: str,
    time: str,
    days: str,
    excluded: str,
    repeat: str,
    after: str,
    on_failure: str,
) -> Definition:
    """Each enrolment reads the same few rows: parsed once."""
    return sequences.define(
        key,
        callback,
        offset=offset,
        time=time,
        days=days,
        excluded=excluded,
        repeat=repeat,
        after=after,
        on_failure=on_failure,
    )


@lru_cache(maxsize=1024)
def _calendar(first: date, last: date, zone: str) -> Calendar:
    return sequences.calendar(first, last, ZoneInfo(zone))
