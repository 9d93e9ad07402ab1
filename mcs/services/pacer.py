"""The pacer: holds a lane to the rates of the installation and of each campaign."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from sqlalchemy.orm import Session

from mcs.config import Settings
from mcs.core.pacing import Allowance
from mcs.services import throttles


@dataclass(frozen=True)
class Limit:
    """A rate in messages a second, and the key under which its slots are reserved in SQL."""

    key: str
    rate: float


def limits(settings: Settings, campaign_id: int, send_rate: float | None) -> tuple[Limit, ...]:
    """The limits that a campaign's messages keep, whose own rate is ``send_rate``."""
    found = []
    if send_rate:
        found.append(Limit(throttles.of_campaign(campaign_id), send_rate))
    if settings.send_rate:
        found.append(Limit(throttles.INSTALLATION, settings.send_rate))
    return tuple(found)


class Pacer:
    """One lane's slots. ``now`` is asked each time."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._allowances: dict[Limit, Allowance] = {}

    def may_go(self, kept: Iterable[Limit]) -> bool:
        """Whether a message that keeps these limits may start now."""
        moment = self._now()
        return all(self._of(limit).may_go(moment) for limit in kept)

    def use(self, kept: Iterable[Limit]) -> None:
        """A message that keeps these limits starts."""
        for limit in kept:
            self._of(limit).use()

    def reservations(self, wanted: Iterable[tuple[Limit, ...]]) -> list[Callable[[Session], None]]:
        """The verbs that reserve what is running short, for whoever has messages to send.

        What a message waits for first is reserved first: while its campaign's next slot is far
        off, it takes none of the installation's, which others could use.
        """
        moment = self._now()
        short = set()
        for kept in wanted:
            for limit in kept:
                if self._of(limit).wants_more(moment):
                    short.add(limit)
                if not self._of(limit).is_near(moment):
                    break
        return [partial(self._reserve, limit) for limit in sorted(short, key=lambda it: it.key)]

    def next_slot(self, wanted: Iterable[tuple[Limit, ...]]) -> datetime | None:
        """When the first of several kinds of messages may start; None when nobody can say yet."""
        found = [
            max(slot for slot in slots if slot is not None)
            for kept in wanted
            if None not in (slots := [self._of(limit).next_slot() for limit in kept]) and slots
        ]
        return min(found, default=None)

    def leave(self, session: Session) -> None:
        """Use no more slots, and give back those that were not used."""
        for limit, allowance in sorted(self._allowances.items(), key=lambda it: it[0].key):
            allowance.leave()
            if missed := allowance.missed():
                throttles.give_back(session, limit.key, limit.rate, missed)
                allowance.told(missed)

    def forsake(self, limit: Limit, rate: float | None, session: Session) -> None:
        """Use no more slots of a limit that people have changed: it is ``rate`` now, if any.

        Nothing that keeps it may be taken any more.
        """
        allowance = self._allowances.pop(limit, None)
        if allowance is not None:
            slots = allowance.forsake()
            throttles.renew(session, self._now(), limit.key, limit.rate, rate, slots)

    def _of(self, limit: Limit) -> Allowance:
        return self._allowances.setdefault(limit, Allowance(limit.rate))

    def _reserve(self, limit: Limit, session: Session) -> None:
        allowance = self._allowances.get(limit)
        if allowance is None:
            return  # Forsaken while this waited for the ledger's thread.
        missed = allowance.missed()
        allowance.add(throttles.reserve(session, self._now(), limit.key, limit.rate, missed))
        allowance.told(missed)
