"""The bell: rq-scheduler, as something that may ring twice but never breaks or stays silent.

rq-scheduler by itself moves jobs in steps that a crash can cut, pickles, follows the process's
TZ, ends with its Redis, and holds its lock for 11 s after it was killed. Here a job moves in one
step, by name; what comes round is laid down again and again, each time under an id of its own, so
that any number of clocks, and an emptied Redis, do no harm.
"""

import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from rq.exceptions import DeserializationError, NoSuchJobError
from rq.job import Job
from rq.scripts import acquire_or_refresh_lock, release_lock
from rq_scheduler import Scheduler

from mcs.core import daily
from mcs.gateways.jobqueue import ALARMS, CLOCKS_KEY, JOBS, JobQueue, NamedJob

log = logging.getLogger(__name__)

PLAN_AT = time(6, 0)
LAY_DOWN_EVERY = timedelta(seconds=30)
LOCK_SECONDS = 5


@dataclass(frozen=True)
class Round:
    """A job that comes round, and its next instant after another."""

    name: str
    next: Callable[[datetime], datetime]

    def job_id(self, at: datetime) -> str:
        """One id per job and instant: however many clocks lay it down, it is one job."""
        return f"{self.name.rpartition('.')[2]}-{at:%Y%m%dT%H%M}"


def rounds(zone: ZoneInfo) -> tuple[Round, ...]:
    """The planner at 06:00 in the installation's zone, and each minute as a safety net."""
    return (
        Round("mcs.jobs.plan_day", lambda after: daily.next_daily(after, PLAN_AT, zone)),
        Round("mcs.jobs.plan_day", daily.next_minute),
    )


class Bell(Scheduler):
    """Rings what is due at each ``ring``; the caller says how often, and what time it is."""

    job_class = NamedJob

    def __init__(self, queue: JobQueue, zone: ZoneInfo) -> None:
        name = f"{socket.gethostname()}-{os.getpid()}-{id(self):x}"
        super().__init__(
            ALARMS, connection=queue.connection, interval=1, job_class=NamedJob, name=name
        )
        self.queue = queue
        self.rounds = rounds(zone)
        self._laid_down_at: datetime | None = None

    def ring(self, now: datetime) -> bool:
        """Ring every job whose instant has come. False when Redis is away."""
        answered = self.queue.alive(CLOCKS_KEY, self.name) and self.queue.told(
            lambda: self._ring_alone(now)
        )
        if not answered:
            self._laid_down_at = None
        elif self._laid_down_at is None or now - self._laid_down_at >= LAY_DOWN_EVERY:
            self._lay_down(now)
        return answered

    def stop(self) -> None:
        """Say that this clock has ended."""
        self.queue.gone(CLOCKS_KEY, self.name)

    def acquire_lock(self) -> bool:
        taken = acquire_or_refresh_lock(
            self.connection, self.scheduler_lock_key, self.name, LOCK_SECONDS
        )
        self._lock_acquired = taken != "taken"
        return self._lock_acquired

    def remove_lock(self) -> None:
        if self._lock_acquired:
            release_lock(self.connection, self.scheduler_lock_key, self.name)
        self._lock_acquired = False

    def _ring_alone(self, now: datetime) -> None:
        if not self.acquire_lock():
            return
        try:
            due = self.connection.zrangebyscore(self.scheduled_jobs_key, 0, now.timestamp())
            for job_id in due:
                self._ring_one(job_id)
        finally:
            self.remove_lock()

    def _ring_one(self, job_id: bytes) -> None:
        job = self._found(job_id)
        if job is None:
            self.connection.zrem(self.scheduled_jobs_key, job_id)
        else:
            self.queue.enqueue(str(job.func_name), *job.args, job_id=job.id)

    def _found(self, job_id: bytes) -> Job | None:
        """The job of that id, or None for what is gone or not ours."""
        try:
            job = NamedJob.fetch(job_id.decode(), connection=self.connection)
            if job.func_name in JOBS:
                return job
        except NoSuchJobError:
            return None
        except (DeserializationError, ValueError, TypeError, LookupError) as error:
            log.warning("a job in Redis cannot be read (%s): dropped", type(error).__name__)
            return None
        log.warning("a job in Redis names %.80r, which is not a job of MCS: dropped", job.func_name)
        return None

    def _lay_down(self, now: datetime) -> None:
        """Put what comes round next into Redis, which may have been emptied since."""
        self._laid_down_at = now
        for each in self.rounds:
            at = each.next(now)
            self.queue.enqueue_at(at, each.name, job_id=each.job_id(at))
