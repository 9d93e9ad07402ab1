"""Schedules: subjects enrolled and withdrawn."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from mcs.library import arguments
from mcs.library.arguments import BadArgument
from mcs.library.ground import Ground
from mcs.library.infos import ScheduleInfo
from mcs.models import Campaign, Contact, Schedule
from mcs.services import bulk, people, schedules
from mcs.services.people import BadPerson, Person
from mcs.services.schedules import Refused, Subject
from mcs.services.unknown import Unknown

# Small enough that two who share ten thousand subjects end at the same time.
PIECE = 1000


class Schedules(Ground):
    """The verbs of subjects."""

    def schedule(
        self,
        campaign_id: str,
        subject: str,
        subject_id: str | int,
        contact: int | str | Mapping[str, Any] | None = None,
        restart: bool = False,
    ) -> ScheduleInfo:
        """Begin a campaign's actions for a subject: a kind and an id, such as order A-17.

        Twice is once. After ``unschedule``, what was never completed comes back, counted from the
        original start; ``restart=True`` begins a new run. ``contact`` is whom to write to: an
        address, a mapping with ``email`` (and ``name``, and further attributes), or the id of one.
        """
        with self._session() as session:
            who = Subject(
                subject, arguments.id_as_text(subject_id), self._contact(session, contact)
            )
            try:
                made = schedules.enrol(session, self._now(), campaign_id, who, restart=restart)
            except Refused as error:
                raise BadArgument(error.argument, error.reason) from None
            except Unknown:
                raise arguments.no_campaign(campaign_id) from None
        self._wake()
        return ScheduleInfo(
            made.schedule_id,
            campaign_id,
            who.subject,
            who.subject_id,
            made.run,
            True,
            made.started_at,
            made.contact_id,
        )

    def schedule_many(
        self, campaign_id: str, subjects: Iterable[tuple[str, str | int] | Mapping[str, Any]]
    ) -> dict[str, int]:
        """Begin a campaign's actions for any number of subjects: how many began, resumed, nothing.

        Each subject is a pair of kind and id, or a mapping of ``subject``, ``subject_id`` and
        ``contact_id``. Every 1,000 of them are one commit; doing it again enrols nobody twice.
        """
        with self._session() as session:
            number = self._find(session, campaign_id)
        try:
            did = self._enrol_many(number, map(arguments.subject, subjects))
        except Refused as error:
            raise BadArgument(f"subjects: {error.argument}", error.reason) from None
        self._wake()
        return {"began": 0, "resumed": 0, "nothing": 0} | dict(did)

    def unschedule(self, campaign_id: str, subject: str, subject_id: str | int) -> bool:
        """Withdraw what is still pending of a subject, to the last moment; its history stays.

        Whether it was enrolled.
        """
        with self._session() as session:
            number = self._find(session, campaign_id)
            return schedules.unschedule(
                session, self._now(), number, subject, arguments.id_as_text(subject_id)
            )

    def get_schedules(
        self,
        campaign_id: str | Sequence[str] | None = None,
        subject: str | Sequence[str] | None = None,
        subject_id: str | int | Sequence[str | int] | None = None,
        active: bool | None = None,
        limit: int | None = None,
    ) -> list[ScheduleInfo]:
        """Enrolments, the earliest first. Each filter is one value or a list of them."""
        conditions = arguments.of_whom(campaign_id, subject, subject_id, active)
        query = (
            select(Schedule, Campaign.key)
            .join(Campaign, Campaign.id == Schedule.campaign_id)
            .where(Campaign.key.is_not(None), *conditions)
            .order_by(Schedule.id)
            .limit(arguments.limit(limit))
        )
        with self._session() as session:
            return [_schedule(row, key or "") for row, key in session.execute(query)]

    def _enrol_many(self, campaign_id: int, subjects: Iterator[Subject]) -> Counter[str]:
        """Piece by piece, two at a time where the database writes two at a time."""
        did, under_way = Counter[str](), deque[Future[Counter[str]]]()
        hands = 2 if self._engine.dialect.name == "postgresql" else 1
        with ThreadPoolExecutor(hands + 1, "mcs-enrol") as pool:
            while piece := list(islice(subjects, PIECE)):
                if len(under_way) == hands:
                    did += under_way.popleft().result()
                under_way.append(pool.submit(self._enrol_piece, campaign_id, piece))
            # Beside the last pieces, which are few enough for a sample to do without.
            stock = pool.submit(self._take_stock, did["began"])
            for each in under_way:
                did += each.result()
            stock.result()
        return did

    def _enrol_piece(self, campaign_id: int, piece: list[Subject]) -> Counter[str]:
        with self._sessions() as session:
            return bulk.enrol(session, self._now(), campaign_id, piece)

    def _take_stock(self, began: int) -> None:
        if began >= PIECE:
            with self._sessions() as session:
                bulk.take_stock(session)

    def _contact(
        self, session: Session, contact: int | str | Mapping[str, Any] | None
    ) -> int | None:
        if contact is None:
            return None
        if isinstance(contact, int):
            if session.get(Contact, contact) is None:
                raise BadArgument("contact", f"there is no contact {contact}")
            return contact
        given = {"email": contact} if isinstance(contact, str) else dict(contact)
        if "email" not in given:
            raise BadArgument("contact", "give its email")
        told = {name: str(value) for name, value in given.items() if value is not None}
        person = Person(told.pop("email", ""), told.pop("name", ""), told)
        try:
            return people.put(session, self._now(), None, person).contact_id
        except BadPerson as error:
            raise BadArgument("contact", f"this is no email address: {error.reason}") from None


def _schedule(row: Schedule, campaign_id: str) -> ScheduleInfo:
    return ScheduleInfo(
        row.id,
        campaign_id,
        row.subject,
        row.subject_id,
        row.run,
        row.active,
        row.started_at,
        row.contact_id,
    )
