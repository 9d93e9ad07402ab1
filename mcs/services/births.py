"""Births: the rows of a schedule and its actions, and the statements that insert them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Engine,
    Integer,
    String,
    bindparam,
    exists,
    insert,
    literal,
    select,
    true,
)
from sqlalchemy.orm import Session

from mcs.core import sequences
from mcs.core.sequences import Planned
from mcs.models import Action, Campaign, Schedule
from mcs.models.base import UtcDateTime
from mcs.models.direct import Direct
from mcs.models.sql import among, cell, packed, records
from mcs.services.definitions import Plan

Row = tuple[Any, ...]
# The kind and id of a subject, and the contact to write to.
Person = tuple[str, str, int | None]


def row_of(now: datetime, plan: Plan, schedule_id: int | None, one: Planned) -> Row:
    """What is stored of a planned action. The schedule's id may be one that is not known yet."""
    reason = one.reason or ("" if plan.running else sequences.SWITCHED_OFF)
    return row(now, schedule_id, one.key, one.occurrence, reason, one.expected_at)


def row(
    now: datetime,
    schedule_id: int | None,
    key: str,
    occurrence: int,
    reason: str,
    at: datetime | None,
) -> Row:
    """A new action, in the order of _ACTION: pending, or cancelled for a reason."""
    state, ended_at = ("cancelled", now) if reason else ("pending", None)
    return (schedule_id, key, occurrence, state, reason, at, at, ended_at, 0)


def bear(session: Session, rows: Sequence[Row]) -> None:
    """Insert actions of schedules that are there."""
    if rows:
        session.connection().execute(_BEAR, {"rows": packed(rows)})


def begin(session: Session, run: Mapping[str, Any], rows: Sequence[Row]) -> int | None:
    """Insert a schedule and its actions; its id, or None where the campaign has another edition
    than the run says, or there is such a run."""
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        # The only one that can do it all in one round trip.
        found = connection.execute(_BEGIN_WHOLE, {**run, "rows": packed(rows)}).scalar()
        return None if found is None else int(found)
    made = connection.execute(_BEGIN, run)
    if made.rowcount != 1:
        return None
    bear(session, [(made.lastrowid, *row[1:]) for row in rows])
    return int(made.lastrowid)


def begin_directly(engine: Engine, run: Mapping[str, Any], rows: Sequence[Row]) -> int | None:
    """``begin`` in a transaction of its own, on PostgreSQL."""
    return _BEGIN_DIRECTLY.number(engine, {**run, "rows": packed(rows)})


def begin_many(
    session: Session,
    now: datetime,
    campaign_id: int,
    people: Sequence[Person],
    common: Sequence[Row],
    *,
    numbered: bool,
) -> dict[tuple[str, str], int]:
    """Insert first runs, and the actions that all of them have in common.

    Their schedules' ids, if they are to be ``numbered``.
    """
    connection = session.connection()
    given = {"campaign": campaign_id, "now": now, "people": packed(people)}
    if connection.dialect.name == "postgresql":
        found = connection.execute(_BEGIN_MANY_WHOLE, given | {"rows": packed(common)})
        return {(row.subject, row.subject_id): row.id for row in found} if numbered else {}
    connection.execute(_BEGIN_MANY, given)
    ids = _ids_of(session, campaign_id, people)
    for row in common:
        _insert_for_all(session, list(ids.values()), row)
    return ids if numbered else {}


def _ids_of(
    session: Session, campaign_id: int, people: Sequence[Person]
) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for subject in {kind for kind, _, _ in people}:
        found |= {
            (subject, subject_id): id
            for id, subject_id in session.execute(
                select(Schedule.id, Schedule.subject_id).where(
                    Schedule.campaign_id == campaign_id,
                    Schedule.subject == subject,
                    among(Schedule.subject_id, [id for kind, id, _ in people if kind == subject]),
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


_ACTION = ["schedule_id", "key", "occurrence", "state", "reason", "expected_at", "due_at"]
_ACTION += ["ended_at", "attempts"]
_ROWS = records("rows")
_CELLS = [cell(_ROWS, place, Action.__table__.c[name].type) for place, name in enumerate(_ACTION)]
_SCHEDULE = ["campaign_id", "subject", "subject_id", "run", "active", "contact_id"]
_SCHEDULE += ["started_at", "updated_at"]
# Whose runs these are.
OF_SUBJECT = (
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
        ~exists().where(*OF_SUBJECT, Schedule.run == bindparam("number")),
    )
    .with_for_update(read=True, of=Campaign),
    include_defaults=False,
)


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
