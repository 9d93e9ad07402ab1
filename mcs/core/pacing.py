"""Pacing: so many messages a second, spread evenly, whoever sends them.

Time is cut into slots of 1/rate. A worker reserves a short window of them (mcs.services.throttles)
and starts one message per slot, so that the rate holds across workers and restarts. What a moment's
hold-up wasted is made up for gently, by slots that are a little denser; a pause is not.
"""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta

# A window: short enough that a worker which dies, or has nothing more to send, wastes little.
WINDOW = timedelta(milliseconds=250)
# So much is made up for, and so much faster at most: a worker's turn ends and another's begins.
MOST_BEHIND = timedelta(seconds=3)
CATCHING_UP = 1.1
# Of a rate that was changed: too long to wait for its end.
LONG_SLOT = timedelta(seconds=1)
# Further ahead than all workers together reserve, 1,200 of them, or 100 where a window is a single
# slot of seconds: the clock was set back since.
FARTHEST = timedelta(minutes=5)
FARTHEST_WINDOWS = 100


def window_size(rate: float) -> int:
    """How many slots a worker reserves at once at ``rate`` messages a second."""
    return max(1, round(rate * WINDOW.total_seconds()))


def window_length(rate: float, slots: int) -> timedelta:
    """How long that many slots last."""
    return timedelta(seconds=slots / rate)


@dataclass(frozen=True)
class Window:
    """Slots that are reserved: when the first begins, when the last ends, and by how much the
    messages of this rate are behind it afterwards."""

    start: datetime
    end: datetime
    slots: int
    behind: timedelta


def next_window(now: datetime, next_at: datetime, behind: timedelta, rate: float) -> Window:
    """The window to reserve, where slots before ``next_at`` are given away."""
    slots = window_size(rate)
    length = window_length(rate, slots)
    farthest = max(FARTHEST, length * FARTHEST_WINDOWS)
    if next_at > now + farthest or next_at < now - MOST_BEHIND:
        return Window(now, now + length, slots, timedelta())
    start = max(next_at, now)
    behind = min(behind + (start - next_at), MOST_BEHIND)
    made_up = min(behind, length * (1 - 1 / CATCHING_UP))
    return Window(start, start + length - made_up, slots, behind - made_up)


def given_back(behind: timedelta, rate: float, slots: int) -> timedelta:
    """By how much the messages are behind when that many slots were not used."""
    return min(behind + window_length(rate, slots), MOST_BEHIND)


def next_after_change(
    now: datetime, next_at: datetime, was: float, rate: float | None, slots: int
) -> datetime:
    """From when on slots may be given away after the rate ``was`` another, where a worker gives
    back so many of that one's, and slots before ``next_at`` are given away.

    Each worker gives back what it holds, in whatever order, so that together they begin at once.
    Where a slot lasted long, though, nobody waits for its end, nor for another worker to give its
    one back: the first begins anew, and the others find its slots.
    """
    if window_length(was, 1) <= LONG_SLOT:
        return max(next_at - window_length(was, slots), now)
    soon = now if rate is None else now + window_length(rate, 1)
    return soon if next_at > soon + LONG_SLOT else next_at


@dataclass
class Allowance:
    """The slots one worker holds of one throttle of ``rate`` messages a second.

    Slots may be added, and told of, by another thread than uses them.
    """

    rate: float
    _slots: deque[datetime] = field(default_factory=deque)
    _missed: int = 0
    _told: int = 0

    def add(self, window: Window) -> None:
        """A window that was reserved."""
        step = (window.end - window.start) / window.slots
        self._slots.extend(window.start + step * number for number in range(window.slots))

    def next_slot(self) -> datetime | None:
        """When the next message may start; None when no slot is held."""
        return self._slots[0] if self._slots else None

    def may_go(self, now: datetime) -> bool:
        """Whether a message may start now.

        A slot missed for long is not used any more: a worker that was held up makes no burst.
        """
        kept = max(WINDOW, window_length(self.rate, 1))
        while self._slots and self._slots[0] < now - kept:
            self._slots.popleft()
            self._missed += 1
        return bool(self._slots) and self._slots[0] <= now

    def use(self) -> None:
        """A message starts."""
        self._slots.popleft()

    def is_near(self, now: datetime) -> bool:
        """Whether a message may start now, or within a window."""
        return bool(self._slots) and self._slots[0] <= now + WINDOW

    def wants_more(self, now: datetime) -> bool:
        """Whether to reserve another window, so that sending does not stop for it."""
        return not self._slots or self._slots[-1] < now + WINDOW

    def missed(self) -> int:
        """How many slots were not used in time, and nobody was told of."""
        return self._missed - self._told

    def told(self, missed: int) -> None:
        """So many that were missed are written down, and will be made up for."""
        self._told += missed

    def forsake(self) -> int:
        """Give all slots up, since their rate holds no longer; how many they are."""
        slots = len(self._slots)
        self._slots.clear()
        return slots

    def leave(self) -> None:
        """Give all slots up: they are missed."""
        self._missed += len(self._slots)
        self._slots.clear()
