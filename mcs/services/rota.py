"""The rota: the feeds that a lane holds, and whose letter goes next."""

from collections import OrderedDict
from collections.abc import Iterator

from mcs.services.feeds import Feed
from mcs.services.slice_claims import Parent


class Rota:
    """Parents take turns by the letter, so that no emailer waits for another's end; the slices of
    one go one after the other, since each costs every commit a statement of its own."""

    def __init__(self) -> None:
        self._feeds: OrderedDict[Parent, list[Feed]] = OrderedDict()

    def __iter__(self) -> Iterator[Feed]:
        """All feeds, next ones first."""
        return (feed for feeds in self._feeds.values() for feed in feeds)

    def __len__(self) -> int:
        return sum(map(len, self._feeds.values()))

    def parents(self) -> set[Parent]:
        return set(self._feeds)

    def supplied(self, enough: int) -> set[Parent]:
        """The parents of which at least so many letters wait to be taken."""
        return {parent for parent in self._feeds if self._waiting_of(parent) >= enough}

    def of(self, parent: Parent) -> list[Feed]:
        """The feeds of a parent, in the order in which they were claimed."""
        return list(self._feeds.get(parent, ()))

    def add(self, feed: Feed) -> None:
        self._feeds.setdefault(feed.claim.parent, []).append(feed)

    def remove(self, feed: Feed) -> None:
        feeds = self._feeds[feed.claim.parent]
        feeds.remove(feed)
        if not feeds:
            del self._feeds[feed.claim.parent]

    def served(self, feed: Feed) -> None:
        """A letter of this feed was taken: the other parents come first."""
        self._feeds.move_to_end(feed.claim.parent)

    def firsts(self) -> list[Feed]:
        """Of each parent the feed that has letters waiting and goes first."""
        found = (next((it for it in feeds if it.waiting), None) for feeds in self._feeds.values())
        return [feed for feed in found if feed is not None]

    def waiting(self) -> int:
        """How many letters wait to be taken."""
        return sum(map(self._waiting_of, self._feeds))

    def _waiting_of(self, parent: Parent) -> int:
        return sum(len(feed.waiting) for feed in self._feeds[parent] if not feed.lost)
