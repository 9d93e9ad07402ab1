"""The desk: hands a lane's letters to the talks on its connections, and hears what they say.

What a refusal asks for beyond its letter is done here: the pause of an emailer, the suppression of
an address. What there is to hand out, and until when, the lane decides (mcs.services.lane).
"""

import asyncio
from collections.abc import Callable, Collection
from datetime import datetime
from functools import partial

from sqlalchemy.orm import Session

from mcs.core.breaker import refused_sender
from mcs.core.outcomes import Attempt, Scope, Verdict
from mcs.services import feeds, parents, suppressions
from mcs.services.feeds import Feed, Issue, Letter
from mcs.services.ledger_thread import LedgerThread
from mcs.services.pacer import Pacer
from mcs.services.recorder import Recorder, Told
from mcs.services.rota import Rota
from mcs.services.slice_claims import Parent
from mcs.services.steps import Outcome

# Refusals by a server that does its work.
_ABOUT_ONE = (Scope.ADDRESS, Scope.DOUBTFUL, Scope.MESSAGE, Scope.TRANSIENT)


class Desk:
    """What the talks of a lane ask, and say. It knows no connection.

    The rota and the issues are the lane's: the desk takes letters from the one, and strikes out of
    the other what it has paused. ``hungry`` has the lane look at once: nothing is left to take, or
    a talk has ended. ``answered`` is whether a server has dealt with a letter since the lane last
    said that there is trouble.
    """

    def __init__(
        self,
        *,
        now: Callable[[], datetime],
        dice: Callable[[], float],
        on_doubt: str,
        rota: Rota,
        issues: dict[Parent, Issue],
        pacer: Pacer,
        recorder: Recorder,
        thread: LedgerThread,
    ) -> None:
        self.now = now
        self._dice = dice
        self.on_doubt = on_doubt
        self._rota = rota
        self._issues = issues
        self._pacer = pacer
        self._recorder = recorder
        self._thread = thread
        self._more = asyncio.Event()
        self.hungry = asyncio.Event()
        self.ending = False
        self.answered = False

    # What the lane says.

    def wake(self) -> None:
        """There may be a letter for those who wait for one."""
        self._more.set()

    def end(self) -> None:
        """Hand out no more: those who wait get none."""
        self.ending = True
        self._more.set()

    def compose_ahead(self, connections: int) -> None:
        """Compose what so many connections will take next."""
        firsts = self._rota.firsts()
        for feed in firsts:
            feeds.compose_ahead(feed, connections // len(firsts) + 1, self.now())

    async def pause(self, held: Collection[Feed], notice: str) -> None:
        """Stop what cannot go on without a person, at once, and mark nobody."""
        for feed in held:
            feed.waiting.clear()
        for parent in {feed.claim.parent for feed in held}:
            await self._thread.do(partial(self._pause_now, parent, notice))
            # A person will have changed something before it goes on.
            self._issues.pop(parent, None)

    # A talk takes a letter.

    async def next(self) -> Letter | None:
        """A letter to send next, waiting for one while the lane may still claim more; None when
        there will be none."""
        while (letter := self.take()) is None and not self.ending:
            self._more.clear()
            if not self._rota.waiting():
                self.hungry.set()
            await self._more.wait()
        return letter

    def take(self) -> Letter | None:
        """A letter to send next, if one is there."""
        if self.ending:
            return None
        now = self.now()
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

    def put_back(self, letter: Letter) -> None:
        """A letter that was taken and not tried."""
        letter.feed.waiting.appendleft(letter.due)
        self._landed(letter.feed)

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

    # A talk sends it, and says what it heard.

    def attempt(self, letter: Letter) -> Attempt:
        """The attempt being made at the letter now."""
        return Attempt(
            number=letter.due.attempts + 1,
            at=self.now(),
            give_up_at=letter.feed.give_up_at,
            die=self._dice(),
        )

    def expired(self, letter: Letter) -> bool:
        """Whether the letter's lease has ended; its feed is then given up."""
        letter.feed.lost = letter.feed.lost or self.now() >= letter.feed.lease_until
        return letter.feed.lost

    async def may_start(self, answered: Told | None, letter: Letter) -> bool:
        """Record an answer and start the next letter, in one commit."""
        started = await self._recorder.wish(answered=answered, start=letter)
        if answered is not None:
            await self._recorded(answered)
        if not started:
            self._landed(letter.feed)
            await self._look_again(letter.feed)
        return started

    async def record(self, answered: Told | None) -> None:
        """Record an answer."""
        if answered is not None:
            await self._recorder.wish(answered=answered)
            await self._recorded(answered)

    async def refuse(self, answered: Told | None, letter: Letter, outcome: Outcome) -> None:
        """Record an answer, and an attempt that ended before any content was sent."""
        await self._recorder.wish(answered=answered, refused=(letter.feed, outcome))
        if answered is not None:
            await self._recorded(answered)
        self._landed(letter.feed)

    async def heed(self, letter: Letter, verdict: Verdict, said: str) -> None:
        """Do what a refusal asks for beyond its letter: pause the emailer, suppress the address."""
        self.answered = self.answered or verdict.scope in _ABOUT_ONE
        if verdict.scope is Scope.SENDER:
            await self.pause(self._same(letter.feed), refused_sender(said))
        if verdict.scope is Scope.ADDRESS:
            await self._thread.do(partial(self._suppress_now, letter.due.email_key))
        breaker = letter.feed.issue.breaker
        cuts = breaker.cuts
        if notice := breaker.failed(verdict.scope, letter.cuts, said):
            await self.pause(self._same(letter.feed), notice)
        if breaker.cuts != cuts:
            await self._note_cuts(letter.feed)

    async def _recorded(self, answered: Told) -> None:
        feed, outcome = answered
        if outcome.state == "sent":
            self.answered = True
            was_on_trial = feed.issue.breaker.on_trial
            feed.issue.breaker.accepted()
            if was_on_trial:
                await self._note_cuts(feed)
        self._landed(feed)

    async def _look_again(self, feed: Feed) -> None:
        """After a refused start: was it the one contact, or has the parent been stopped?"""
        goes_on = partial(parents.goes_on, parent=feed.claim.parent)
        if feed.lost or not await self._thread.do(goes_on):
            feed.waiting.clear()

    def _same(self, feed: Feed) -> list[Feed]:
        """The feeds of the same parent."""
        return self._rota.of(feed.claim.parent)

    async def _note_cuts(self, feed: Feed) -> None:
        cuts = feed.issue.breaker.cuts
        await self._thread.do(partial(parents.note_cuts, parent=feed.claim.parent, cuts=cuts))

    # On the ledger's thread.

    def _pause_now(self, parent: Parent, notice: str, session: Session) -> None:
        parents.pause(session, self.now(), parent, notice)

    def _suppress_now(self, email_key: str, session: Session) -> None:
        suppressions.suppress(session, self.now(), email_key, suppressions.BOUNCED)
