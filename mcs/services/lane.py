"""The lane: one worker's SMTP connections, kept busy with the letters of claimed slices.

A letter's row says ``sending`` before its content leaves, and its answer is committed before, or
together with, the connection's next start. So a death leaves at most one letter in doubt per
connection. While it serves a slice the lane claims further ones, of any parent, before they are
needed; it ends when nothing is due, when its time is up, or when the worker is asked to stop, and
at the end of a turn if other jobs wait.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from sqlalchemy.orm import Session, sessionmaker

from mcs.config import Settings
from mcs.core.message import BadTemplate
from mcs.core.outcomes import Attempt, Scope, Verdict
from mcs.gateways import smtp
from mcs.services import deliveries, feeds, parents, suppressions
from mcs.services.deliveries import Parent, Step
from mcs.services.feeds import Feed, Issue, Letter
from mcs.services.pacer import Pacer
from mcs.services.recorder import Recorder, Told
from mcs.services.rota import Rota
from mcs.services.steps import Outcome
from mcs.services.talk import Talk
from mcs.services.transactions import persistently

T = TypeVar("T")

# Ask for a parent's next slice while this many letters per connection are left of it, and half a
# slice at most: no connection runs dry, and other workers find something.
LETTERS_AHEAD = 25
MOST_AHEAD = 1000
# Of slices that hold a letter each, as a sequence's may, there are thousands at times.
CLAIMS_AT_ONCE = 20
MOST_FEEDS = 200
KEEPER_SECONDS = 0.25
# How finely messages of a limited rate are spread.
PACE_SECONDS = 0.005
# After this long other jobs get their turn, if any wait; what is left of the slices is rung for
# again. If none do, it goes on: to end and be rung again costs 0.8 s, and each connection its
# greeting.
TURN = timedelta(seconds=30)
# But not for long: who it writes to, as its claims loaded it, is to be what people see.
LONGEST = timedelta(minutes=2)
# A job queue that takes longer to say whether others wait is taken for one that is away.
ASKING_SECONDS = 0.5
# How long to leave a server alone that cannot be reached, or wants no more for now.
AWAY = timedelta(seconds=20)
# How long a worker that is told to end waits for the answers to what is in flight.
DRAIN_SECONDS = 8.0
# How long the answer to a goodbye is waited for when nothing else is left to do.
GOODBYE_SECONDS = 1.0


@dataclass(frozen=True)
class Surroundings:
    """What a lane is given: it asks nobody else for the time, for luck, or whether to stop.

    ``start_due`` starts the emailers and email actions whose instant has come: a lane that is held
    to a low rate has its worker to itself, and must not keep another campaign waiting.
    ``others_wait`` says whether other jobs than slices wait for a worker. It may take seconds.
    """

    sessions: sessionmaker[Session]
    settings: Settings
    server: smtp.Server
    now: Callable[[], datetime]
    dice: Callable[[], float]
    stopping: Callable[[], bool]
    start_due: Callable[[Session], None]
    others_wait: Callable[[], bool]


def deliver(given: Surroundings, slice_id: int) -> list[Parent]:
    """Send a slice, and what else is due by now and meanwhile; what it worked on.

    Harmless when run twice: a slice is claimed once. Returns at once when nothing is due.
    """
    return asyncio.run(Lane(given).run(slice_id))


class Lane:
    """The connections of one worker, and the slices they serve. Made inside a running loop."""

    def __init__(self, given: Surroundings) -> None:
        self._given = given
        self._settings = given.settings
        self._lease = timedelta(seconds=given.settings.lease_seconds)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._rota = Rota()
        self._talks: list[asyncio.Task[None]] = []
        self._issues: dict[Parent, Issue] = {}
        self._served: set[Parent] = set()
        self._more = asyncio.Event()
        self._hungry = asyncio.Event()
        self._open: set[smtp.Connection] = set()
        self._goodbyes: set[asyncio.Task[None]] = set()
        self._pacer = Pacer(given.now)
        self._failure: Exception | None = None
        self._ending = False
        self._told_to_end_at: float | None = None
        self._trouble = ""
        self._away_until = given.now()
        self.on_doubt = given.settings.on_doubt
        self._turn_ends = given.now() + TURN
        self._ends = given.now() + LONGEST

    async def run(self, slice_id: int) -> list[Parent]:
        """See ``deliver``."""
        self._recorder = Recorder(
            self._given.sessions, self._given.now, self._lease, self._executor, self._compose_ahead
        )
        try:
            # Mostly somebody has long served what was rung for: of fifty rings one is enough.
            if await self._claim(slice_id) or await self._claim(None):
                await self._serve()
        finally:
            await self._recorder.close()
            self._executor.shutdown()
            if self._goodbyes:
                await asyncio.wait(self._goodbyes, timeout=GOODBYE_SECONDS)
        return list(self._served)

    # The keeper: claims, renews, releases, and decides when it is over.

    async def _serve(self) -> None:
        self._open_more()
        pacing = asyncio.create_task(self._pace())
        try:
            while self._talks_on() and not self._overdue(DRAIN_SECONDS + 1):
                self._heed_failures([*self._talks, pacing])
                await self._keep_on()
                # A lane that began with one letter may have claimed thousands since.
                self._open_more()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._hungry.wait(), KEEPER_SECONDS)
            await asyncio.gather(*(talk for talk in self._talks if talk.done()))
        finally:
            for task in (*self._talks, pacing):
                task.cancel()
            await asyncio.gather(*self._talks, pacing, return_exceptions=True)
            self._ending = True
            await self._release(list(self._rota))
            if not self._given.stopping():
                # On the thread: a reservation that was under way there ends first.
                await self._on_thread(self._pacer.leave)
        if self._failure is not None:
            raise self._failure

    async def _others_wait(self) -> bool:
        # Not on the ledger's thread, which has more urgent things to do than to wait for Redis.
        asked = asyncio.to_thread(self._given.others_wait)
        try:
            return await asyncio.wait_for(asked, ASKING_SECONDS)
        except TimeoutError:
            return False

    def _open_more(self) -> None:
        """As many connections as there are letters to send, one at least, up to what the settings
        allow.

        One that the server wanted no more of is not made up for before a next turn.
        """
        number = max(1, min(self._settings.smtp_connections, self._rota.waiting()))
        for _ in range(number - len(self._talks)):
            talk = asyncio.create_task(self._talk())
            talk.add_done_callback(lambda _talk: self._hungry.set())
            self._talks.append(talk)

    def _talks_on(self) -> bool:
        return not all(talk.done() for talk in self._talks)

    def _heed_failures(self, tasks: Collection[asyncio.Task[None]]) -> None:
        """A talk that broke down will not bring back its letters: nobody is to wait for them."""
        for task in tasks:
            error = task.exception() if task.done() else None
            if isinstance(error, Exception):
                self._failure = self._failure or error
                self._ending = True

    async def _keep_on(self) -> None:
        """Keep; an error ends the lane as SIGTERM does, so that what is in flight is answered."""
        try:
            await self._keep()
        except Exception as error:
            self._failure = self._failure or error
            self._ending = True
            self._more.set()

    async def _keep(self) -> None:
        self._hungry.clear()
        await self._release([feed for feed in self._rota if feed.done or feed.lost])
        if self._given.stopping():
            self._ending = True
        elif self._given.now() > self._turn_ends:
            await self._end_turn()
        if not self._ending:
            all_claimed = await self._top_up()
            # One that is under way may come back: its connection may have carried its share.
            if all_claimed and not any(feed.waiting or feed.out for feed in self._rota):
                self._ending = True
        if self._ending:
            self._more.set()
        if self._overdue(DRAIN_SECONDS):
            for connection in self._open:
                connection.give_up("MCS was told to end before the mail server answered")
        await self._renew()

    async def _end_turn(self) -> None:
        """Give way to the other jobs that wait; else go on, by what people have changed since."""
        if await self._others_wait() or self._given.now() > self._ends:
            self._ending = True
            return
        self._turn_ends = self._given.now() + TURN
        if self._given.now() >= self._away_until:
            self._trouble = ""
            self._talks = [talk for talk in self._talks if not talk.done() or talk.exception()]
        self._issues.clear()
        for parent in self._rota.parents():
            await self._prepare_anew(parent)
        # Who waited for a slot of a rate that is no more.
        self._more.set()

    async def _prepare_anew(self, parent: Parent) -> None:
        served = self._rota.of(parent)
        try:
            fresh = await self._on_thread(partial(self._issue_now, parent))
        except BadTemplate as error:
            await self._pause(served, str(error))
            return
        # What befell those letters in a row counts on.
        fresh = self._issues[parent] = replace(fresh, breaker=served[-1].issue.breaker)
        for feed in served:
            feed.go_by(fresh)

    def _overdue(self, seconds: float) -> bool:
        """Whether the worker was told to end so long ago."""
        moment = asyncio.get_running_loop().time()
        told = self._given.stopping() or self._failure is not None
        if self._told_to_end_at is None and told:
            self._told_to_end_at = moment
        return self._told_to_end_at is not None and moment - self._told_to_end_at > seconds

    async def _top_up(self) -> bool:
        """Claim one slice of each other parent that is due; then, in rounds, of each of which
        little is waiting. Whether there is no more to claim now; else the next look goes on."""
        await self._on_thread(self._given.start_due)
        enough = min(LETTERS_AHEAD * self._settings.smtp_connections, MOST_AHEAD)
        not_of = self._rota.parents()
        for _ in range(CLAIMS_AT_ONCE):
            if feed := await self._claim(None, not_of):
                not_of.add(feed.claim.parent)
                continue
            supplied = self._rota.supplied(enough)
            if not_of == supplied:
                return True
            if len(self._rota) >= MOST_FEEDS:
                return False
            not_of = supplied
        return False

    async def _pace(self) -> None:
        """Reserve slots before they are needed, and wake the connections when one is due."""
        while True:
            wanted = {feed.issue.limits for feed in self._rota if feed.waiting} - {()}
            for reserve in self._pacer.reservations(wanted):
                await self._on_thread(reserve)
            slot = self._pacer.next_slot(wanted)
            if slot is not None and slot <= self._given.now():
                self._more.set()
            await asyncio.sleep(PACE_SECONDS if wanted else KEEPER_SECONDS)

    async def _claim(self, slice_id: int | None, not_of: Collection[Parent] = ()) -> Feed | None:
        feed = await self._on_thread(partial(self._claim_now, slice_id, frozenset(not_of)))
        if feed is not None:
            self._rota.add(feed)
            self._served.add(feed.claim.parent)
            self._more.set()
        return feed

    def _claim_now(
        self, slice_id: int | None, not_of: Collection[Parent], session: Session
    ) -> Feed | None:
        now = self._given.now()
        claim = deliveries.claim(session, now, self._lease, slice_id, not_of)
        if claim is None:
            return None
        issue = self._issues.get(claim.parent)
        try:
            issue = issue or self._issue_now(claim.parent, session)
        except BadTemplate as error:
            self._pause_now(claim.parent, str(error), session)
            deliveries.release(session, now, claim, None)
            return None
        self._issues[claim.parent] = issue
        return feeds.feed(session, now, claim, issue, self._lease)

    def _issue_now(self, parent: Parent, session: Session) -> Issue:
        return feeds.issue(session, self._settings, parent)

    async def _renew(self) -> None:
        """Renew the leases of slices that commit rarely: a slow server, or one message left."""
        now = self._given.now()
        soon = now + self._lease * 0.8
        if any(feed.lease_until < soon for feed in self._rota):
            held = [feed for feed in self._rota if not feed.lost]
            await self._on_thread(partial(self._renew_now, now, held))

    def _renew_now(self, now: datetime, held: list[Feed], session: Session) -> None:
        steps = [Step(feed.claim) for feed in held]
        _, lost = deliveries.advance(session, now, self._lease, steps)
        for feed in held:
            feed.lease_until = now + self._lease
            feed.lost = any(step.claim is feed.claim for step in lost)

    async def _release(self, over: list[Feed]) -> None:
        not_before = self._given.now() + AWAY if self._trouble and self._rota.waiting() else None
        for feed in over:
            self._rota.remove(feed)
            if not feed.lost:
                await self._on_thread(partial(self._release_now, feed, not_before))

    def _release_now(self, feed: Feed, not_before: datetime | None, session: Session) -> None:
        now = self._given.now()
        parent = feed.claim.parent
        parents.note(session, parent, self._trouble)
        # Before the slice is given back: a death in between leaves a lease that is rescued, and the
        # rescue finishes the parent again.
        parents.finish(session, now, parent)
        deliveries.release(session, now, feed.claim, not_before)

    # A connection takes letters, and says what it heard. (mcs.services.talk.Post)

    async def _talk(self) -> None:
        while (letter := await self.next()) is not None:
            try:
                connection = await smtp.connect(self._given.server)
            except smtp.Refused as error:
                self.put_back(letter)
                await self._pause(list(self._rota), str(error))
                return
            except smtp.Unreachable as error:
                self.put_back(letter)
                self._note_trouble(f"The mail server cannot be reached, trying again: {error}")
                return
            self._open.add(connection)
            talk = Talk(connection, self)
            try:
                await talk.converse(letter)
            except BaseException:
                connection.close()
                raise
            finally:
                self._open.discard(connection)
            self._part_from(connection)
            if talk.cut:
                self._note_trouble(f"The mail server broke off, trying again: {talk.cut}")
                continue
            if talk.trouble:
                self._note_trouble(
                    f"The mail server wants no more for now, trying again: {talk.trouble}"
                )
                return
            self._trouble = ""

    def _note_trouble(self, notice: str) -> None:
        self._trouble, self._away_until = notice, self._given.now() + AWAY

    def _part_from(self, connection: smtp.Connection) -> None:
        """Say goodbye, for which the next connection does not wait."""
        goodbye = asyncio.create_task(connection.quit())
        self._goodbyes.add(goodbye)
        goodbye.add_done_callback(self._goodbyes.discard)

    async def next(self) -> Letter | None:
        """A letter, waiting for one while the keeper may still claim more."""
        while (letter := self.take()) is None and not self._ending:
            self._more.clear()
            if not self._rota.waiting():
                self._hungry.set()
            await self._more.wait()
        return letter

    def take(self) -> Letter | None:
        if self._ending:
            return None
        now = self._given.now()
        for feed in self._rota:
            if feed.over(now):
                feed.waiting.clear()
            while feed.waiting and not feed.lost and not self._held_back(feed):
                feed.out += 1
                letter = feeds.compose(feed, feed.waiting.popleft(), now)
                if isinstance(letter, Letter):
                    self._pacer.use(feed.issue.limits)
                    self._rota.served(feed)
                    return letter
                written = self._recorder.wish(refused=(feed, letter))
                written.add_done_callback(partial(self._written, feed))
        return None

    def _compose_ahead(self) -> None:
        """Compose what the connections will take next."""
        firsts = self._rota.firsts()
        for feed in firsts:
            feeds.compose_ahead(feed, len(self._open) // len(firsts) + 1, self._given.now())

    def _held_back(self, feed: Feed) -> bool:
        """Whether the feed has to wait: for a slot, or, on trial, for the one letter under way."""
        on_trial = feed.issue.breaker.on_trial and any(other.out for other in self._same(feed))
        limits = feed.issue.limits
        return on_trial or (bool(limits) and not self._pacer.may_go(limits))

    def _landed(self, feed: Feed) -> None:
        feed.out -= 1
        # A letter less under way: it may be what those who wait have waited for.
        self._more.set()

    def _written(self, feed: Feed, _done: asyncio.Future[bool]) -> None:
        self._landed(feed)

    def put_back(self, letter: Letter) -> None:
        letter.feed.waiting.appendleft(letter.due)
        self._landed(letter.feed)

    def now(self) -> datetime:
        return self._given.now()

    def attempt(self, letter: Letter) -> Attempt:
        return Attempt(
            number=letter.due.attempts + 1,
            at=self._given.now(),
            give_up_at=letter.feed.give_up_at,
            die=self._given.dice(),
        )

    def expired(self, letter: Letter) -> bool:
        letter.feed.lost = letter.feed.lost or self._given.now() >= letter.feed.lease_until
        return letter.feed.lost

    async def may_start(self, answered: Told | None, letter: Letter) -> bool:
        started = await self._recorder.wish(answered=answered, start=letter)
        if answered is not None:
            await self._recorded(answered)
        if not started:
            self._landed(letter.feed)
            await self._look_again(letter.feed)
        return started

    async def record(self, answered: Told | None) -> None:
        if answered is not None:
            await self._recorder.wish(answered=answered)
            await self._recorded(answered)

    async def refuse(self, answered: Told | None, letter: Letter, outcome: Outcome) -> None:
        await self._recorder.wish(answered=answered, refused=(letter.feed, outcome))
        if answered is not None:
            await self._recorded(answered)
        self._landed(letter.feed)

    async def _recorded(self, answered: Told) -> None:
        feed, outcome = answered
        if outcome.state == "sent":
            was_on_trial = feed.issue.breaker.on_trial
            feed.issue.breaker.accepted()
            if was_on_trial:
                await self._note_cuts(feed)
        self._landed(feed)

    async def heed(self, letter: Letter, verdict: Verdict, said: str) -> None:
        if verdict.scope is Scope.SENDER:
            await self._pause(
                self._same(letter.feed), f"The mail server refuses this sender: {said}"
            )
        if verdict.scope is Scope.ADDRESS:
            await self._on_thread(partial(self._suppress_now, letter.due.email_key))
        breaker = letter.feed.issue.breaker
        cuts = breaker.cuts
        if notice := breaker.failed(verdict.scope, letter.cuts):
            await self._pause(self._same(letter.feed), notice)
        if breaker.cuts != cuts:
            await self._note_cuts(letter.feed)

    def _same(self, feed: Feed) -> list[Feed]:
        """The feeds of the same parent."""
        return self._rota.of(feed.claim.parent)

    async def _note_cuts(self, feed: Feed) -> None:
        cuts = feed.issue.breaker.cuts
        await self._on_thread(partial(parents.note_cuts, parent=feed.claim.parent, cuts=cuts))

    async def _pause(self, held: Collection[Feed], notice: str) -> None:
        """Stop what cannot go on without a person, at once, and mark nobody."""
        for feed in held:
            feed.waiting.clear()
        for parent in {feed.claim.parent for feed in held}:
            await self._on_thread(partial(self._pause_now, parent, notice))
            # A person will have changed something before it goes on.
            self._issues.pop(parent, None)

    async def _look_again(self, feed: Feed) -> None:
        """After a refused start: was it the one contact, or has the parent been stopped?"""
        goes_on = partial(parents.goes_on, parent=feed.claim.parent)
        if feed.lost or not await self._on_thread(goes_on):
            feed.waiting.clear()

    # On the ledger's thread, each with a session of its own.

    async def _on_thread(self, verb: Callable[[Session], T]) -> T:
        def run(_again: bool) -> T:
            with self._given.sessions() as session:
                return verb(session)

        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, persistently, run)

    def _pause_now(self, parent: Parent, notice: str, session: Session) -> None:
        parents.pause(session, self._given.now(), parent, notice)

    def _suppress_now(self, email_key: str, session: Session) -> None:
        suppressions.suppress(session, self._given.now(), email_key, suppressions.BOUNCED)
