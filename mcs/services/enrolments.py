"""Enrolments: people as others tell of them, taken in and enrolled in the same commit."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from mcs.core.addresses import BadAddress, parse_address
from mcs.models import Contact
from mcs.services import definitions, people, schedules
from mcs.services.people import BadPerson, Person
from mcs.services.schedules import CHUNK, CONTACT, Enrolled, Refused, Subject
from mcs.services.transactions import met_again


@dataclass(frozen=True)
class Newcomer:
    """Who is to be enrolled: a subject, and whom to write to, as a person or by a contact's id.

    Without a subject it is the contact itself.
    """

    subject: str = ""
    subject_id: str = ""
    person: Person | None = None
    contact_id: int | None = None


class RefusedAt(Refused):
    """Refused, of the newcomer at ``place`` among many."""

    def __init__(self, place: int, argument: str, reason: str) -> None:
        super().__init__(argument, reason)
        self.place = place


def enrol(
    session: Session,
    now: datetime,
    secret: str,
    campaign_id: int,
    one: Newcomer,
    *,
    restart: bool = False,
    since: datetime | None = None,
) -> tuple[Subject, Enrolled]:
    """Take somebody in and enrol them, both or neither; else as ``schedules.enrol``.

    A run that began at ``since`` or later is not begun again by ``restart``. Raises Unknown,
    RefusedAt.
    """

    def verb() -> tuple[Subject, Enrolled]:
        plan = definitions.load(session, campaign_id)
        (who,) = _subjects(session, now, secret, [one], 0)
        made = schedules.enrol_within(session, now, plan, who, restart=restart, since=since)
        return who, made

    return met_again(session, verb)


def enrol_many(
    session: Session, now: datetime, secret: str, campaign_id: int, many: Sequence[Newcomer]
) -> Counter[str]:
    """``enrol`` for any number; how many began, resumed, or were there (nothing).

    Each CHUNK of them is one commit. Doing it again after an error enrols nobody twice.
    """
    did = Counter[str]()
    for start in range(0, len(many), CHUNK):
        chunk = many[start : start + CHUNK]

        def verb(chunk: Sequence[Newcomer] = chunk, start: int = start) -> Counter[str]:
            who = _subjects(session, now, secret, chunk, start)
            return schedules.enrol_chunk_within(session, now, campaign_id, who)

        did += met_again(session, verb)
    if did["began"] > CHUNK:
        schedules.take_stock(session)
    return did


def subject_of(session: Session, one: Newcomer) -> tuple[str, str] | None:
    """The subject's kind and id, where it must be known already; None where nobody is."""
    if one.subject:
        return one.subject, one.subject_id
    contact_id = one.contact_id
    if one.person is not None:
        try:
            key = parse_address(one.person.email).key
        except BadAddress as error:
            raise RefusedAt(0, "contact", error.reason) from None
        contact_id = session.scalar(select(Contact.id).where(Contact.email_key == key))
    return None if contact_id is None else (CONTACT, str(contact_id))


def _subjects(
    session: Session, now: datetime, secret: str, many: Sequence[Newcomer], start: int
) -> list[Subject]:
    told = [(place, one.person) for place, one in enumerate(many) if one.person is not None]
    try:
        taken = people.take_in(session, now, secret, [person for _, person in told])
    except BadPerson as error:
        raise RefusedAt(start + told[error.place][0], "contact", error.reason) from None
    ids = {place: one.contact_id for (place, _), one in zip(told, taken, strict=True)}
    _refuse_strangers(session, many, start)
    subjects = []
    for place, one in enumerate(many):
        contact_id = ids.get(place, one.contact_id)
        who = Subject(one.subject or CONTACT, one.subject_id or str(contact_id), contact_id)
        try:
            schedules.check(who)
        except Refused as error:
            raise RefusedAt(start + place, error.argument, error.reason) from None
        subjects.append(who)
    return subjects


def _refuse_strangers(session: Session, many: Sequence[Newcomer], start: int) -> None:
    asked = {one.contact_id for one in many if one.contact_id is not None}
    if not asked:
        return
    there = set(
        session.scalars(
            select(Contact.id).where(Contact.id.in_(asked), Contact.deleted_at.is_(None))
        )
    )
    for place, one in enumerate(many):
        if one.contact_id is not None and one.contact_id not in there:
            raise RefusedAt(start + place, "contact_id", f"there is no contact {one.contact_id}")
