"""People as others tell of them: contacts, added or brought up to date by their addresses."""

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from mcs.core.addresses import Address, BadAddress, parse_address, tombstone_key
from mcs.models import Contact
from mcs.services import suppressions
from mcs.services.transactions import met_again

LONGEST_NAME = 200


class BadPerson(ValueError):
    """Somebody who cannot be written to: ``place`` is theirs among those told of."""

    def __init__(self, place: int, reason: str) -> None:
        super().__init__(reason)
        self.place, self.reason = place, reason


@dataclass(frozen=True)
class Person:
    """What is told of somebody. What is left empty stays as it is known."""

    email: str
    name: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Taken:
    """A contact that somebody became, or was already."""

    contact_id: int
    new: bool


def put(session: Session, now: datetime, secret: str | None, person: Person) -> Taken:
    """Add somebody, or learn what is new of somebody known. Raises BadPerson."""
    return met_again(session, lambda: take_in(session, now, secret, [person])[0])


def take_in(
    session: Session, now: datetime, secret: str | None, people: Sequence[Person]
) -> list[Taken]:
    """``put`` for many, in their order, in the caller's transaction.

    Of somebody who is told of twice, what comes later wins. Who was deleted comes back, and so does
    what they asked not to get; ``secret`` recognises them (without it, nobody is ever deleted).
    Raises BadPerson, and IntegrityError where somebody else adds the same person at once.
    """
    addresses = [_address(place, person) for place, person in enumerate(people)]
    known = _known(session, secret, {address.key for address in addresses})
    new: dict[str, Contact] = {}
    # In the order of their addresses, as everybody does: two at once then wait, and never deadlock.
    for address, person in sorted(
        zip(addresses, people, strict=True), key=lambda pair: pair[0].key
    ):
        contact = known.get(address.key)
        if contact is None:
            contact = known[address.key] = new[address.key] = _newcomer(now, address)
            session.add(contact)
        if contact.email_key != address.key:
            _revive(session, contact, address)
        _learn(now, contact, person)
    session.flush()
    return [Taken(known[address.key].id, address.key in new) for address in addresses]


def _address(place: int, person: Person) -> Address:
    try:
        return parse_address(person.email)
    except BadAddress as error:
        raise BadPerson(place, error.reason) from None


def _known(session: Session, secret: str | None, keys: Collection[str]) -> dict[str, Contact]:
    """By the address's key, also those whom only a tombstone is left of."""
    graves = {} if secret is None else {tombstone_key(secret, key): key for key in keys}
    found = session.scalars(_KNOWN, {"keys": [*keys, *graves]}).all()
    buried = {graves[one.email_key]: one for one in found if one.email_key in graves}
    return buried | {one.email_key: one for one in found if one.email_key not in graves}


_KNOWN = (
    select(Contact)
    .where(Contact.email_key.in_(bindparam("keys", expanding=True)))
    .order_by(Contact.email_key)
    .with_for_update(key_share=True)
    .execution_options(populate_existing=True)
)


def _newcomer(now: datetime, address: Address) -> Contact:
    return Contact(
        uid=secrets.token_urlsafe(16),
        email=address.email,
        email_key=address.key,
        name="",
        attributes={},
        created_at=now,
        updated_at=now,
    )


def _revive(session: Session, contact: Contact, address: Address) -> None:
    suppressions.follow(session, contact.email_key, address.key)
    contact.email, contact.email_key, contact.deleted_at = address.email, address.key, None


def _learn(now: datetime, contact: Contact, person: Person) -> None:
    name = person.name[:LONGEST_NAME] or contact.name
    attributes = contact.attributes | {
        key: value for key, value in person.attributes.items() if value
    }
    if (name, attributes) != (contact.name, contact.attributes):
        contact.name, contact.attributes, contact.updated_at = name, attributes, now
