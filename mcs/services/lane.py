"""The lane: one worker's SMTP connections, kept busy with the letters of claimed slices.

A letter's row says ``sending`` before its content leaves, and its answer is committed before, or
together with, the connection's next start. So a death leaves at most one letter in doubt per
connection. While it serves a slice the lane claims further ones, of any parent, before they are
needed; it ends when nothing is due, when its time is up, or when the worker is asked to stop, and
at the end of a turn if other jobs wait. What the connections take and say is the desk's
(mcs.services.desk).
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy.orm import Session, sessionmaker

from mcs.config import Settings
from mcs.core.breaker import refused_login
from mcs.core.message import BadTemplate
from mcs.gateways import smtp
from mcs.services import deliveries, feeds, parents, parting, slice_claims
from mcs.services.deliveries import Standings, Step
from mcs.services.desk import Desk
from mcs.services.feeds import Feed, Issue
from mcs.services.ledger_thread import LedgerThread
from mcs.services.pacer import Limit, Pacer, limits
from mcs.services.recorder import Recorder
from mcs.services.rota import Rota
from mcs.services.slice_claims import Claim, Parent
from mcs.services.talk import Talk

# Ask for a parent's next slice while this many letters per connection are left of it, and half a
# slice at most: no connection runs dry, and other workers find something.
LETTERS_AHEAD = 25
MOST_AHEAD = 1000
# Of what another worker holds so many per connection are worth taking: to take them and to load
# who they are for costs 12 to 20 ms of processor time.
LETTERS_WORTH_HELP = 2
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
# How often to look at what people may have changed and want heeded at once, a campaign's rate; and
# at the notice that they read, which another worker may have written.
LOOK_SECONDS = 1.0
# A single connection that is refused, while others go on, is no trouble to tell of.
TROUBLE_SECONDS = 0.5
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
    """The connections of one worker, and the slices they serve."""

    def __init__(self, given: Surroundings) -> None:
        self._given = given
        self._settings = given.settings
        self._lease = timedelta(seconds=given.settings.lease_seconds)
        self._thread = LedgerThread(given.sessions)
        # To write the ledger of a large emailer takes seconds, a million deliveries 20. PostgreSQL
        # lets the others be recorded meanwhile.
        self._starter = LedgerThread(given.sessions)
        self._starting: asyncio.Task[None] | None = None
        self._rota = Rota()
        # Made by ``run``, since what it records with belongs to a running loop.
        self._desk: Desk
        self._talks: list[asyncio.Task[None]] = []
        self._issues: dict[Parent, Issue] = {}
        self._served: set[Parent] = set()
        self._open: set[smtp.Connection] = set()
        self._goodbyes: set[asyncio.Task[None]] = set()
        self._pacer = Pacer(given.now)
        self._failure: Exception | None = None
        self._told_to_end_at: float | None = None
        self._trouble = ""
        self._tell_from = self._look_from = 0.0
        # The notices of the parents served, as it last saw them, and as it last told them itself.
        self._seen: dict[Parent, str] = {}
        self._told: dict[Parent, str] = {}
        self._away_until = given.now()
        self._turn_ends = given.now() + TURN
        self._ends = given.now() + LONGEST
        self._helps_from = 0.0
        self._enough = min(LETTERS_AHEAD * given.settings.smtp_connections, MOST_AHEAD)

    async def run(self, slice_id: int) -> list[Parent]:
        """See ``deliver``."""
        recorder = Recorder(
            self._given.sessions,
            self._given.now,
            self._lease,
            self._thread.executor,
            meanwhile=lambda: self._desk.compose_ahead(len(self._open)),
        )
        self._desk = Desk(
            now=self._given.now,
            dice=self._given.dice,
            on_doubt=self._settings.on_doubt,
            rota=self._rota,
            issues=self._issues,
            pacer=self._pacer,
            recorder=recorder,
            thread=self._thread,
        )
        try:
            # Mostly somebody has long served what was rung for: of fifty rings one is enough.
            if await self._claim(slice_id) or await self._claim(None):
                await self._serve()
        finally:
            await recorder.close()
            self._thread.close()
            if self._goodbyes:
                await asyncio.wait(self._goodbyes, timeout=GOODBYE_SECONDS)
            if self._starting is not None:
                await asyncio.wait({self._starting})
            self._starter.close()
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
                    await asyncio.wait_for(self._desk.hungry.wait(), KEEPER_SECONDS)
            await asyncio.gather(*(talk for talk in self._talks if talk.done()))
        finally:
            for task in (*self._talks, pacing):
                task.cancel()
            await asyncio.gather(*self._talks, pacing, return_exceptions=True)
            self._desk.end()
            await self._release(list(self._rota))
            if not self._given.stopping():
                # On the thread: a reservation that was under way there ends first.
                await self._thread.do(self._pacer.leave)
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
            talk.add_done_callback(lambda _talk: self._desk.hungry.set())
            self._talks.append(talk)

    def _talks_on(self) -> bool:
        return not all(talk.done() for talk in self._talks)

    def _heed_failures(self, tasks: Collection[asyncio.Task[None]]) -> None:
        """A talk that broke down will not bring back its letters: nobody is to wait for them."""
        for task in tasks:
            error = task.exception() if task.done() else None
            if isinstance(error, Exception):
                self._failure = self._failure or error
                self._desk.end()

    async def _keep_on(self) -> None:
        """Keep; an error ends the lane as SIGTERM does, so that what is in flight is answered."""
        try:
            await self._keep()
        except Exception as error:
            self._failure = self._failure or error
            self._desk.end()

    async def _keep(self) -> None:
        self._desk.hungry.clear()
        await self._release([feed for feed in self._rota if feed.done or feed.lost])
        if self._given.stopping():
            self._desk.end()
        elif not self._desk.ending and self._given.now() > self._turn_ends:
            await self._end_turn()
        await self._look()
        await self._tell()
        if not self._desk.ending:
            all_claimed = await self._top_up() and await self._help() is None
            # One that is under way may come back: its connection may have carried its share.
            if all_claimed and not any(feed.waiting or feed.out for feed in self._rota):
                self._desk.end()
        if self._overdue(DRAIN_SECONDS):
            for connection in self._open:
                connection.give_up("MCS was told to end before the mail server answered")
        await self._renew()

    async def _end_turn(self) -> None:
        """Give way to the other jobs that wait; else go on, by what people have changed since."""
        if await self._others_wait() or self._given.now() > self._ends:
            self._desk.end()
            return
        self._turn_ends = self._given.now() + TURN
        if self._given.now() >= self._away_until:
            self._trouble = ""
            self._talks = [talk for talk in self._talks if not talk.done() or talk.exception()]
        self._issues.clear()
        before = self._limits()
        for parent in self._rota.parents():
            await self._prepare_anew(parent)
        await self._heed_limits(before)

    async def _prepare_anew(self, parent: Parent) -> None:
        served = self._rota.of(parent)
        try:
            fresh = await self._thread.do(partial(self._issue_now, parent))
        except BadTemplate as error:
            await self._desk.pause(served, str(error))
            return
        # What befell those letters in a row counts on.
        fresh = self._issues[parent] = replace(fresh, breaker=served[-1].issue.breaker)
        for feed in served:
            feed.go_by(fresh)

    async def _look(self) -> None:
        """Heed the campaigns' rates, as people may have changed them."""
        moment = asyncio.get_running_loop().time()
        if moment < self._look_from or not self._rota:
            return
        self._look_from = moment + LOOK_SECONDS
        seen = await self._thread.do(partial(parents.look, parents=self._rota.parents()))
        self._seen = {parent: each.notice for parent, each in seen.items()}
        before = self._limits()
        for parent, each in seen.items():
            self._keep_to(parent, limits(self._settings, each.campaign_id, each.send_rate))
        await self._heed_limits(before)

    def _keep_to(self, parent: Parent, kept: tuple[Limit, ...]) -> None:
        if parent in self._issues and self._issues[parent].limits != kept:
            self._issues[parent] = replace(self._issues[parent], limits=kept)
        for feed in self._rota.of(parent):
            if feed.issue.limits != kept:
                feed.keep_to(kept)

    def _limits(self) -> set[Limit]:
        """Those that the letters of this lane keep."""
        return {limit for feed in self._rota for limit in feed.issue.limits}

    async def _heed_limits(self, before: set[Limit]) -> None:
        """Give back the slots of those that were kept before and are no more."""
        after = self._limits()
        rates = {limit.key: limit.rate for limit in after}
        for limit in before - after:
            forsake = partial(self._pacer.forsake, limit, rates.get(limit.key))
            await self._thread.do(forsake)
            # Who waited for a slot of a rate that is no more.
            self._desk.wake()

    async def _tell(self) -> None:
        """Say to people what holds up what is served, once; and that nothing does any more, also
        where another worker, that had no luck, has said so."""
        news = self._news()
        if news is None or (news and asyncio.get_running_loop().time() < self._tell_from):
            return
        for parent in self._rota.parents():
            if (self._told if news else self._seen).get(parent, "") != news:
                await self._thread.do(partial(parents.note, parent=parent, notice=news))
                self._seen[parent] = news
            self._told[parent] = news

    def _news(self) -> str | None:
        """What holds up the mail server; empty when nothing does, None while nobody knows."""
        if self._desk.answered:
            self._trouble = ""
        return self._trouble if self._trouble or self._desk.answered else None

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
        all_started = await self._start_due()
        not_of = self._rota.parents()
        for _ in range(CLAIMS_AT_ONCE):
            if feed := await self._claim(None, not_of):
                not_of.add(feed.claim.parent)
                continue
            supplied = self._rota.supplied(self._enough)
            if not_of == supplied:
                return all_started
            if len(self._rota) >= MOST_FEEDS:
                return False
            not_of = supplied
        return False

    async def _start_due(self) -> bool:
        """Start what is due, if that is not under way; whether it is done. Mostly there is nothing,
        which is known at once; for what takes longer than that nobody waits."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._starter.do(self._given.start_due))
            await asyncio.wait({self._starting}, timeout=KEEPER_SECONDS)
        if not self._starting.done():
            return False
        started, self._starting = self._starting, None
        await started
        return True

    async def _help(self) -> Feed | None:
        """Take a share of what another worker holds, while little is left to this one."""
        waiting, moment = self._rota.waiting(), asyncio.get_running_loop().time()
        if waiting >= self._enough or moment < self._helps_from or not self._can_help():
            return None
        feed = await self._taken(partial(self._share_now, waiting))
        if feed is None:
            self._helps_from = moment + KEEPER_SECONDS
        return feed

    def _can_help(self) -> bool:
        """Where it can send; and not where all share a rate, which that would not raise."""
        return bool(self._open) and not self._trouble and self._settings.send_rate is None

    def _share_now(self, waiting: int, session: Session) -> Feed | None:
        now = self._given.now()
        mine = {feed.claim.slice_id for feed in self._rota}
        least = LETTERS_WORTH_HELP * self._settings.smtp_connections
        claim = parting.take_share(session, now, self._lease, mine, waiting, least)
        return None if claim is None else self._feed_now(session, now, claim)

    async def _pace(self) -> None:
        """Reserve slots before they are needed, and wake the connections when one is due."""
        while True:
            wanted = {feed.issue.limits for feed in self._rota if feed.waiting} - {()}
            for reserve in self._pacer.reservations(wanted):
                await self._thread.do(reserve)
            slot = self._pacer.next_slot(wanted)
            if slot is not None and slot <= self._given.now():
                self._desk.wake()
            await asyncio.sleep(PACE_SECONDS if wanted else KEEPER_SECONDS)

    async def _claim(self, slice_id: int | None, not_of: Collection[Parent] = ()) -> Feed | None:
        return await self._taken(partial(self._claim_now, slice_id, frozenset(not_of)))

    async def _taken(self, claim: Callable[[Session], Feed | None]) -> Feed | None:
        feed = await self._thread.do(claim)
        if feed is not None:
            self._rota.add(feed)
            self._served.add(feed.claim.parent)
            self._desk.wake()
        return feed

    def _claim_now(
        self, slice_id: int | None, not_of: Collection[Parent], session: Session
    ) -> Feed | None:
        now = self._given.now()
        claim = slice_claims.claim(session, now, self._lease, slice_id, not_of)
        return None if claim is None else self._feed_now(session, now, claim)

    def _feed_now(self, session: Session, now: datetime, claim: Claim) -> Feed | None:
        issue = self._issues.get(claim.parent)
        try:
            issue = issue or self._issue_now(claim.parent, session)
        except BadTemplate as error:
            parents.pause(session, self._given.now(), claim.parent, str(error))
            slice_claims.release(session, now, claim, None)
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
            steps = {feed: Step(feed.claim) for feed in self._rota if not feed.lost}
            standings = await self._thread.do(partial(self._renew_now, now, steps.values()))
            for feed, step in steps.items():
                feed.stand(standings.get(step), now + self._lease)

    def _renew_now(self, now: datetime, steps: Iterable[Step], session: Session) -> Standings:
        return deliveries.advance(session, now, self._lease, steps)

    async def _release(self, over: list[Feed]) -> None:
        news = self._news()
        not_before = self._given.now() + AWAY if news and self._rota.waiting() else None
        for feed in over:
            self._rota.remove(feed)
            if not feed.lost:
                await self._thread.do(partial(self._release_now, feed, news, not_before))

    def _release_now(
        self, feed: Feed, news: str | None, not_before: datetime | None, session: Session
    ) -> None:
        now = self._given.now()
        parent = feed.claim.parent
        if news is not None:
            parents.note(session, parent, news)
        # Before the slice is given back: a death in between leaves a lease that is rescued, and the
        # rescue finishes the parent again.
        parents.finish(session, now, parent)
        slice_claims.release(session, now, feed.claim, not_before)

    # The connections: opened, talked on, and left.

    async def _talk(self) -> None:
        while (letter := await self._desk.next()) is not None:
            try:
                connection = await smtp.connect(self._given.server)
            except smtp.Refused as error:
                self._desk.put_back(letter)
                await self._desk.pause(list(self._rota), refused_login(str(error)))
                return
            except smtp.Unreachable as error:
                self._desk.put_back(letter)
                self._note_trouble(f"The mail server cannot be reached, trying again: {error}")
                return
            self._open.add(connection)
            talk = Talk(connection, self._desk)
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
            self._desk.answered = True

    def _note_trouble(self, notice: str) -> None:
        if not self._news():
            self._tell_from = asyncio.get_running_loop().time() + TROUBLE_SECONDS
        self._trouble, self._away_until = notice, self._given.now() + AWAY
        self._desk.answered = False

    def _part_from(self, connection: smtp.Connection) -> None:
        """Say goodbye, for which the next connection does not wait."""
        goodbye = asyncio.create_task(connection.quit())
        self._goodbyes.add(goodbye)
        goodbye.add_done_callback(self._goodbyes.discard)
