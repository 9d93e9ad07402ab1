"""MCS as a library: a series of actions per subject, each at its right moment.

No web server and no Redis: a database (SQLite, PostgreSQL, MySQL or MariaDB) and threads.

    from mcs.library import CampaignScheduler

    def remind(call):
        print(call.action_id, "for", call.subject, call.subject_id)

    with CampaignScheduler({"remind": remind}) as scheduler:
        scheduler.upsert_campaign(
            "after purchase",
            action_defs=[
                {"id": "thanks", "callback": "remind", "interval": "0days"},
                {"id": "review", "callback": "remind",
                 "interval": {"offset": "2days", "time": "10:00"}},
            ],
        )
        scheduler.schedule("after purchase", "order", "A-17")
        scheduler.add_worker()

Instants are aware datetimes in UTC. Arguments that cannot be raise ``BadArgument``, whose text
begins with the argument's name.
"""

import logging
import re
import secrets
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime
from inspect import iscoroutinefunction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from zoneinfo import available_timezones

from sqlalchemy import URL, ColumnElement, Engine, create_engine, delete, inspect, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session, sessionmaker

from mcs.core.calls import SEND_EMAIL, Call
from mcs.core.sequences import BadDefinition, read_action_id
from mcs.core.states import ACTION_STATES
from mcs.gateways import clock as real_clock
from mcs.gateways.callbacks import built_in, installed
from mcs.models import (
    Action,
    ActionDefinition,
    Base,
    Campaign,
    Contact,
    Schedule,
    configure_engine,
    ping_when_rested,
)
from mcs.services import (
    actions,
    definitions,
    failures,
    people,
    runners,
    schedules,
    sequences,
    written_steps,
)
from mcs.services.actions import Found
from mcs.services.callbacks import check_config
from mcs.services.definitions import Step
from mcs.services.people import BadPerson, Person
from mcs.services.runners import Callback, Runner, Surroundings
from mcs.services.schedules import Refused, Subject
from mcs.services.transactions import writing
from mcs.services.unknown import Unknown
from mcs.services.written_steps import BadActionDef

__all__ = [
    "ActionInfo",
    "BadArgument",
    "Call",
    "CampaignInfo",
    "CampaignScheduler",
    "PlannedAction",
    "ScheduleInfo",
    "SchedulerStatus",
    "Worker",
]

TABLES = [model.__table__ for model in (Campaign, Contact, ActionDefinition, Schedule, Action)]
DEFAULT_STORAGE = "campaigns.db"
# Without days of its own, a campaign runs as long as dates are worth computing.
FIRST_DAY, LAST_DAY = date(2000, 1, 1), date(2200, 12, 31)
_DRIVERS = {
    "sqlite": "sqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
_DB_KEYS = ["url", "dialect", "storage", "host", "port", "username", "password", "database"]
_DB_KEYS += ["schema", "force", "logging"]
_ORDERS = {
    "expected_at": Action.expected_at,
    "completed_at": Action.completed_at,
    "id": Action.id,
}

log = logging.getLogger(__name__)


class BadArgument(ValueError):
    """An argument that cannot be. ``argument`` is its name; the text says what would be right."""

    def __init__(self, argument: str, reason: str) -> None:
        super().__init__(f"{argument}: {reason}")
        self.argument, self.reason = argument, reason


@dataclass(frozen=True)
class CampaignInfo:
    """A campaign; ``action_defs`` in the shape that ``upsert_campaign`` takes."""

    id: str
    active: bool
    timezone: str
    start_date: date
    end_date: date
    action_defs: list[dict[str, Any]]


@dataclass(frozen=True)
class ScheduleInfo:
    """A subject's enrolment. ``contact_id`` is whom to write to."""

    id: int
    campaign_id: str
    subject: str
    subject_id: str
    run: int
    active: bool
    started_at: datetime
    contact_id: int | None


@dataclass(frozen=True)
class ActionInfo:
    """An action as it stands: pending, processing, completed, failed or cancelled (``reason``).

    ``expected_at`` is None while it waits for the action it comes after. ``active`` says whether
    its subject is enrolled still.
    """

    id: int
    campaign_id: str
    subject: str
    subject_id: str
    run: int
    action_id: str
    state: str
    reason: str
    expected_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    attempts: int
    error: str | None
    result: Any
    active: bool


@dataclass(frozen=True)
class PlannedAction:
    """An action that would be; ``reason`` says why not, where it would not."""

    action_id: str
    expected_at: datetime | None
    reason: str


@dataclass(frozen=True)
class SchedulerStatus:
    """Counts of actions by state, and how well they keep time.

    ``waiting`` are pending ones that wait for another; ``overdue`` are due and not claimed yet.
    Drift is by how many seconds the latest 10,000 started after ``expected_at``.
    """

    counts: Mapping[str, int]
    waiting: int
    overdue: int
    next_due: datetime | None
    drift_p50: float | None
    drift_p95: float | None
    drift_max: float | None
    workers: int
    running: int


@dataclass(frozen=True)
class Worker:
    """A worker of this process: a thread that claims, and up to ``concurrency`` that run."""

    id: int
    concurrency: int
    poll_ms: int
    campaign_ids: tuple[str, ...] | None
    _runner: Runner

    @property
    def running(self) -> bool:
        """Whether it is claiming actions."""
        return self._runner.running

    @property
    def busy(self) -> int:
        """How many callbacks are running."""
        return self._runner.busy


class CampaignScheduler:
    """Campaigns of actions, their subjects, and the workers that run what is due.

    ``callbacks`` maps the ids that action definitions name to functions of one argument, a
    ``Call``; what one returns is kept as the action's result, what it raises as its error. A
    callback runs at least once: ``call.idempotency_key`` is the same on every attempt.

    ``db`` is a URL, or a mapping of: ``url``; or ``dialect`` (sqlite, postgres, mysql, mariadb),
    ``storage`` (SQLite's file), ``host``, ``port``, ``username``, ``password``, ``database``;
    ``schema`` (PostgreSQL); ``force`` (drop the library's tables in ``init``); ``logging`` (log
    the SQL). Without it: SQLite in ``campaigns.db``.

    Besides these there are ``webhook`` (a JSON POST to ``config["url"]``, signed with
    ``config["secret"]``; ``webhook_allow`` names hosts of your own as ``host:port``, others must be
    public and speak https), ``notify`` (a post to a chat, by ``config["url"]`` and
    ``config["text"]``), and what packages install as entry points of group ``mcs.callbacks``.

    ``timezone`` is that of campaigns that do not name theirs. ``clock`` says what time it is, for
    tests. Use it as a context manager, or call ``init`` first and ``close`` at the end.
    """

    def __init__(
        self,
        callbacks: Mapping[str, Callable[[Call], Any]] | None = None,
        db: str | Mapping[str, Any] | None = None,
        *,
        timezone: str = "UTC",
        clock: Callable[[], datetime] = real_clock.now,
        lease_seconds: float = 60,
        webhook_allow: Sequence[str] = (),
    ) -> None:
        own = _callbacks(callbacks or {})
        self._callbacks = installed(own) | built_in(webhook_allow) | own
        self._timezone = _zone(timezone)
        self._clock = clock
        options = _options(db)
        self._force = bool(options.get("force", False))
        self._schema = options.get("schema")
        self._engine = _engine(options)
        self._sessions = sessionmaker(self._engine)
        self._given = Surroundings(
            self._sessions, self._callbacks, clock, _positive("lease_seconds", lease_seconds)
        )
        self._workers: dict[int, Worker] = {}
        self._last_worker = 0
        self._lock = threading.Lock()
        self._ready = False

    # Beginning and ending.

    def init(self) -> Self:
        """Make the tables that are missing; with ``force``, drop the library's own first.

        ``force`` raises RuntimeError where there is a table ``users``: that is a whole MCS, with
        people's campaigns and ledgers.
        """
        with self._lock:
            if self._ready:
                return self
            if self._schema:
                with self._engine.begin() as connection:
                    connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{self._schema}"'))
            if self._force:
                self._refuse_to_drop_mcs()
                Base.metadata.drop_all(self._engine, tables=TABLES)  # type: ignore[arg-type]
            Base.metadata.create_all(self._engine, tables=TABLES)  # type: ignore[arg-type]
            self._ready = True
        return self

    def close(self) -> None:
        """Stop the workers, waiting for running callbacks, and let the database go."""
        self.remove_workers()
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self.init()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Campaigns.

    def upsert_campaign(
        self,
        id: str,
        active: bool | None = None,
        action_defs: Sequence[Mapping[str, Any]] | None = None,
        *,
        timezone: str | None = None,
        start_date: date | None = None,
        end_date: date | None = None,
        past: str = "skip",
    ) -> CampaignInfo:
        """Make a campaign, or change what is given of it; what is left out stays as it is.

        Switching it off withdraws its pending actions; switching it on brings back those that were
        never run, counted from each subject's original start. Editing ``action_defs`` touches only
        pending actions of the steps that changed; ``past`` says whether a step whose moment has
        passed for a subject is skipped (``skip``) or run at once (``run``).

        An action definition is a mapping of ``id``, ``callback`` and ``interval`` (an offset such
        as ``2days``, or a mapping of ``offset``, ``time``, ``days``, ``excluded``), and if wished
        ``repeat``, ``after``, ``on_failure`` (wait, skip, go_on), ``config`` (for the callback)
        and ``attempts`` (how often it is tried in all; once, unless told otherwise).
        """
        _text("id", id, 255)
        if active is not None and not isinstance(active, bool):
            raise BadArgument("active", f"{active!r}: use True, False, or leave it out")
        if past not in ("skip", "run"):
            raise BadArgument("past", f"{past!r}: use skip or run")
        steps = None if action_defs is None else self._steps(action_defs)
        given = {
            "active": active,
            "timezone": None if timezone is None else _zone(timezone),
            "start_date": _day("start_date", start_date),
            "end_date": _day("end_date", end_date),
        }
        with self._session() as session, writing(session):
            self._upsert(session, id, given, steps, past)
        self._wake()
        return self.get_campaigns(id)[0]

    def get_campaigns(self, id: str | Sequence[str] | None = None) -> list[CampaignInfo]:
        """All campaigns made with the library, or those of these ids, in the order of their ids."""
        query = select(Campaign).where(Campaign.key.is_not(None)).order_by(Campaign.key)
        if id is not None:
            query = query.where(Campaign.key.in_(_listed("id", id)))
        with self._session() as session:
            return [
                CampaignInfo(
                    row.key or "",
                    row.active,
                    row.timezone,
                    row.start_date,
                    row.end_date,
                    [written_steps.written(step) for step in definitions.steps_of(session, row.id)],
                )
                for row in session.scalars(query)
            ]

    def destroy_campaign(self, id: str, confirm: str) -> None:
        """Delete a campaign with its definitions, schedules and actions, history too.

        ``confirm`` is the campaign's id again. Raises BadArgument where email was sent: such a
        campaign is archived in MCS, never dropped.
        """
        if confirm != id:
            raise BadArgument("confirm", f"to destroy it with its history, give its id: {id!r}")
        with self._session() as session, writing(session):
            campaign_id = self._find(session, id)
            definitions.load(session, campaign_id, to_edit=True)
            self._refuse_to_drop_a_ledger(session, campaign_id)
            mine = select(Schedule.id).where(Schedule.campaign_id == campaign_id)
            for statement in (
                delete(Action).where(Action.schedule_id.in_(mine)),
                delete(Schedule).where(Schedule.campaign_id == campaign_id),
                delete(ActionDefinition).where(ActionDefinition.campaign_id == campaign_id),
                delete(Campaign).where(Campaign.id == campaign_id),
            ):
                session.execute(statement.execution_options(synchronize_session=False))

    # Subjects.

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
            who = Subject(subject, _id(subject_id), self._contact(session, contact))
            try:
                made = schedules.enrol(session, self._now(), campaign_id, who, restart=restart)
            except Refused as error:
                raise BadArgument(error.argument, error.reason) from None
            except Unknown:
                raise _no_campaign(campaign_id) from None
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
        ``contact_id``. Every 2,000 of them are one commit; doing it again enrols nobody twice.
        """
        with self._session() as session:
            number = self._find(session, campaign_id)
        try:
            did = self._enrol_many(number, map(_subject, subjects))
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
            return schedules.unschedule(session, self._now(), number, subject, _id(subject_id))

    def get_schedules(
        self,
        campaign_id: str | Sequence[str] | None = None,
        subject: str | Sequence[str] | None = None,
        subject_id: str | int | Sequence[str | int] | None = None,
        active: bool | None = None,
        limit: int | None = None,
    ) -> list[ScheduleInfo]:
        """Enrolments, the earliest first. Each filter is one value or a list of them."""
        conditions = _of_whom(campaign_id, subject, subject_id, active)
        query = (
            select(Schedule, Campaign.key)
            .join(Campaign, Campaign.id == Schedule.campaign_id)
            .where(Campaign.key.is_not(None), *conditions)
            .order_by(Schedule.id)
            .limit(_limit(limit))
        )
        with self._session() as session:
            return [_schedule(row, key or "") for row, key in session.execute(query)]

    def get_actions(
        self,
        *,
        state: str | Sequence[str] | None = None,
        campaign_id: str | Sequence[str] | None = None,
        subject: str | Sequence[str] | None = None,
        subject_id: str | int | Sequence[str | int] | None = None,
        action_id: str | Sequence[str] | None = None,
        expected_at: datetime | tuple[datetime | None, datetime | None] | None = None,
        completed_at: datetime | tuple[datetime | None, datetime | None] | None = None,
        active: bool | None = None,
        limit: int | None = None,
        order: str = "expected_at",
    ) -> list[ActionInfo]:
        """Actions, filtered. Each filter is one value or a list; a moment is one or a pair.

        A pair of moments is a range with both ends included; None leaves an end open. ``active``
        is whether the subject is enrolled still. ``order`` is expected_at, completed_at or id, with
        a minus in front for the latest first.
        """
        conditions = [
            Campaign.key.is_not(None),
            *_of_whom(campaign_id, subject, subject_id, active),
            *_between("expected_at", Action.expected_at, expected_at),
            *_between("completed_at", Action.completed_at, completed_at),
        ]
        if state is not None:
            conditions.append(Action.state.in_(_states(state)))
        if action_id is not None:
            conditions.append(actions.named(_action_ids(action_id)))
        with self._session() as session:
            rows = actions.find(session, conditions, order=_order(order), limit=_limit(limit))
            return [_action(row) for row in rows]

    def get_campaign_schedule(
        self, campaign_id: str, subject: str, subject_id: str | int
    ) -> list[PlannedAction]:
        """What would be due when for a subject that is enrolled now, without saving anything.

        For one that is enrolled already, from its original start.
        """
        with self._session() as session:
            number = self._find(session, campaign_id)
            try:
                shown = sequences.outlook(
                    session, self._now(), number, Subject(subject, _id(subject_id))
                )
            except Refused as error:
                raise BadArgument(error.argument, error.reason) from None
        return [
            PlannedAction(shown.name(one), one.expected_at, one.reason) for one in shown.planned
        ]

    def retry(self, action: int) -> bool:
        """Try a failed action again, at once; whether it was failed. ``action`` is its ``id``."""
        with self._session() as session:
            try:
                return failures.retry_one(session, self._now(), action)
            except Unknown:
                raise BadArgument("action", f"there is no action {action!r}") from None

    # Workers.

    def add_worker(
        self,
        concurrency: int = 200,
        poll_ms: int = 15000,
        campaign_ids: Sequence[str] | None = None,
    ) -> Worker:
        """Start a worker in threads of this process. It runs what is due until it is stopped.

        It sleeps exactly until the next action is due; ``poll_ms`` is how often it looks for what
        other processes have scheduled meanwhile. ``campaign_ids`` limits it to these campaigns.
        """
        for name, value, most in (
            ("concurrency", concurrency, 10_000),
            ("poll_ms", poll_ms, 10**9),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
                raise BadArgument(name, f"{value!r}: use a whole number from 1 to {most}")
        numbers = self._numbers(campaign_ids)
        with self._lock:
            self._last_worker += 1
            runner = Runner(self._given, concurrency, poll_ms / 1000, numbers)
            named = None if campaign_ids is None else tuple(campaign_ids)
            worker = Worker(self._last_worker, concurrency, poll_ms, named, runner)
            self._workers[worker.id] = worker
        runner.start()
        return worker

    def get_worker(self, id: int) -> Worker | None:
        """The worker of that id, while it has not been removed."""
        return self._workers.get(id)

    def start_workers(self) -> None:
        """Have every worker that was stopped claim actions again."""
        for worker in list(self._workers.values()):
            worker._runner.start()

    def stop_workers(self) -> None:
        """Have every worker claim nothing more, and wait for the callbacks that are running."""
        for worker in list(self._workers.values()):
            worker._runner.ask_to_stop()
        for worker in list(self._workers.values()):
            worker._runner.stop()

    def remove_workers(self, ids: int | Sequence[int] | None = None) -> None:
        """Stop these workers, or all, and forget them."""
        wanted = list(self._workers) if ids is None else [ids] if isinstance(ids, int) else ids
        for id in wanted:
            worker = self._workers.pop(id, None)
            if worker is not None:
                worker._runner.stop()

    def run_due(self, campaign_ids: Sequence[str] | None = None) -> int:
        """Run in this thread, one after the other, all that is due now; how many.

        For scripts, and for tests on a clock of their own. It takes back what dead workers held.
        """
        return runners.run_due(self._given, self._numbers(campaign_ids))

    def get_status(self, campaign_ids: Sequence[str] | None = None) -> SchedulerStatus:
        """How it all stands, or how these campaigns do."""
        numbers = self._numbers(campaign_ids)
        with self._session() as session:
            told = actions.status(session, self._now(), numbers)
        workers = list(self._workers.values())
        return SchedulerStatus(
            told.counts,
            told.waiting,
            told.overdue,
            told.next_due,
            told.drift_p50,
            told.drift_p95,
            told.drift_max,
            workers=sum(worker.running for worker in workers),
            running=sum(worker.busy for worker in workers),
        )

    # Inside.

    def _session(self) -> Session:
        if not self._ready:
            raise RuntimeError("call init() first, or use the scheduler in a with statement")
        return self._sessions()

    def _now(self) -> datetime:
        return self._clock()

    def _wake(self) -> None:
        for worker in list(self._workers.values()):
            worker._runner.wake()

    def _enrol_many(self, campaign_id: int, subjects: Iterator[Subject]) -> Counter[str]:
        """Chunk by chunk, two at a time where the database writes two at a time."""
        did, under_way = Counter[str](), deque[Future[Counter[str]]]()
        hands = 2 if self._engine.dialect.name == "postgresql" else 1
        with ThreadPoolExecutor(hands, "mcs-enrol") as pool:
            while chunk := list(islice(subjects, schedules.CHUNK)):
                if len(under_way) == hands:
                    did += under_way.popleft().result()
                under_way.append(pool.submit(self._enrol_chunk, campaign_id, chunk))
            for each in under_way:
                did += each.result()
        if did["began"] > schedules.CHUNK:
            with self._sessions() as session:
                schedules.take_stock(session)
        return did

    def _enrol_chunk(self, campaign_id: int, chunk: list[Subject]) -> Counter[str]:
        with self._sessions() as session:
            return schedules.enrol_many(session, self._now(), campaign_id, chunk)

    def _find(self, session: Session, campaign_id: str) -> int:
        found = session.scalar(select(Campaign.id).where(Campaign.key == campaign_id))
        if found is None:
            raise _no_campaign(campaign_id)
        return found

    def _numbers(self, campaign_ids: Sequence[str] | None) -> list[int] | None:
        if campaign_ids is None:
            return None
        if isinstance(campaign_ids, str):
            raise BadArgument("campaign_ids", "give a list of ids")
        with self._session() as session:
            return [self._find(session, one) for one in campaign_ids]

    def _steps(self, action_defs: Sequence[Mapping[str, Any]]) -> list[Step]:
        try:
            steps = written_steps.read(action_defs)
        except BadActionDef as error:
            raise BadArgument(_argument("action_defs", error.path), error.reason) from None
        for place, step in enumerate(steps):
            if step.callback not in self._callbacks:
                raise BadArgument(
                    f"action_defs[{place}].callback", _unknown_callback(step, self._callbacks)
                )
        try:
            for step in steps:
                check_config(step, self._callbacks)
        except BadDefinition as error:
            found = written_steps.located(steps, error)
            raise BadArgument(_argument("action_defs", found.path), found.reason) from None
        return steps

    def _upsert(
        self,
        session: Session,
        id: str,
        given: Mapping[str, Any],
        steps: Sequence[Step] | None,
        past: str,
    ) -> None:
        now = self._now()
        campaign = session.scalar(select(Campaign).where(Campaign.key == id).with_for_update())
        if campaign is None:
            campaign = Campaign(
                key=id,
                uid=secrets.token_urlsafe(16),
                name=id[:200],
                start_date=FIRST_DAY,
                end_date=LAST_DAY,
                timezone=self._timezone,
                active=True,
                created_at=now,
            )
            session.add(campaign)
        changed = {name: value for name, value in given.items() if value is not None}
        for name, value in changed.items():
            setattr(campaign, name, value)
        if campaign.start_date > campaign.end_date:
            raise BadArgument("end_date", "it is before start_date")
        campaign.updated_at = now
        session.flush()
        if steps is not None:
            sequences.define_within(session, now, campaign.id, steps, past)
        if changed:
            sequences.realign_within(session, now, campaign.id)

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

    def _refuse_to_drop_mcs(self) -> None:
        if inspect(self._engine).has_table("users", schema=self._schema):
            raise RuntimeError(
                "force: this database has a table users, so it is a whole MCS: nothing is dropped"
            )

    def _refuse_to_drop_a_ledger(self, session: Session, campaign_id: int) -> None:
        mine = definitions.steps_of(session, campaign_id)
        if any(step.callback == SEND_EMAIL for step in mine):
            raise BadArgument("id", "its actions sent email: archive it in MCS instead")


# What the database is.


def _options(db: str | Mapping[str, Any] | None) -> dict[str, Any]:
    if db is None:
        return {"dialect": "sqlite", "storage": DEFAULT_STORAGE}
    if isinstance(db, str):
        return {"url": db}
    if not isinstance(db, Mapping):
        raise BadArgument("db", f"{db!r}: give a URL or a mapping")
    for name in db:
        if name not in _DB_KEYS:
            raise BadArgument(f"db[{name!r}]", f"unknown: use {', '.join(_DB_KEYS)}")
    return dict(db)


def _engine(options: Mapping[str, Any]) -> Engine:
    url = _url(options)
    settings: dict[str, Any] = {"echo": bool(options.get("logging", False))}
    dialect = url.get_backend_name()
    if dialect in ("mysql", "mariadb"):
        # What a worker reads must not be older than what others have committed.
        settings["isolation_level"] = "READ COMMITTED"
    schema = options.get("schema")
    if schema is not None:
        if dialect != "postgresql" or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(schema)):
            raise BadArgument("db['schema']", f"{schema!r}: a plain name, and only on PostgreSQL")
        settings["execution_options"] = {"schema_translate_map": {None: schema}}
    return ping_when_rested(configure_engine(create_engine(url, **settings)))


def _url(options: Mapping[str, Any]) -> URL:
    given = options.get("url")
    if given is None:
        return _built_url(options)
    try:
        url = make_url(given)
    except ArgumentError:
        raise BadArgument("db", f"{given!r} is no database URL") from None
    name, _, driver = url.drivername.partition("+")
    if name not in _DRIVERS:
        raise BadArgument("db", f"{name!r}: use {', '.join(_DRIVERS)}")
    return _filed(url if driver else url.set(drivername=_DRIVERS[name]))


def _built_url(options: Mapping[str, Any]) -> URL:
    dialect = options.get("dialect", "sqlite")
    if dialect not in _DRIVERS:
        raise BadArgument("db['dialect']", f"{dialect!r}: use {', '.join(_DRIVERS)}")
    if dialect == "sqlite":
        return _filed(URL.create("sqlite", database=str(options.get("storage", DEFAULT_STORAGE))))
    if not options.get("database"):
        raise BadArgument("db['database']", "name the database")
    return URL.create(
        _DRIVERS[dialect],
        username=options.get("username"),
        password=options.get("password"),
        host=options.get("host", "localhost"),
        port=options.get("port"),
        database=options["database"],
    )


def _filed(url: URL) -> URL:
    if url.get_backend_name() != "sqlite":
        return url
    if not url.database or url.database == ":memory:":
        raise BadArgument("db", "SQLite in memory cannot be shared by threads: name a file")
    Path(url.database).absolute().parent.mkdir(parents=True, exist_ok=True)
    return url


# Arguments.


def _no_campaign(campaign_id: str) -> BadArgument:
    return BadArgument("campaign_id", f"there is no campaign {campaign_id!r}")


def _callbacks(given: Mapping[str, Callable[[Call], Any]]) -> dict[str, Callback]:
    if not isinstance(given, Mapping):
        raise BadArgument("callbacks", "give a mapping of ids to functions")
    for name, function in given.items():
        if not isinstance(name, str) or not 0 < len(name) <= 100:
            raise BadArgument("callbacks", f"{name!r} is no id: use a text of 1 to 100 characters")
        if name == SEND_EMAIL or name in built_in():
            raise BadArgument("callbacks", f"{name} is MCS's own: choose another id")
        if not callable(function):
            raise BadArgument(f"callbacks[{name!r}]", "it is not a function")
        if iscoroutinefunction(function):
            raise BadArgument(f"callbacks[{name!r}]", "it is async: give a plain function")
    return dict(given)


def _unknown_callback(step: Step, known: Mapping[str, Any]) -> str:
    if step.callback == SEND_EMAIL:
        return f"{SEND_EMAIL} needs MCS with its mail server: the library has callbacks of your own"
    return f"{step.callback!r} is not among the callbacks: {', '.join(sorted(known)) or 'none'}"


def _argument(name: str, path: Sequence[int | str]) -> str:
    """``action_defs[0].interval.offset``."""
    return name + "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in path)


def _only(name: str, given: Any, known: Sequence[str]) -> None:
    if not isinstance(given, Mapping):
        raise BadArgument(name, f"give a mapping of {', '.join(known)}")
    for field in given:
        if field not in known:
            raise BadArgument(f"{name}.{field}", f"unknown: use {', '.join(known)}")


def _subject(given: tuple[str, str | int] | Mapping[str, Any]) -> Subject:
    if isinstance(given, Mapping):
        _only("subjects", given, ("subject", "subject_id", "contact_id"))
        return Subject(
            given.get("subject", ""), _id(given.get("subject_id", "")), given.get("contact_id")
        )
    try:
        subject, subject_id = given
    except (TypeError, ValueError):
        raise BadArgument("subjects", f"{given!r} is no pair of kind and id") from None
    return Subject(subject, _id(subject_id))


def _id(given: str | int) -> str:
    """Ids are kept as texts: 1 and "1" are the same subject."""
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise BadArgument("subject_id", f"{given!r}: give a text or a whole number")
    return str(given)


def _text(argument: str, given: Any, longest: int) -> None:
    if not isinstance(given, str) or not given or len(given) > longest or "\0" in given:
        raise BadArgument(argument, f"{given!r}: give a text of 1 to {longest} characters")


def _positive(argument: str, given: float) -> float:
    if not isinstance(given, int | float) or not given >= 1:
        raise BadArgument(argument, f"{given!r}: use 1 or more")
    return given


def _zone(name: str) -> str:
    if name not in available_timezones():
        raise BadArgument("timezone", f"{name!r} is no time zone: use one such as Europe/Berlin")
    return name


def _day(argument: str, given: date | None) -> date | None:
    if given is None:
        return None
    if not isinstance(given, date) or isinstance(given, datetime):
        raise BadArgument(argument, f"{given!r}: give a date")
    if not FIRST_DAY <= given <= LAST_DAY:
        raise BadArgument(argument, f"{given}: use a day from {FIRST_DAY} to {LAST_DAY}")
    return given


def _limit(given: int | None) -> int | None:
    if given is not None and (not isinstance(given, int) or given < 0):
        raise BadArgument("limit", f"{given!r}: use a whole number, or leave it out")
    return given


def _listed(argument: str, given: Any) -> list[str]:
    values = list(given) if isinstance(given, list | tuple | set | frozenset) else [given]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise BadArgument(argument, f"{value!r}: give a text, or a list of texts")
    return [str(value) for value in values]


def _states(given: Any) -> list[str]:
    states = _listed("state", given)
    for state in states:
        if state not in ACTION_STATES:
            raise BadArgument("state", f"{state!r}: use {', '.join(ACTION_STATES)}")
    return states


def _action_ids(given: Any) -> list[str]:
    ids = _listed("action_id", given)
    for id in ids:
        try:
            read_action_id(id)
        except ValueError as error:
            raise BadArgument("action_id", str(error)) from None
    return ids


def _of_whom(
    campaign_id: Any, subject: Any, subject_id: Any, active: bool | None
) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    for argument, column, given in (
        ("campaign_id", Campaign.key, campaign_id),
        ("subject", Schedule.subject, subject),
        ("subject_id", Schedule.subject_id, subject_id),
    ):
        if given is not None:
            conditions.append(column.in_(_listed(argument, given)))
    if active is not None:
        conditions.append(Schedule.active.is_(bool(active)))
    return conditions


def _between(argument: str, column: Any, given: Any) -> list[ColumnElement[bool]]:
    if given is None:
        return []
    low, high = given if isinstance(given, tuple | list) and len(given) == 2 else (given, given)
    for moment in (low, high):
        if moment is not None and (not isinstance(moment, datetime) or moment.tzinfo is None):
            raise BadArgument(argument, f"{moment!r}: give an aware datetime, or a pair of them")
    conditions = []
    if low is not None:
        conditions.append(column >= low)
    if high is not None:
        conditions.append(column <= high)
    return conditions


def _order(given: str) -> list[ColumnElement[Any]]:
    name = given.removeprefix("-") if isinstance(given, str) else ""
    if name not in _ORDERS:
        raise BadArgument("order", f"{given!r}: use {', '.join(_ORDERS)}, or -{name or 'id'}")
    columns: list[Any] = [_ORDERS[name], Action.id]
    return [column.desc() for column in columns] if given.startswith("-") else columns


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


def _action(row: Found) -> ActionInfo:
    action = row.action
    return ActionInfo(
        action.id,
        row.campaign.key or "",
        row.schedule.subject,
        row.schedule.subject_id,
        row.schedule.run,
        row.action_id,
        action.state,
        action.reason,
        action.expected_at,
        action.started_at,
        action.completed_at,
        action.attempts,
        action.error,
        action.result,
        row.schedule.active,
    )
