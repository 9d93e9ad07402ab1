"""Search: campaigns, contacts, schedules and actions by filters, a page at a time.

The earliest first; the key of a page is the id of its last row, so that what is added meanwhile
moves nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from mcs.core.addresses import BadAddress, parse_address
from mcs.models import Action, Campaign, Contact, Schedule, Suppression
from mcs.services import actions
from mcs.services.actions import Found
from mcs.services.paging import At, Page, by_id, turn
from mcs.services.unknown import Unknown

_BY_MOMENT: list[Any] = [Action.expected_at.is_(None), Action.expected_at, Action.id]


@dataclass(frozen=True)
class Filters:
    """What is asked of schedules and actions; None means whatever. Moments are both included."""

    campaign_id: int | None = None
    subject: str | None = None
    subject_id: str | None = None
    contact_id: int | None = None
    active: bool | None = None
    states: Sequence[str] = ()
    action_ids: Sequence[str] = ()
    due_from: datetime | None = None
    due_to: datetime | None = None


@dataclass(frozen=True)
class Person:
    """A contact, and why nobody may write to it, where that is so."""

    contact: Contact
    suppressed: str | None


def campaigns(session: Session, active: bool | None, after: str, limit: int) -> Page[Campaign]:
    """Campaigns, archived ones too."""
    query = select(Campaign)
    if active is not None:
        query = query.where(Campaign.active.is_(active), Campaign.archived_at.is_(None))
    return _page(session, query, Campaign.id, after, limit, lambda row: row, lambda row: row.id)


def contacts(session: Session, email: str | None, after: str, limit: int) -> Page[Person]:
    """Contacts; of an address there is one at most."""
    query = _people()
    if email is not None:
        try:
            query = query.where(Contact.email_key == parse_address(email).key)
        except BadAddress:
            return Page([], None, None)
    return _page(session, query, Contact.id, after, limit, Person, lambda row: row.contact.id)


def contact(session: Session, contact_id: int) -> Person:
    """The contact of that id. Raises Unknown, also for one that was deleted."""
    row = session.execute(_people().where(Contact.id == contact_id)).first()
    if row is None:
        raise Unknown(f"contact {contact_id}")
    return Person(*row)


def schedules(
    session: Session, asked: Filters, after: str, limit: int
) -> Page[tuple[Schedule, Campaign]]:
    """Schedules, each with its campaign."""
    query = (
        select(Schedule, Campaign)
        .join(Campaign, Campaign.id == Schedule.campaign_id)
        .where(*_whose(asked))
    )
    return _page(session, query, Schedule.id, after, limit, lambda *row: row, lambda row: row[0].id)


def schedule(session: Session, schedule_id: int) -> tuple[Schedule, Campaign, list[Found]]:
    """A schedule with its campaign and its actions, in the order of their moments; those that wait
    for another last. Raises Unknown."""
    row = session.execute(
        select(Schedule, Campaign)
        .join(Campaign, Campaign.id == Schedule.campaign_id)
        .where(Schedule.id == schedule_id)
    ).first()
    if row is None:
        raise Unknown(f"schedule {schedule_id}")
    found = actions.find(
        session,
        [Action.schedule_id == schedule_id],
        order=_BY_MOMENT,
        limit=None,
    )
    return row[0], row[1], found


def due(session: Session, asked: Filters, after: str, limit: int) -> Page[Found]:
    """Actions, by whose they are, their states, their names, and when they are to be."""
    conditions = _whose(asked)
    if asked.states:
        conditions.append(Action.state.in_(asked.states))
    if asked.action_ids:
        conditions.append(actions.named(asked.action_ids))
    if asked.due_from is not None:
        conditions.append(Action.expected_at >= asked.due_from)
    if asked.due_to is not None:
        conditions.append(Action.expected_at <= asked.due_to)
    return _page(
        session,
        actions.found(conditions),
        Action.id,
        after,
        limit,
        actions.as_found,
        lambda row: row.action.id,
    )


def action(session: Session, action_id: int) -> Found:
    """The action of that id. Raises Unknown."""
    found = actions.find(session, [Action.id == action_id], order=_BY_MOMENT, limit=1)
    if not found:
        raise Unknown(f"action {action_id}")
    return found[0]


def _people() -> Select[Any]:
    reason = (
        select(func.min(Suppression.reason))
        .where(Suppression.email_key == Contact.email_key, Suppression.campaign_id.is_(None))
        .correlate(Contact)
        .scalar_subquery()
    )
    return select(Contact, reason).where(Contact.deleted_at.is_(None))


def _whose(asked: Filters) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [
        column == value
        for column, value in (
            (Schedule.campaign_id, asked.campaign_id),
            (Schedule.subject, asked.subject),
            (Schedule.subject_id, asked.subject_id),
            (Schedule.contact_id, asked.contact_id),
        )
        if value is not None
    ]
    if asked.active is not None:
        conditions.append(Schedule.active.is_(asked.active))
    return conditions


def _page(
    session: Session, query: Any, column: Any, after: str, limit: int, make: Any, key: Any
) -> Page[Any]:
    return turn(session, query, by_id(column, descending=False), At(after), limit, make, key)
