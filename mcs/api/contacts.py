"""Contacts over HTTP."""

from collections.abc import Mapping, Sequence
from typing import Any

from mcs.api.access import ENROL, READ
from mcs.api.operations import PAGING, PREFIX, Answer, Asked, Operation, instant
from mcs.api.problems import at, invalid
from mcs.api.schemas import LONGEST_ADDRESS, LONGEST_ATTRIBUTE
from mcs.core.columns import field_name
from mcs.services import people, search
from mcs.services.people import BadPerson, Person


def listing(asked: Asked) -> Answer:
    found = search.contacts(asked.session, asked.query.get("email"), asked.after, asked.limit)
    return asked.page(found, _shown)


def read(asked: Asked, contact_id: int) -> Answer:
    return Answer(_shown(search.contact(asked.session, contact_id)))


def upsert(asked: Asked) -> Answer:
    one = person(asked.body, ())
    try:
        taken = people.put(asked.session, asked.now, asked.settings.secret_key, one)
    except BadPerson as error:
        raise invalid(at(["email"], error.reason)) from None
    answer = _shown(search.contact(asked.session, taken.contact_id))
    if not taken.new:
        return Answer(answer)
    return Answer(answer, 201, f"{PREFIX}/contacts/{taken.contact_id}")


def person(given: Mapping[str, Any], path: Sequence[int | str]) -> Person:
    """Somebody whom a body tells of, at ``path`` in it. Raises Problem for attributes that no
    message could name."""
    attributes = given.get("attributes", {})
    wrong = [
        at([*path, "attributes", name], _advice(name))
        for name in attributes
        if field_name(name) != name or name in ("email", "name")
    ]
    if wrong:
        raise invalid(*wrong)
    return Person(given["email"], given.get("name", ""), attributes)


def _advice(name: str) -> str:
    if name in ("email", "name"):
        return f"{name} is no attribute: it stands beside them"
    better = field_name(name)
    said = "a name has small letters, digits and _, begins with a letter, and"
    said += f" has {LONGEST_ATTRIBUTE} of them at most"
    return f"{said}: write {better}" if better else said


def _shown(found: search.Person) -> dict[str, Any]:
    contact = found.contact
    return {
        "id": contact.id,
        "email": contact.email,
        "name": contact.name,
        "attributes": contact.attributes,
        "suppressed": found.suppressed,
        "created_at": instant(contact.created_at),
        "updated_at": instant(contact.updated_at),
    }


OPERATIONS = (
    Operation(
        "listContacts",
        "GET",
        "/contacts",
        listing,
        READ,
        "List contacts, the earliest first, or find the one of an address",
        {200: "ContactPage"},
        query={
            "email": {"type": "string", "minLength": 1, "maxLength": LONGEST_ADDRESS},
            **PAGING,
        },
    ),
    Operation(
        "putContact",
        "POST",
        "/contacts",
        upsert,
        ENROL,
        "Add somebody, or bring up to date what is known of the address; what is left out or"
        " empty stays",
        {200: "Contact", 201: "Contact"},
        body="Person",
        creates=True,
    ),
    Operation(
        "readContact",
        "GET",
        "/contacts/{contact_id}",
        read,
        READ,
        "Read a contact",
        {200: "Contact"},
    ),
)
