"""Contacts: find people, see what they got and will get, add, remove, export and delete them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, func, null, or_, select
from sqlalchemy import delete as delete_rows
from sqlalchemy.orm import Session

from mcs.core.addresses import BadAddress, parse_address, tombstone_key
from mcs.core.tables import safe_cell
from mcs.models import (
    Action,
    Batch,
    BatchContact,
    Campaign,
    Contact,
    Delivery,
    Emailer,
    Scenario,
    Slice,
    Suppression,
)
from mcs.services import audiences, audit, enrolling, messages, outlook, people, suppressions
from mcs.services.paging import At, Page, Rows, by_id, turn
from mcs.services.people import BadPerson, Person
from mcs.services.transactions import met_again, writing
from mcs.services.unknown import Unknown, find_campaign

STATES = ("subscribed", "unsubscribed")
_EXPORTED_AT_ONCE = 2000
_SHOWN = 100
# After all that has a moment.
_SOME_DAY = datetime(9999, 1, 1, tzinfo=UTC)


class Refused(Exception):
    """What was typed cannot be taken; ``field`` and the text say what and why."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(text)
        self.field = field


@dataclass(frozen=True)
class Listed:
    """A contact, and the suppression that counts most for it where it is listed."""

    contact: Contact
    suppression: Suppression | None


@dataclass(frozen=True)
class Place:
    """A campaign a contact is in, since when, and whether that campaign may write to it."""

    campaign: Campaign
    added_at: datetime
    suppression: Suppression | None


@dataclass(frozen=True)
class Coming:
    """An email that is still to go out to a contact, and when; None: once another step is done.

    ``schedule_id`` is the contact's way through the sequence that owes it; None: a sending does.
    ``delivery`` is its row of the ledger, where its sending or step has begun and not come to it
    yet; ``emailer_state`` is how that sending stands.
    """

    scenario: Scenario
    at: datetime | None
    suppressed: bool
    schedule_id: int | None = None
    delivery: Delivery | None = None
    emailer_state: str = ""


@dataclass(frozen=True)
class Card:
    """All that is known of one contact. ``got`` is the latest hundred, the latest first.

    ``coming`` is what sendings and sequences owe it, the soonest first; what is pending of one that
    is under way or paused is there, and not in ``got``.
    """

    contact: Contact
    everywhere: Suppression | None
    places: list[Place]
    got: list[Delivery]
    received: int
    coming: list[Coming]

    @property
    def only_here(self) -> list[Place]:
        """The campaigns that alone may not write to it."""
        return [place for place in self.places if place.suppression is not None]


@dataclass(frozen=True)
class Totals:
    """The subtraction: contacts, less those who may not be written to."""

    contacts: int
    suppressed: int

    @property
    def subscribed(self) -> int:
        return self.contacts - self.suppressed


def listing(
    session: Session,
    *,
    campaign_id: int | None = None,
    search: str = "",
    state: str = "",
    at: At = At(),  # noqa: B008 - frozen
    limit: int = 50,
) -> Page[Listed]:
    """Contacts, the latest first; of one campaign's batch, or all.

    ``search`` is a whole address, found at once, or a part of a name or an address.
    """
    query: Rows = select(Contact, Suppression).outerjoin(Suppression, _applies(campaign_id))
    if campaign_id is None:
        identity: Any = Contact.id
        query = query.where(Contact.deleted_at.is_(None))
    else:
        identity = BatchContact.contact_id
        query = query.join(BatchContact, BatchContact.contact_id == Contact.id).where(
            BatchContact.batch_id == _batch_id(campaign_id)
        )
    query = _searched(session, query, search)
    if state:
        query = query.where(
            Suppression.id.is_(None) if state == "subscribed" else Suppression.id.is_not(None)
        )
    return turn(session, query, by_id(identity), at, limit, Listed, lambda row: row.contact.id)


def _applies(campaign_id: int | None) -> Any:
    """Joins one suppression at most: the one everywhere, or else the campaign's own."""
    best = (
        select(func.min(Suppression.id))
        .where(Suppression.email_key == Contact.email_key, _in_scope(campaign_id))
        .correlate(Contact)
        .scalar_subquery()
    )
    return Suppression.id == best


def _in_scope(campaign_id: int | None) -> Any:
    everywhere = Suppression.campaign_id.is_(None)
    if campaign_id is None:
        return everywhere
    return or_(everywhere, Suppression.campaign_id == campaign_id)


def _batch_id(campaign_id: int) -> Any:
    return select(Batch.id).where(Batch.campaign_id == campaign_id).scalar_subquery()


def _searched(session: Session, query: Rows, search: str) -> Rows:
    if not search:
        return query
    try:
        key = parse_address(search).key
    except BadAddress:
        key = ""
    if key and session.scalar(select(Contact.id).where(Contact.email_key == key)):
        return query.where(Contact.email_key == key)
    return query.where(
        or_(
            Contact.email_key.contains(search.lower(), autoescape=True),
            Contact.name.icontains(search, autoescape=True),
        )
    )


def totals(session: Session, campaign_id: int | None = None) -> Totals:
    """How many contacts there are, and how many of them may not be written to."""
    people = select(func.count()).select_from(Contact).where(Contact.deleted_at.is_(None))
    # From the suppressions, which are few, to the contacts, which are many.
    suppressed = (
        select(func.count(func.distinct(Contact.id)))
        .select_from(Suppression)
        .join(Contact, Contact.email_key == Suppression.email_key)
        .where(_in_scope(campaign_id), Contact.deleted_at.is_(None))
    )
    if campaign_id is not None:
        here = BatchContact.batch_id == _batch_id(campaign_id)
        people = select(func.count()).select_from(BatchContact).where(here)
        suppressed = suppressed.join(BatchContact, BatchContact.contact_id == Contact.id)
        suppressed = suppressed.where(here)
    return Totals(session.scalar(people) or 0, session.scalar(suppressed) or 0)


def find(session: Session, contact_id: int) -> Contact:
    """The contact. Raises Unknown, also for one that was deleted."""
    contact = session.get(Contact, contact_id)
    if contact is None or contact.deleted_at is not None:
        raise Unknown(f"contact {contact_id}")
    return contact


def card(session: Session, now: datetime, contact_id: int) -> Card:
    """The contact's page. Raises Unknown."""
    contact = find(session, contact_id)
    scopes = {
        suppression.campaign_id: suppression
        for suppression in session.scalars(
            select(Suppression).where(Suppression.email_key == contact.email_key)
        )
    }
    places = [
        Place(campaign, added_at, scopes.get(campaign.id))
        for campaign, added_at in session.execute(
            select(Campaign, BatchContact.added_at)
            .join(Batch, Batch.campaign_id == Campaign.id)
            .join(BatchContact, BatchContact.batch_id == Batch.id)
            .where(BatchContact.contact_id == contact_id)
            .order_by(BatchContact.added_at.desc(), Campaign.id.desc())
        )
    ]
    received = select(func.count()).where(
        Delivery.contact_id == contact_id, Delivery.state == "sent"
    )
    return Card(
        contact=contact,
        everywhere=scopes.get(None),
        places=places,
        got=_got(session, contact_id),
        received=session.scalar(received) or 0,
        coming=_coming(session, now, contact_id, places, set(scopes)),
    )


def _got(session: Session, contact_id: int) -> list[Delivery]:
    query = (
        select(Delivery)
        .where(Delivery.contact_id == contact_id, Delivery.state != "pending")
        .order_by(Delivery.id.desc())
        .limit(_SHOWN)
    )
    return list(session.scalars(query))


@dataclass(frozen=True)
class Origin:
    """What a delivery is of: a sending, or a sequence's step, by its message's name."""

    name: str
    campaign: Campaign
    href: str


def origins_of(session: Session, ledger: Sequence[Delivery]) -> dict[int, Origin]:
    """What each of the deliveries is of, by the delivery's id."""
    ids = [delivery.id for delivery in ledger]
    sendings = session.execute(
        select(Delivery.id, Emailer.id, Scenario.name, Campaign)
        .join(Emailer, Emailer.id == Delivery.emailer_id)
        .join(Scenario, Scenario.id == Emailer.scenario_id)
        .join(Campaign, Campaign.id == Scenario.campaign_id)
        .where(Delivery.id.in_(ids))
    )
    steps = session.execute(
        select(Delivery.id, Action.schedule_id, Scenario.name, Campaign)
        .join(Action, Action.id == Delivery.action_id)
        .join(Slice, Slice.id == Delivery.slice_id)
        .join(Scenario, Scenario.id == Slice.scenario_id)
        .join(Campaign, Campaign.id == Scenario.campaign_id)
        .where(Delivery.id.in_(ids))
    )
    found = {
        id: Origin(name, campaign, f"/emailers/{emailer_id}")
        for id, emailer_id, name, campaign in sendings
    }
    for id, schedule_id, name, campaign in steps:
        place = f"/campaigns/{campaign.id}/sequence/subjects/{schedule_id}"
        found[id] = Origin(name, campaign, place)
    return found


def _coming(
    session: Session, now: datetime, contact_id: int, places: list[Place], closed: set[int | None]
) -> list[Coming]:
    """``closed``: the campaigns that may not write to the contact; None stands for all."""

    def left_out(scenario: Scenario) -> bool:
        return bool(closed & {None, scenario.campaign_id})

    found = outlook.coming(session, now, [place.campaign.id for place in places])
    of_sendings = [
        Coming(scenario, at, left_out(scenario))
        for scenario, at in found
        if not _had_it(session, scenario, contact_id)
    ]
    of_sequences = [
        Coming(owed.scenario, owed.at, left_out(owed.scenario), owed.schedule_id)
        for owed in messages.owed_to(session, contact_id, _SHOWN)
    ]
    begun = [
        Coming(scenario, delivery.due_at, left_out(scenario), schedule_id, delivery, state or "")
        for delivery, scenario, schedule_id, state in _begun(session, contact_id)
    ]
    soonest = sorted(begun + of_sendings + of_sequences, key=lambda one: one.at or _SOME_DAY)
    return soonest[:_SHOWN]


def _begun(
    session: Session, contact_id: int
) -> Iterator[tuple[Delivery, Scenario, int | None, str | None]]:
    """What has begun and is still to go to the contact: of sendings, then of sequences."""
    pending = (Delivery.contact_id == contact_id, Delivery.state == "pending")
    of_sendings = (
        select(Delivery, Scenario, null(), Emailer.state)
        .join(Emailer, Emailer.id == Delivery.emailer_id)
        .join(Scenario, Scenario.id == Emailer.scenario_id)
    )
    of_steps = (
        select(Delivery, Scenario, Action.schedule_id, null())
        .join(Action, Action.id == Delivery.action_id)
        .join(Slice, Slice.id == Delivery.slice_id)
        .join(Scenario, Scenario.id == Slice.scenario_id)
    )
    for query in (of_sendings, of_steps):
        rows = session.execute(query.where(*pending).order_by(Delivery.due_at).limit(_SHOWN))
        yield from ((row[0], row[1], row[2], row[3]) for row in rows)


def _had_it(session: Session, scenario: Scenario, contact_id: int) -> bool:
    """Whether it leaves the contact out, since one before it reached the contact."""
    if scenario.excludes_id is None:
        return False
    got = audiences.served_by(scenario.excludes_id).where(Delivery.contact_id == contact_id)
    return session.scalar(got.limit(1)) is not None


def suppression(session: Session, contact_id: int, campaign_id: int | None) -> Suppression | None:
    """What holds the contact back everywhere, or in that one campaign. Raises Unknown."""
    contact = find(session, contact_id)
    query = select(Suppression).where(
        Suppression.email_key == contact.email_key, _exactly(campaign_id)
    )
    return session.scalars(query).first()


def _exactly(campaign_id: int | None) -> ColumnElement[bool]:
    if campaign_id is None:
        return Suppression.campaign_id.is_(None)
    return Suppression.campaign_id == campaign_id


def add(
    session: Session,
    now: datetime,
    secret: str,
    campaign_id: int,
    email: str,
    name: str = "",
    attributes: dict[str, str] | None = None,
    *,
    by: int | None = None,
) -> int:
    """Put a person into a campaign's batch, as an upload of one row would; the contact's id.

    Where the campaign enrols who is added, they begin its sequence in the same commit.
    Somebody known is the same contact: what is given and not empty wins. Somebody who was deleted
    comes back, and so does what they asked not to get. Raises Refused for a bad address, Unknown.
    """
    find_campaign(session, campaign_id)
    person = Person(email, name, attributes or {})
    try:
        return met_again(session, lambda: _put(session, now, secret, campaign_id, person, by))
    except BadPerson as error:
        raise Refused("email", error.reason) from None


def _put(
    session: Session,
    now: datetime,
    secret: str,
    campaign_id: int,
    person: Person,
    by: int | None,
) -> int:
    # The campaign is locked before its contacts.
    sequence = enrolling.welcoming(session, campaign_id)
    (taken,) = people.take_in(session, now, secret, [person])
    place = (_batch(session, campaign_id), taken.contact_id)
    if session.get(BatchContact, place) is None:
        session.add(BatchContact(batch_id=place[0], contact_id=place[1], added_at=now))
        session.flush()
        if sequence is not None:
            enrolling.added(session, now, sequence, [taken.contact_id])
    audit.note(session, now, by, "added", "contact", taken.contact_id, campaign=campaign_id)
    return taken.contact_id


def suppress(
    session: Session,
    now: datetime,
    contact_id: int,
    campaign_id: int | None,
    *,
    by: int | None = None,
) -> None:
    """Write to them no more: everywhere, or from one campaign. Raises Unknown."""
    contact = find(session, contact_id)
    with writing(session):
        if suppressions.add(session, now, contact.email_key, "blocked", campaign_id):
            audit.note(session, now, by, "blocked", "contact", contact_id, **_where(campaign_id))


def _where(campaign_id: int | None) -> dict[str, Any]:
    """What the audit log says of the scope. No entry names the person, who may be deleted."""
    return {"everywhere": True} if campaign_id is None else {"campaign": campaign_id}


def allow(
    session: Session,
    now: datetime,
    contact_id: int,
    campaign_id: int | None,
    *,
    by: int | None = None,
) -> None:
    """Write to them again: what was blocked or unsubscribed in that scope is lifted."""
    contact = find(session, contact_id)
    with writing(session):
        session.execute(
            delete_rows(Suppression).where(
                Suppression.email_key == contact.email_key, _exactly(campaign_id)
            )
        )
        audit.note(session, now, by, "allowed", "contact", contact_id, **_where(campaign_id))


def remove(
    session: Session, now: datetime, contact_id: int, campaign_id: int, *, by: int | None = None
) -> None:
    """Take them out of a campaign's batch and its sequence; what was on its way to them from it is
    skipped."""
    find(session, contact_id)
    with writing(session):
        contact = _locked(session, contact_id)
        place = session.get(BatchContact, (_batch(session, campaign_id), contact_id))
        if place is not None:
            session.delete(place)
        sequences = enrolling.sequences_of(session, contact_id, campaign_id)
        suppressions.skip_pending(session, now, contact.email_key, "removed", campaign_id)
        enrolling.let_go(session, now, contact_id, sequences)
        audit.note(session, now, by, "removed", "contact", contact_id, campaign=campaign_id)


def _locked(session: Session, contact_id: int) -> Contact:
    """The contact, held before its deliveries are: an unsubscribe takes them in that order too.

    As lightly: an import that adds it to a batch refers to it, and must not have to wait for us.
    """
    query = select(Contact).where(Contact.id == contact_id, Contact.deleted_at.is_(None))
    contact = session.scalars(query.with_for_update(key_share=True)).one_or_none()
    if contact is None:
        raise Unknown(f"contact {contact_id}")
    return contact


def _batch(session: Session, campaign_id: int) -> int:
    batch_id = session.scalar(select(Batch.id).where(Batch.campaign_id == campaign_id))
    if batch_id is None:
        raise Unknown(f"campaign {campaign_id}")
    return batch_id


def delete(
    session: Session, now: datetime, secret: str, contact_id: int, *, by: int | None = None
) -> None:
    """Forget the person, keep the ledger: the row becomes a tombstone that names nobody.

    Suppressions follow the address into its keyed hash, so they hold when it is uploaded again;
    what was on its way is skipped; old unsubscribe links go on working. Raises Unknown.
    """
    find(session, contact_id)
    with writing(session):
        contact = _locked(session, contact_id)
        sequences = enrolling.sequences_of(session, contact_id)
        suppressions.skip_pending(session, now, contact.email_key, "deleted")
        enrolling.let_go(session, now, contact_id, sequences)
        session.execute(delete_rows(BatchContact).where(BatchContact.contact_id == contact_id))
        grave = tombstone_key(secret, contact.email_key)
        suppressions.follow(session, contact.email_key, grave)
        contact.email, contact.email_key, contact.name = "", grave, ""
        contact.attributes = {}
        contact.deleted_at = contact.updated_at = now
        audit.note(session, now, by, "deleted", "contact", contact_id)


def export(session: Session, campaign_id: int) -> Iterator[list[str]]:
    """The batch as rows of a CSV, headers first, ready for a spreadsheet: no cell is a formula.

    Reads in pieces, so memory does not grow with the batch; while rows are taken no transaction is
    open (see ``ledger.table``). Raises Unknown before the first row.
    """
    batch_id = _batch(session, campaign_id)
    names = _all_attributes(session, batch_id)
    session.rollback()
    yield [safe_cell(cell) for cell in ("email", "name", *names, "status")]
    last = 0
    while rows := _piece(session, campaign_id, batch_id, last):
        last = rows[-1][0].id
        session.expunge_all()
        session.rollback()
        for contact, suppression in rows:
            cells = [contact.email, contact.name]
            cells += [contact.attributes.get(name, "") for name in names]
            cells.append(suppression.reason if suppression else "subscribed")
            yield [safe_cell(cell) for cell in cells]


def _piece(
    session: Session, campaign_id: int, batch_id: int, after: int
) -> list[tuple[Contact, Suppression | None]]:
    query = (
        select(Contact, Suppression)
        .join(BatchContact, BatchContact.contact_id == Contact.id)
        .outerjoin(Suppression, _applies(campaign_id))
        .where(BatchContact.batch_id == batch_id, BatchContact.contact_id > after)
        .order_by(BatchContact.contact_id)
        .limit(_EXPORTED_AT_ONCE)
    )
    return [(contact, suppression) for contact, suppression in session.execute(query)]


def _all_attributes(session: Session, batch_id: int) -> list[str]:
    query = (
        select(Contact.attributes)
        .join(BatchContact, BatchContact.contact_id == Contact.id)
        .where(BatchContact.batch_id == batch_id)
        .execution_options(yield_per=_EXPORTED_AT_ONCE)
    )
    names: dict[str, None] = {}
    for attributes in session.scalars(query):
        names.update(dict.fromkeys(attributes))
    return list(names)
