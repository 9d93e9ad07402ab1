"""Enrolments: people as others tell of them, taken in and enrolled in the same commit."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from mcs.core.addresses import BadAddress, parse_address
from mcs.models import Contact
from mcs.services import audit, bulk, definitions, people, schedules
from mcs.services.bulk import CHUNK
from mcs.services.definitions import Plan
from mcs.services.people import BadPerson, Person
from mcs.services.schedules import CONTACT, Enrolled, Refused, Subject
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
) -> tuple[Subject, Enrolled, str]:
    """Take somebody in and enrol them, both or neither; else as ``schedules.enrol``. The last of
    what it gives says why nothing is planned for them, where the campaign is off or over.

    A run that began at ``since`` or later is the one that ``restart`` asks for: it was asked again.
    Raises Unknown, RefusedAt.
    """
    ends = _run_to_end(session, campaign_id, one, since) if restart else None

    def verb() -> tuple[Subject, Enrolled, str]:
        plan = definitions.load(session, campaign_id)
        (who,) = _subjects(session, now, secret, [one], 0)
        made = schedules.enrol_within(session, now, plan, who, ends=ends)
        schedules.note_enrolled(session, now, None, plan, who, made)
        return who, made, plan.halted(now)

    return met_again(session, verb)


def enrol_many(
    session: Session, now: datetime, secret: str, campaign_id: int, many: Sequence[Newcomer]
) -> tuple[Counter[str], str]:
    """``enrol`` for any number; how many began, resumed, or were there (nothing), and why nothing
    is planned for them, where the campaign is off or over.

    All are looked at before the first is enrolled, so that a bad one keeps all of them out. Each
    CHUNK of them is one commit. Doing it again after an error enrols nobody twice.
    """
    reason = _check(session, campaign_id, many).halted(now)
    did = Counter[str]()
    for start in range(0, len(many), CHUNK):
        chunk = many[start : start + CHUNK]

        def verb(chunk: Sequence[Newcomer] = chunk, start: int = start) -> Counter[str]:
            who = _subjects(session, now, secret, chunk, start)
            made = bulk.enrol_within(session, now, campaign_id, who)
            _note_many(session, now, campaign_id, made)
            return made

        did += met_again(session, verb)
    if did["began"] > CHUNK:
        bulk.take_stock(session)
    return did, reason


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


def _run_to_end(session: Session, campaign_id: int, one: Newcomer, since: datetime | None) -> int:
    """The run that restarting somebody ends: the latest before ``since``, or of all."""
    who = subject_of(session, one)
    return 0 if who is None else schedules.last_run(session, campaign_id, *who, before=since)


def _note_many(session: Session, now: datetime, campaign_id: int, did: Counter[str]) -> None:
    told = {name: number for name, number in did.items() if number and name != "nothing"}
    if told and audit.asked_for(session, None):
        audit.note(session, now, None, "enrolled subjects of", "campaign", campaign_id, **told)


def _check(session: Session, campaign_id: int, many: Sequence[Newcomer]) -> Plan:
    """Whether all of them can be enrolled, as far as can be told beforehand, in which sequence.
    Raises RefusedAt, Refused where somebody lacks a contact, Unknown."""
    plan = definitions.look(session, campaign_id)
    for place, one in enumerate(many):
        if one.person is not None:
            try:
                parse_address(one.person.email)
            except BadAddress as error:
                raise RefusedAt(place, "contact", error.reason) from None
        else:
            schedules.refuse_unwritable(plan, [one.contact_id])
        _subject(place, one, one.contact_id)
    for start in range(0, len(many), CHUNK):
        _refuse_strangers(session, many[start : start + CHUNK], start)
    return plan


def _subject(place: int, one: Newcomer, contact_id: int | None) -> Subject:
    who = Subject(one.subject or CONTACT, one.subject_id or str(contact_id), contact_id)
    try:
        schedules.check(who)
    except Refused as error:
        raise RefusedAt(place, error.argument, error.reason) from None
    return who


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
    return [
        _subject(start + place, one, ids.get(place, one.contact_id))
        for place, one in enumerate(many)
    ]


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
