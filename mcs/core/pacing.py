"""Pacing: so many messages a second, spread evenly, whoever sends them.

Time is cut into slots of 1/rate. A worker reserves a short window of them (mcs.services.throttles)
and starts one message per slot, so that the rate holds across workers and restarts, and a pause is
not caught up with.
"""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta

# A window: short enough that a worker which dies, or has nothing more to send, wastes little.
WINDOW = timedelta(milliseconds=250)
# A slot unused for so long is gone, so that a worker held up by something else makes no burst.
KEPT = timedelta(seconds=1)


def window_size(rate: float) -> int:
    """How many slots a worker reserves at once at ``rate`` messages a second."""
    return max(1, round(rate * WINDOW.total_seconds()))


def window_length(rate: float, slots: int) -> timedelta:
    """How long that many slots last."""
    return timedelta(seconds=slots / rate)


@dataclass
class Allowance:
    """The slots one worker holds of one throttle of ``rate`` messages a second."""

    rate: float
    _slots: deque[datetime] = field(default_factory=deque)

    def add(self, start: datetime, slots: int) -> None:
        """A window that was reserved, from ``start`` on."""
        step = window_length(self.rate, 1)
        self._slots.extend(start + step * number for number in range(slots))

    def next_slot(self) -> datetime | None:
        """When the next message may start; None when no slot is held."""
        return self._slots[0] if self._slots else None

    def may_go(self, now: datetime) -> bool:
        """Whether a message may start now."""
        while self._slots and self._slots[0] < now - KEPT:
            self._slots.popleft()
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
