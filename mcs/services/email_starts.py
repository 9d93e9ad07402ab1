"""Starting email actions: from a step that is due to deliveries that the lane sends.

Those that are due become ``processing`` in the commit in which their deliveries are born, in a
slice of their scenario, which the lane sends as it sends an emailer's. From then on each action
follows its delivery (mcs.services.email_actions). An address that must not be written to is born
skipped, which completes the action. Locks are taken as mcs.services.action_deliveries says.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Integer, and_, bindparam, func, insert, literal, or_, select, update
from sqlalchemy.orm import Session

from mcs.core import sequences
from mcs.models import (
    Action,
    ActionDefinition,
    Campaign,
    Contact,
    Delivery,
    Scenario,
    Schedule,
    Slice,
    Suppression,
    UtcDateTime,
)
from mcs.models.sql import among, cell, packed, random_hex, records
from mcs.services import definitions
from mcs.services.action_deliveries import hold_slices
from mcs.services.callbacks import scenario_id
from mcs.services.definitions import SEND_EMAIL, Plan
from mcs.services.email_actions import hold, may_go, wake
from mcs.services.transactions import NO_SYNC, writing

# As large as an emailer's slice, and for the same reasons.
BATCH = 2000
NO_MESSAGE = "the step has no message to send any more: write one, then try again"
NOBODY = "there is nobody to write to: enrol the subject again with a contact"


def due(session: Session, now: datetime) -> bool:
    """Whether an email action waits to be started: a look that writes nothing."""
    found = _longest_due(session, now)
    session.commit()
    return found is not None


def start(session: Session, now: datetime) -> bool:
    """Start a batch of what is due, of the step that waits longest: processing, with a delivery
    each, in one commit. Whether there may be more; so ask again.

    A campaign that lacks a sender or a postal address (CAN-SPAM asks for both) is held instead.
    """
    found = _longest_due(session, now)
    if found is None:
        session.commit()
        return False
    missing = _missing(found)
    if missing:
        hold(session, now, found.campaign_id, missing)
        return True
    with writing(session):
        plan = definitions.load(session, found.campaign_id)
        # Switched off since we looked, it is not found again.
        return not plan.running or _start_step(session, now, plan, found.key)


def _longest_due(session: Session, now: datetime) -> Any:
    return session.execute(
        select(
            Schedule.campaign_id,
            Action.key,
            Campaign.from_email,
            Campaign.postal_address,
        )
        .join(Schedule, Schedule.id == Action.schedule_id)
        .join(Campaign, Campaign.id == Schedule.campaign_id)
        .join(
            ActionDefinition,
            and_(
                ActionDefinition.campaign_id == Schedule.campaign_id,
                ActionDefinition.key == Action.key,
            ),
        )
        .where(
            Action.state == "pending",
            Action.due_at <= now,
            Schedule.active,
            ActionDefinition.callback == SEND_EMAIL,
            may_go(),
        )
        .order_by(Action.due_at)
        .limit(1)
    ).first()


def _missing(found: Any) -> str:
    if not found.from_email:
        return "The campaign has no sender address yet: add one, then resume its emails."
    if not found.postal_address.strip():
        return "The campaign has no postal address yet: add one, then resume its emails."
    return ""


def _scenario_of(session: Session, campaign_id: int, key: str) -> int | None:
    """The scenario that the step sends, locked: nobody else starts it, or suppresses an address
    without seeing what is started here."""
    config = session.scalar(
        select(ActionDefinition.config).where(
            ActionDefinition.campaign_id == campaign_id,
            ActionDefinition.key == key,
            ActionDefinition.callback == SEND_EMAIL,
        )
    )
    found = None if config is None else scenario_id(config)
    return session.scalar(
        select(Scenario.id)
        .where(Scenario.id == found, Scenario.campaign_id == campaign_id)
        .with_for_update(key_share=True)
    )


def _start_step(session: Session, now: datetime, plan: Plan, key: str) -> bool:
    """False when others hold all that waits: they are about to move it."""
    sends = _scenario_of(session, plan.campaign_id, key)
    waiting = _waiting(session, now, plan.campaign_id, key)
    if sends is None:
        rows = _taken(session, plan.campaign_id, waiting)
        _fail(session, now, [row.id for row in rows], NO_MESSAGE)
        wake(session, now, plan, [key], [row.schedule_id for row in rows])
        return bool(rows) or not waiting
    # Deliveries of before, of those that failed, or were withdrawn and have come back.
    before = session.execute(
        select(Delivery.action_id, Delivery.state, Delivery.slice_id).where(
            among(Delivery.action_id, waiting)
        )
    ).all()
    hold_slices(session, [row.slice_id for row in before])
    if now >= plan.calendar.ends:
        _cancel(session, now, waiting)
        return True
    rows = _taken(session, plan.campaign_id, waiting)
    born = [row for row in rows if row.contact_id is not None]
    if born:
        again = {row.action_id for row in before}
        slice_id = _slice(session, now, sends, born)
        _bear(session, now, slice_id, [row for row in born if row.id not in again])
        _bear_again(session, now, slice_id, [row for row in born if row.id in again])
        _leave(session, [row for row in before if row.action_id in {one.id for one in born}])
        _span(session, slice_id)
    _begin(session, now, [row.id for row in born])
    _fail(session, now, [row.id for row in rows if row.contact_id is None], NOBODY)
    ended = [row for row in rows if row.contact_id is None or row.reason]
    _complete(session, now, [row for row in born if row.reason])
    wake(session, now, plan, [key], [row.schedule_id for row in ended])
    return bool(rows) or not waiting


def _waiting(session: Session, now: datetime, campaign_id: int, key: str) -> list[int]:
    return list(
        session.scalars(
            select(Action.id)
            .join(Schedule, Schedule.id == Action.schedule_id)
            .where(
                Schedule.campaign_id == campaign_id,
                Schedule.active,
                Action.key == key,
                Action.state == "pending",
                Action.due_at <= now,
            )
            .order_by(Action.due_at, Action.id)
            .limit(BATCH)
        )
    )


@dataclass(frozen=True)
class _Due:
    """An action that is ours to start; ``reason`` says why its contact must not be written to."""

    id: int
    schedule_id: int
    contact_id: int | None
    reason: str

    @property
    def state(self) -> str:
        """Its delivery's, at birth."""
        return "skipped" if self.reason else "pending"


def _taken(session: Session, campaign_id: int, waiting: Sequence[int]) -> list[_Due]:
    """Those of the actions that are pending still, locked."""
    suppressed = (
        select(func.min(Suppression.reason))
        .where(
            Suppression.email_key == Contact.email_key,
            or_(Suppression.campaign_id.is_(None), Suppression.campaign_id == campaign_id),
        )
        .correlate(Contact)
        .scalar_subquery()
    )
    rows = session.execute(
        select(Action.id, Action.schedule_id, Schedule.contact_id, Contact.deleted_at, suppressed)
        .join(Schedule, Schedule.id == Action.schedule_id)
        .outerjoin(Contact, Contact.id == Schedule.contact_id)
        .where(among(Action.id, waiting), Action.state == "pending", Schedule.active)
        .order_by(Action.id)
        .with_for_update(of=Action, skip_locked=True)
    )
    return [
        _Due(id, schedule_id, contact_id, "deleted" if gone else reason or "")
        for id, schedule_id, contact_id, gone, reason in rows
    ]


def _slice(session: Session, now: datetime, sends: int, born: Sequence[_Due]) -> int:
    skipped = sum(1 for row in born if row.reason)
    made = Slice(
        scenario_id=sends,
        low_id=0,
        high_id=0,
        due_at=now,
        begun_at=now,
        pending=len(born) - skipped,
        skipped=skipped,
    )
    session.add(made)
    session.flush()
    return made.id


def _bear(session: Session, now: datetime, slice_id: int, born: Sequence[_Due]) -> None:
    if born:
        rows = [(row.id, row.contact_id, row.state, row.reason) for row in born]
        given = {"rows": packed(rows), "slice": slice_id, "now": now}
        session.connection().execute(_BEAR, given)


def _bear_again(session: Session, now: datetime, slice_id: int, born: Sequence[_Due]) -> None:
    """With the same Message-ID, and the attempts that were made."""
    if born:
        rows = [
            {
                "born_of": row.id,
                "slice_id": slice_id,
                "contact_id": row.contact_id,
                "state": row.state,
                "reason": row.reason,
                "due_at": now,
            }
            for row in born
        ]
        session.connection().execute(_BEAR_AGAIN, rows)


def _leave(session: Session, before: Sequence[Any]) -> None:
    """Count deliveries no more in the slices that they were in."""
    for (slice_id, state), number in Counter((row.slice_id, row.state) for row in before).items():
        column = getattr(Slice, state)
        session.execute(
            update(Slice)
            .where(Slice.id == slice_id)
            .values({state: column - number})
            .execution_options(**NO_SYNC)
        )


def _span(session: Session, slice_id: int) -> None:
    mine = Delivery.slice_id == slice_id
    session.execute(
        update(Slice)
        .where(Slice.id == slice_id)
        .values(
            low_id=select(func.min(Delivery.id)).where(mine).scalar_subquery(),
            high_id=select(func.max(Delivery.id)).where(mine).scalar_subquery(),
        )
        .execution_options(**NO_SYNC)
    )


def _begin(session: Session, now: datetime, ids: Sequence[int]) -> None:
    _change(
        session,
        ids,
        state="processing",
        started_at=func.coalesce(Action.started_at, literal(now, type_=UtcDateTime())),
        attempts=Action.attempts + 1,
    )


def _complete(session: Session, now: datetime, skipped: Sequence[_Due]) -> None:
    for reason in sorted({row.reason for row in skipped}):
        ids = [row.id for row in skipped if row.reason == reason]
        _change(session, ids, state="completed", completed_at=now, ended_at=now, reason=reason)


def _fail(session: Session, now: datetime, ids: Sequence[int], error: str) -> None:
    pending = Action.state == "pending"
    _change(session, ids, pending, state="failed", ended_at=now, error=error)


def _cancel(session: Session, now: datetime, ids: Sequence[int]) -> None:
    _change(
        session,
        ids,
        Action.state == "pending",
        state="cancelled",
        ended_at=now,
        reason=sequences.TOO_LATE,
    )


def _change(session: Session, ids: Sequence[int], *conditions: Any, **values: Any) -> None:
    if ids:
        session.execute(
            update(Action)
            .where(among(Action.id, ids), *conditions)
            .values(**values)
            .execution_options(**NO_SYNC)
        )


_TABLE: Any = Delivery.__table__
_ROWS = records("rows")
_CELLS = ["action_id", "contact_id", "state", "reason"]
# One statement for all: PostgreSQL looks up parents once a statement.
_BEAR: Any = insert(_TABLE).from_select(
    [*_CELLS, "slice_id", "due_at", "attempts", "reply_text", "message_id"],
    select(
        *(cell(_ROWS, place, _TABLE.c[name].type) for place, name in enumerate(_CELLS)),
        bindparam("slice", type_=Integer()),
        bindparam("now", type_=UtcDateTime()),
        literal(0),
        literal(""),
        random_hex(),
    ),
    include_defaults=False,
)
_BEAR_AGAIN: Any = (
    update(_TABLE)
    .where(_TABLE.c.action_id == bindparam("born_of"))
    .values({name: bindparam(name) for name in ("slice_id", "contact_id", "state", "reason")})
    .values(due_at=bindparam("due_at", type_=UtcDateTime()), reply_code=None, reply_text="")
)
