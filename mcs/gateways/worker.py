"""An RQ worker that can be told to end, loses its Redis, or dies, without hurting a job.

RQ forks a work-horse for each job. RQ's own horse dies of SIGTERM in the middle of a message;
this one drains. RQ's own worker ends when Redis restarts; this one waits for it.
"""

import contextlib
import gc
import logging
import os
import signal
import threading
import time
from types import FrameType
from typing import Any

import rq
from redis.exceptions import RedisError
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import BaseDeathPenalty
from rq.worker import WorkerStatus

from mcs.gateways import drain, lifeline
from mcs.gateways.jobqueue import (
    HEARTBEAT_SECONDS,
    QUEUES,
    TAKING_TURNS,
    WORKERS_KEY,
    JobQueue,
    NamedJob,
    connect,
)

log = logging.getLogger(__name__)

RECONNECT_SECONDS = (0.2, 0.5, 1, 2)
# A lane makes much and leaves few cycles behind, for which Python would look every 700 objects.
GARBAGE = (10_000, 20, 20)
_DEQUEUE_MARGIN = 15  # RQ blocks for its worker_ttl less this,
_SOCKET_MARGIN = 10  # and wants a socket that is patient for this much longer.


class Worker(rq.Worker):
    """Runs the jobs of JOBS, one at a time, each in a process of its own."""

    max_connection_wait_time = float(RECONNECT_SECONDS[-1])

    def __init__(self, queue: JobQueue, connection: Any) -> None:
        super().__init__(
            list(QUEUES),
            connection=connection,
            job_class=NamedJob,
            serializer=JSONSerializer,
            worker_ttl=HEARTBEAT_SECONDS + _DEQUEUE_MARGIN,
            job_monitoring_interval=HEARTBEAT_SECONDS,
            maintenance_interval=60,
            default_result_ttl=0,
            log_job_description=False,
        )
        self.queue = queue
        self._said_alive = 0.0

    @property
    def told_to_end(self) -> bool:
        return self._stop_requested

    # The worker, which waits for jobs and watches its horse.

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """SIGTERM or SIGINT: end now when idle, else when the horse has drained.

        However often it comes: a host sends it to every process, and a terminal once more.
        """
        if self._stop_requested:
            return
        self._stop_requested = True
        if self.get_state() != WorkerStatus.BUSY:
            raise StopRequested
        log.info("ending when the job at hand has drained")
        self._drain_horse()
        deadline = threading.Timer(drain.PATIENCE_SECONDS, self.kill_horse)
        deadline.daemon = True
        deadline.start()

    def _install_signal_handlers(self) -> None:
        super()._install_signal_handlers()
        # Told while it was still connecting.
        self._stop_requested = self._stop_requested or drain.requested()

    def _drain_horse(self) -> None:
        if self.horse_pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.horse_pid, signal.SIGTERM)

    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """End the horse and what it started. Its own group only, whenever it got one."""
        with contextlib.suppress(ProcessLookupError):
            group = os.getpgid(self.horse_pid)
            if self.horse_pid and group != os.getpgrp():
                os.killpg(group, sig)

    def reorder_queues(self, reference_queue: rq.Queue) -> None:
        """A queue of those that take turns comes last when a job was taken from it."""
        if reference_queue.name in TAKING_TURNS:
            self._ordered_queues.remove(reference_queue)
            self._ordered_queues.append(reference_queue)

    def subscribe(self) -> None:
        """Takes no orders through Redis, and so forks without a second thread."""

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        super().heartbeat(timeout, pipeline)
        if not self.is_horse and time.monotonic() - self._said_alive > HEARTBEAT_SECONDS - 1:
            self._said_alive = time.monotonic()
            self.queue.alive(WORKERS_KEY, self.name)

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """While the horse runs. Redis may be away: the horse goes on all the same."""
        if self._stop_requested:
            self._drain_horse()
        with contextlib.suppress(RedisError):
            super().maintain_heartbeats(job, execution)

    def teardown(self) -> None:
        self.queue.gone(WORKERS_KEY, self.name)
        with contextlib.suppress(RedisError):
            super().teardown()

    # The horse, which runs one job.

    def main_work_horse(self, job: Job, queue: rq.Queue) -> None:
        assert self.pid is not None
        self.death_penalty_class = _NoPenalty
        super().main_work_horse(job, queue)

    def setup_work_horse_signals(self) -> None:
        """SIGTERM, and the worker's death, ask for the end; only the worker's patience kills."""
        assert self.pid is not None
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        drain.on_signals(signal.SIGTERM)
        lifeline.end_with_parent(self.pid, signal.SIGTERM)
        drain.when_orphaned(self.pid)


class _NoPenalty(BaseDeathPenalty):
    """RQ raises its timeouts in the middle of a job; here the worker kills a stuck horse."""

    def setup_death_penalty(self) -> None:
        pass

    def cancel_death_penalty(self) -> None:
        pass


def work(queue: JobQueue, url: str, tls_verify: bool) -> None:
    """Work until told to end. A Redis that is away is waited for."""
    logging.getLogger("rq.worker").addFilter(_not_about_redis)
    gc.collect()
    gc.freeze()  # What is imported by now stays shared with every horse.
    gc.set_threshold(*GARBAGE)
    silence = HEARTBEAT_SECONDS + _SOCKET_MARGIN
    connection = connect(url, tls_verify, silence)
    drain.on_signals(signal.SIGTERM, signal.SIGINT)
    failures = 0
    while not drain.requested():
        began = time.monotonic()
        if _worked_to_the_end(queue, connection):
            return
        failures = 0 if time.monotonic() - began > 60 else failures + 1
        time.sleep(RECONNECT_SECONDS[min(failures, len(RECONNECT_SECONDS)) - 1])


def _worked_to_the_end(queue: JobQueue, connection: Any) -> bool:
    """Whether the worker ended because it was told to; else it lost its Redis."""
    try:
        worker = Worker(queue, connection)
        worker.work(logging_level="WARNING")
    except RedisError:
        queue.health()  # Says once that Redis is away.
        return False
    finally:
        drain.on_signals(signal.SIGTERM, signal.SIGINT)
    return worker.told_to_end


def _not_about_redis(record: logging.LogRecord) -> bool:
    """The job queue says once that Redis is away; RQ would say it every second."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, RedisError) and "to Redis" not in str(record.msg)
