"""Turns: run the actions that are due for a while, in a worker that has other jobs as well."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from mcs.services import claims
from mcs.services.runners import Runner, Surroundings

# After this long other jobs get their turn; the clock rings again for what is left.
TURN = timedelta(seconds=30)
# How long a worker that is told to end waits for the callbacks that are running. What is not back
# by then runs again, under the same key, when its lease has ended.
DRAIN_SECONDS = 8.0
CALLS_AT_ONCE = 50
LOOK_SECONDS = 0.1
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Turn:
    """``stopping`` is asked whether the worker is to end; ``call_another`` has a further worker
    help, since there is more than one runs at once."""

    given: Surroundings
    stopping: Callable[[], bool]
    call_another: Callable[[], None]
    calls_at_once: int = CALLS_AT_ONCE


def run(turn: Turn) -> None:
    """Run what is due until nothing is, the turn is over, or the worker is to end."""
    runner = Runner(turn.given, turn.calls_at_once, POLL_SECONDS)
    ends = turn.given.now() + TURN
    helped = False
    runner.start()
    while not turn.stopping() and turn.given.now() < ends and (runner.busy or _due(turn.given)):
        if runner.busy >= turn.calls_at_once and not helped:
            helped = True
            turn.call_another()
        time.sleep(LOOK_SECONDS)
    _end(runner, turn.stopping)


def _due(given: Surroundings) -> bool:
    with given.sessions() as session:
        at = claims.next_due(session, given.callbacks)
    return at is not None and at <= given.now()


def _end(runner: Runner, stopping: Callable[[], bool]) -> None:
    """Wait for what is running: to its end, or as long as a worker that is to end may."""
    waiting = threading.Thread(target=runner.stop, name="mcs-turn-end", daemon=True)
    waiting.start()
    told_at: float | None = None
    while waiting.is_alive():
        waiting.join(LOOK_SECONDS)
        if told_at is None and stopping():
            told_at = time.monotonic()
        if told_at is not None and time.monotonic() - told_at > DRAIN_SECONDS:
            return
