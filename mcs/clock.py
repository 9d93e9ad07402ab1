"""The clock process: each second it rings what is due in Redis, and has SQL asked what is due.

Any number of clocks may run. While Redis is away the tick goes on all the same.
"""

import logging
import signal
import sys
import time
from collections.abc import Callable
from datetime import datetime

from rq.utils import import_attribute

from mcs import config
from mcs.gateways import clock, drain, journal
from mcs.gateways.bell import Bell
from mcs.gateways.jobqueue import JobQueue

log = logging.getLogger(__name__)

TICK = "mcs.jobs.tick"


def main() -> int:
    """Run until SIGTERM or SIGINT."""
    journal.begin()
    try:
        settings = config.load()
    except config.BadSetting as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    tick: Callable[[], None] = import_attribute(TICK)
    drain.on_signals(signal.SIGTERM, signal.SIGINT)
    bell = Bell(JobQueue(settings.redis_url, settings.redis_tls_verify), settings.timezone)
    log.info("the clock runs; the planner's hour is 06:00 %s", settings.timezone.key)
    run(bell, tick)
    return 0


def run(bell: Bell, tick: Callable[[], None]) -> None:
    """Turn once a second, on the second, until told to end."""
    watched = _Watched(tick)
    while not drain.requested():
        bell.ring(clock.now())
        watched()
        time.sleep(_to_next_second(clock.now()))
    bell.stop()


def _to_next_second(now: datetime) -> float:
    return 1 - now.microsecond / 1_000_000


class _Watched:
    """A tick that may fail, say because the database is away: said once, and tried again."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self.tick = tick
        self.trouble = ""

    def __call__(self) -> None:
        try:
            self.tick()
        except Exception as error:
            self._say(error)
        else:
            if self.trouble:
                log.info("the tick works again")
            self.trouble = ""

    def _say(self, error: Exception) -> None:
        trouble = f"{type(error).__name__}: {error}"
        if trouble != self.trouble:
            log.error("the tick failed, and is tried again each second", exc_info=error)
        self.trouble = trouble


if __name__ == "__main__":
    sys.exit(main())
