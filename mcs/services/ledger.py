"""The ledger, read: what became of each delivery of an emailer, a page at a time or as a whole."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session, contains_eager

from mcs.core import words
from mcs.core.addresses import BadAddress, parse_address
from mcs.core.states import DELIVERY_EXCEPTIONS, DELIVERY_STATES, EMAILER_STATES
from mcs.core.tables import safe_cell
from mcs.models import Campaign, Contact, Delivery, Emailer, Scenario, Slice
from mcs.services.paging import At, Page, Rows, by_id, turn
from mcs.services.unknown import Unknown

OUTCOMES = DELIVERY_STATES
STATES = EMAILER_STATES
_COUNTS = {
    "pending": Slice.pending,
    "sending": Slice.sending,
    "sent": Slice.sent,
    "failed": Slice.failed,
    "in_doubt": Slice.in_doubt,
    "skipped": Slice.skipped,
}
# What stands where the name was of a contact who was deleted.
DELETED = "Deleted contact"
# ``due_at`` is told of what waits only. ``message_id`` is the Message-ID's first part, as on the
# delivery's page: the rest is the host that MCS_BASE_URL named at the time.
COLUMNS = (
    "email",
    "name",
    "state",
    "reason",
    "attempts",
    "due_at",
    "started_at",
    "sent_at",
    "reply_code",
    "reply_text",
    "message_id",
)
_TOLD = (
    Contact.email,
    Contact.name,
    Contact.deleted_at,
    Delivery.state,
    Delivery.reason,
    Delivery.attempts,
    Delivery.due_at,
    Delivery.started_at,
    Delivery.sent_at,
    Delivery.reply_code,
    Delivery.reply_text,
    Delivery.message_id,
)


@dataclass(frozen=True)
class Entry:
    """A ledger row and whose it is."""

    delivery: Delivery
    contact: Contact


def ledger(
    session: Session,
    emailer_id: int,
    outcome: str = "",
    search: str = "",
    at: At = At(),  # noqa: B008 - frozen
    limit: int = 50,
) -> Page[Entry]:
    """The emailer's deliveries in the order they were written, of one outcome or all.

    ``search`` is part of an address or a name.
    """
    low, high = _range(session, emailer_id, outcome)
    found = _found(session, select(Delivery, Contact), emailer_id, outcome, search)
    query = found.where(Delivery.id.between(low, high))
    order = by_id(Delivery.id, descending=False)
    return turn(session, query, order, at, limit, Entry, lambda entry: entry.delivery.id)


def table(
    session: Session, emailer_id: int, outcome: str = "", search: str = ""
) -> Iterator[list[str]]:
    """The same deliveries as rows of a CSV, headers first, ready for a spreadsheet: no cell is a
    formula. Times are RFC 3339 in UTC.

    Reads a slice's range at a time, and while its rows are taken no transaction is open: whoever
    downloads slowly must not keep the database from clearing up, nor a connection. So a delivery
    is told as it was when its range was read. Raises Unknown before the first row.
    """
    find(session, emailer_id)
    query = _found(session, select(*_TOLD), emailer_id, outcome, search).order_by(Delivery.id)
    ranges = _ranges(session, emailer_id, outcome)
    session.rollback()
    yield list(COLUMNS)
    for low, high in ranges:
        rows = session.execute(query.where(Delivery.id.between(low, high))).all()
        session.rollback()
        yield from map(_cells, rows)


def _cells(row: Any) -> list[str]:
    return [
        safe_cell(row.email),
        DELETED if row.deleted_at else safe_cell(row.name),
        words.state(row.state),
        safe_cell(row.reason),
        str(row.attempts),
        words.instant(row.due_at) if row.state == "pending" else "",
        words.instant(row.started_at) if row.started_at else "",
        words.instant(row.sent_at) if row.sent_at else "",
        str(row.reply_code or ""),
        safe_cell(row.reply_text),
        row.message_id,
    ]


def entry(session: Session, delivery_id: int) -> Entry:
    """One row of the ledger, of an emailer or a sequence. Raises Unknown."""
    row = session.execute(
        select(Delivery, Contact)
        .join(Contact, Contact.id == Delivery.contact_id)
        .where(Delivery.id == delivery_id)
    ).first()
    if row is None:
        raise Unknown(f"delivery {delivery_id}")
    return Entry(row[0], row[1])


def of_actions(session: Session, action_ids: Collection[int]) -> dict[int, int]:
    """The ids of the deliveries of these actions, by the actions' ids."""
    rows = session.execute(
        select(Delivery.action_id, Delivery.id).where(Delivery.action_id.in_(action_ids))
    )
    return {action_id: delivery_id for action_id, delivery_id in rows if action_id is not None}


def of_message(session: Session, address: str, opaque: str) -> int | None:
    """The id of the delivery that a message to an address is of, by what it says of itself."""
    try:
        key = parse_address(address).key
    except BadAddress:
        return None
    # By the contact: there is no index on what a message is known by.
    return session.scalar(
        select(Delivery.id)
        .join(Contact, Contact.id == Delivery.contact_id)
        .where(Contact.email_key == key, Delivery.message_id == opaque)
    )


def doubts_of_sequence(
    session: Session,
    campaign_id: int,
    at: At = At(),  # noqa: B008 - frozen
    limit: int = 50,
) -> Page[Entry]:
    """The emails of a campaign's sequence that are in doubt, in the order they were written."""
    query: Rows = _in_doubt(
        select(Delivery, Contact).join(Contact, Contact.id == Delivery.contact_id), campaign_id
    )
    order = by_id(Delivery.id, descending=False)
    return turn(session, query, order, at, limit, Entry, lambda entry: entry.delivery.id)


def doubts_number(session: Session, campaign_id: int) -> int:
    """How many emails of a campaign's sequence are in doubt."""
    return int(session.scalars(_in_doubt(select(func.count(Delivery.id)), campaign_id)).one())


def _in_doubt(query: Any, campaign_id: int) -> Any:
    return (
        query.join(Slice, Slice.id == Delivery.slice_id)
        .join(Scenario, Scenario.id == Slice.scenario_id)
        .where(Delivery.exception == "in_doubt", Scenario.campaign_id == campaign_id)
    )


def _found(session: Session, query: Any, emailer_id: int, outcome: str, search: str) -> Any:
    """What is asked of the emailer's deliveries and their contacts, of those only."""
    query = query.join(Contact, Contact.id == Delivery.contact_id).where(_of(emailer_id, outcome))
    if outcome:
        column = Delivery.exception if outcome in DELIVERY_EXCEPTIONS else Delivery.state
        query = query.where(column == outcome)
    return query.where(_like(session, search)) if search else query


def _of(emailer_id: int, outcome: str) -> ColumnElement[bool]:
    """The emailer's rows, by the index on exceptions or else by walking the ids.

    The sum keeps the database from the index on contacts, after which it would sort all the rows.
    """
    if outcome in DELIVERY_EXCEPTIONS:
        return Delivery.emailer_id == emailer_id
    return Delivery.emailer_id + 0 == emailer_id


def _like(session: Session, search: str) -> ColumnElement[bool]:
    """A whole address is one contact; anything else is a part of an address or a name."""
    try:
        key = parse_address(search).key
    except BadAddress:
        key = ""
    contact_id = session.scalar(select(Contact.id).where(Contact.email_key == key))
    if contact_id is not None:
        return Delivery.id.in_(select(Delivery.id).where(Delivery.contact_id == contact_id))
    return or_(
        Contact.email_key.contains(search.lower(), autoescape=True),
        Contact.name.icontains(search, autoescape=True),
    )


def _range(session: Session, emailer_id: int, outcome: str) -> tuple[int, int]:
    """The ids between which such deliveries lie, by the counts that the slices carry.

    An emailer's deliveries are written in one go, so this keeps the query off everybody else's.
    """
    lowest, highest = func.min(Slice.low_id), func.max(Slice.high_id)
    low, high = session.execute(select(lowest, highest).where(*_with(emailer_id, outcome))).one()
    return (1, 0) if low is None else (low, high)


def _ranges(session: Session, emailer_id: int, outcome: str) -> list[tuple[int, int]]:
    """The same slice by slice. They hold on when slices are parted: no delivery changes its id."""
    slices = select(Slice.low_id, Slice.high_id).where(*_with(emailer_id, outcome))
    return [(low, high) for low, high in session.execute(slices.order_by(Slice.low_id))]


def _with(emailer_id: int, outcome: str) -> list[ColumnElement[bool]]:
    """The emailer's slices; of one outcome, those that have any."""
    its_own = Slice.emailer_id == emailer_id
    return [its_own, _COUNTS[outcome] > 0] if outcome else [its_own]


def emailers(
    session: Session,
    *,
    search: str = "",
    campaign_id: int | None = None,
    state: str = "",
    at: At = At(),  # noqa: B008 - frozen
    limit: int = 50,
) -> Page[Emailer]:
    """Emailers with their scenario and campaign, the latest made first."""
    query = (
        select(Emailer)
        .join(Emailer.scenario)
        .join(Scenario.campaign)
        .options(contains_eager(Emailer.scenario).contains_eager(Scenario.campaign))
    )
    conditions: list[Any] = []
    if campaign_id is not None:
        conditions.append(Scenario.campaign_id == campaign_id)
    if state:
        conditions.append(Emailer.state == state)
    if search:
        conditions.append(
            or_(
                Scenario.name.icontains(search, autoescape=True),
                Campaign.name.icontains(search, autoescape=True),
            )
        )
    query = query.where(*conditions)
    return turn(session, query, by_id(Emailer.id), at, limit, _same, lambda emailer: emailer.id)


def _same(emailer: Emailer) -> Emailer:
    return emailer


def find(session: Session, emailer_id: int) -> Emailer:
    """The emailer. Raises Unknown."""
    emailer = session.get(Emailer, emailer_id)
    if emailer is None:
        raise Unknown(f"emailer {emailer_id}")
    return emailer


def served(session: Session, emailer_ids: Collection[int]) -> dict[int, int]:
    """How many each of the emailers has sent, from the counts that the slices carry."""
    query = (
        select(Slice.emailer_id, func.sum(Slice.sent))
        .where(Slice.emailer_id.in_(emailer_ids))
        .group_by(Slice.emailer_id)
    )
    return {emailer_id or 0: int(sent) for emailer_id, sent in session.execute(query)}
