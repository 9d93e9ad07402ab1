"""Runners: claim what is due and call its callbacks, in threads of this process."""

import json
import logging
import random
import threading
import traceback
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from mcs.core.calls import Call
from mcs.models import Contact
from mcs.services import claims, endings, exchanges
from mcs.services.claims import Claimed
from mcs.services.endings import Ended

log = logging.getLogger(__name__)

# After an error of the database, and where others hold all that is due.
PAUSE_SECONDS = 0.5
# Leases are renewed three times before they end.
RENEWALS = 3
# Of an error: its beginning and its end. MySQL keeps 65,535 bytes of a text.
LONGEST_ERROR = 16_000
# Those who stand in line behind callbacks that take longer than this get help.
BRISK_SECONDS = 0.005


Callback = Callable[[Call], Any]


@dataclass(frozen=True)
class Surroundings:
    """What runners stand on: sessions, callbacks by id, what time it is, how long a lease is."""

    sessions: sessionmaker[Session]
    callbacks: Mapping[str, Callback]
    now: Callable[[], datetime]
    lease_seconds: float

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.lease_seconds)


def run_due(given: Surroundings, campaign_ids: Collection[int] | None = None) -> int:
    """Run all that is due now in this thread, one after the other; how many."""
    done = 0
    with given.sessions() as session:
        endings.rescue(session, given.now())
        claimed = _exchange(given, session, [], 1, campaign_ids)
        while claimed:
            ended = [_call(given, one, call) for one, call in _calls(session, claimed)]
            done += len(ended)
            claimed = _exchange(given, session, ended, 1, campaign_ids)
    return done


class Runner:
    """A thread that claims and records, and up to ``concurrency`` threads that run callbacks.

    What is claimed stands in one line, which one thread works off; as long as it is not empty, more
    and more come to help. So a thread costs nothing where callbacks are brisk, and ``concurrency``
    of them wait side by side where they are not.

    It sleeps until the next action is due, until ``wake``, or ``poll`` seconds at most.
    """

    def __init__(
        self,
        given: Surroundings,
        concurrency: int,
        poll: float,
        campaign_ids: Sequence[int] | None = None,
    ) -> None:
        self._given = given
        self._concurrency = concurrency
        self._poll = poll
        self._campaign_ids = campaign_ids
        self._flying: dict[int, Claimed] = {}
        self._line: deque[tuple[Claimed, Call]] = deque()
        self._ended: deque[Ended] = deque()
        self._bell = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def busy(self) -> int:
        return len(self._flying)

    def start(self) -> None:
        """Begin to claim; nothing where it does already."""
        if not self.running:
            self._stopping.clear()
            # A daemon, so that a program that forgets to close ends all the same.
            self._thread = threading.Thread(target=self._run, name="mcs-runner", daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """Look again now: something was scheduled."""
        self._bell.set()

    def ask_to_stop(self) -> None:
        """Claim nothing more."""
        self._stopping.set()
        self._bell.set()

    def stop(self) -> None:
        """Claim nothing more, and wait until what is running has ended and is recorded."""
        self.ask_to_stop()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        ended: list[Ended] = []
        renewed_at = self._given.now()
        with (
            ThreadPoolExecutor(self._concurrency, "mcs-callback") as pool,
            self._given.sessions() as session,
        ):
            while not self._stopping.is_set() or self._flying:
                ended += self._landed()
                try:
                    renewed_at = self._keep(session, renewed_at)
                    claimed = self._claim(session, ended)
                    ended = []
                    # What cannot be told is not in flight: its lease ends, and it comes back.
                    calls = _calls(session, claimed)
                    if calls:
                        self._dispatch(pool, calls)
                    else:
                        self._rest(session)
                except DBAPIError:
                    log.exception("the database refuses, trying again")
                    session.rollback()
                    self._bell.wait(PAUSE_SECONDS)

    def _claim(self, session: Session, ended: list[Ended]) -> list[Claimed]:
        room = 0 if self._stopping.is_set() else self._concurrency - self._in_flight(ended)
        if not ended and not room:
            return []
        claimed = _exchange(self._given, session, ended, room, self._campaign_ids)
        for one in ended:
            self._flying.pop(one.claimed.id, None)
        return claimed

    def _in_flight(self, ended: list[Ended]) -> int:
        return len(self._flying) - len({one.claimed.id for one in ended} & self._flying.keys())

    def _dispatch(self, pool: ThreadPoolExecutor, calls: list[tuple[Claimed, Call]]) -> None:
        self._flying.update((one.id, one) for one, _ in calls)
        self._line.extend(calls)
        helpers, waiting = 1, len(calls)
        while waiting:
            for _ in range(min(helpers, waiting)):
                pool.submit(self._work)
            self._bell.wait(BRISK_SECONDS)
            # Twice as many each time: on a busy machine, any callback seems to take long.
            waiting = len(self._line) if helpers < waiting else 0
            helpers *= 2

    def _work(self) -> None:
        """Call what stands in the line until it is empty, and say so."""
        untold = False
        while self._line:
            try:
                one, call = self._line.popleft()
            except IndexError:
                break
            if untold and not self._line:
                # This one may take long, and nobody else would tell of those before it.
                self._bell.set()
            self._ended.append(_call(self._given, one, call))
            untold = True
        if untold:
            self._bell.set()

    def _landed(self) -> list[Ended]:
        self._bell.clear()
        return [self._ended.popleft() for _ in range(len(self._ended))]

    def _keep(self, session: Session, renewed_at: datetime) -> datetime:
        """Renew what runs long, and take back what dead workers held."""
        now = self._given.now()
        if now - renewed_at < self._given.lease / RENEWALS:
            return renewed_at
        claims.renew(session, now, self._given.lease, self._flying.values())
        endings.rescue(session, now)
        return now

    def _rest(self, session: Session) -> None:
        if self._stopping.is_set() and not self._flying:
            return
        seconds = min(self._poll, self._given.lease_seconds / RENEWALS)
        if not self._stopping.is_set() and self.busy < self._concurrency:
            due = claims.next_due(session, self._given.callbacks, self._campaign_ids)
            if due is not None:
                left = (due - self._given.now()).total_seconds()
                # Due, and yet not claimed: others hold it for now.
                seconds = min(seconds, left if left > 0 else PAUSE_SECONDS)
        self._bell.wait(max(seconds, 0))


def _exchange(
    given: Surroundings,
    session: Session,
    ended: Sequence[Ended],
    room: int,
    campaign_ids: Collection[int] | None,
) -> list[Claimed]:
    return exchanges.exchange(
        session,
        given.now(),
        ended,
        lease=given.lease,
        room=room,
        die=random.random(),
        callbacks=given.callbacks.keys(),
        campaign_ids=campaign_ids,
    )


def _calls(session: Session, claimed: Sequence[Claimed]) -> list[tuple[Claimed, Call]]:
    ids = {one.contact_id for one in claimed if one.contact_id is not None}
    people: dict[int | None, Mapping[str, Any]] = {}
    if ids:
        rows = session.execute(
            select(Contact.id, Contact.email, Contact.name, Contact.attributes).where(
                Contact.id.in_(ids)
            )
        )
        people = {row.id: row._asdict() for row in rows}
        session.rollback()
    return [(one, _told(one, people.get(one.contact_id))) for one in claimed]


def _told(one: Claimed, contact: Mapping[str, Any] | None) -> Call:
    return Call(
        one.campaign,
        one.subject,
        one.subject_id,
        one.run,
        one.action_id,
        one.key,
        one.occurrence,
        one.expected_at,
        one.attempt,
        one.idempotency_key,
        contact,
        one.config,
    )


def _call(given: Surroundings, one: Claimed, call: Call) -> Ended:
    try:
        return Ended(one, result=_storable(given.callbacks[one.callback](call)))
    except KeyboardInterrupt:
        # Of who waits for ``run_due``, not of the callback.
        raise
    except BaseException:
        # Somebody else's code: whatever it raises, SystemExit too, is the action's error. It
        # must not end the thread that others stand in line for.
        return Ended(one, error=_keepable(traceback.format_exc()))


def _keepable(text: str) -> str:
    """The text as every database can keep it: what cannot be kept would not be recorded, and keep
    all that ended with it from being recorded, again and again."""
    if len(text) > LONGEST_ERROR:
        half = LONGEST_ERROR // 2
        text = f"{text[:half]}\n…\n{text[-half:]}"
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def _storable(result: Any) -> Any:
    """The result as JSON can keep it: its repr, where it cannot be kept as it is."""
    if result is None:
        return None
    try:
        return json.loads(json.dumps(result, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return repr(result)
