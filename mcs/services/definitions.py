"""Action definitions: the steps of a campaign's sequence, kept and read."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from mcs.core import calls, sequences
from mcs.core.sequences import BadDefinition, Calendar, Definition
from mcs.models import ActionDefinition, Campaign
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
    """A campaign's sequence, ready to plan with. ``name`` is what its draws hang on."""

    campaign_id: int
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

    Enrolments share the campaign's lock; ``to_edit`` takes it alone, so that an edit meets every
    schedule there is. Raises Unknown.
    """
    query = _LOADS["key" if isinstance(campaign, str) else "id", to_edit]
    rows = session.connection().execute(query, {"campaign": campaign}).all()
    if not rows:
        raise Unknown(f"campaign {campaign}")
    first = rows[0]
    return Plan(
        first.id,
        first.campaign_key or first.uid,
        _calendar(first.start_date, first.end_date, first.timezone),
        first.active and first.archived_at is None,
        tuple(_read_row(*row[_CAMPAIGN_COLUMNS:]) for row in rows if row.key is not None),
    )


def steps_of(session: Session, campaign_id: int) -> list[Step]:
    """The steps as they were written, in their order."""
    rows = session.scalars(
        select(ActionDefinition)
        .where(ActionDefinition.campaign_id == campaign_id)
        .order_by(ActionDefinition.place)
    )
    return [
        Step(
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
        for row in rows
    ]


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


# One round trip for both: this is on the way of every enrolment.
_CAMPAIGN_COLUMNS = 8
_SELECT: Any = (
    select(
        Campaign.id,
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
_LOADS = {
    (name, to_edit): _SELECT.where(
        getattr(Campaign, name) == bindparam("campaign")
    ).with_for_update(read=not to_edit, of=Campaign)
    for name in ("id", "key")
    for to_edit in (False, True)
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
