"""The job queue: names and ids go into Redis, and a worker is rung. Redis rings, SQL remembers.

Nothing here raises because Redis is away: a ring is lost at most, and the clock asks SQL again
within a second. A job is a *name* from JOBS with plain arguments, in JSON. What else is found in
Redis is refused, since whoever can write to Redis could otherwise name ``os.system``.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar

from redis import Redis
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as RedisAway
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisSilent
from redis.retry import Retry
from rq import Queue
from rq.job import Job, JobStatus
from rq.results import Result
from rq.serializers import JSONSerializer
from rq.utils import import_attribute, utcformat
from rq_scheduler import Scheduler

from mcs.gateways import clock

T = TypeVar("T")

log = logging.getLogger(__name__)

ALARMS, IMPORTS, SLICES, ACTIONS = "alarms", "imports", "slices", "actions"
# In the order in which a worker looks at them; but the last ones take turns, since either may be
# full for hours.
QUEUES = (ALARMS, IMPORTS, SLICES, ACTIONS)
TAKING_TURNS = (SLICES, ACTIONS)


class JobKind(NamedTuple):
    """Where a job waits, and after how many seconds its worker takes it for stuck."""

    queue: str
    stuck_after: int


JOBS: dict[str, JobKind] = {
    "mcs.jobs.plan_day": JobKind(ALARMS, 600),
    "mcs.jobs.tick": JobKind(ALARMS, 600),
    "mcs.jobs.send_emailer": JobKind(ALARMS, 3600),
    "mcs.jobs.start_emails": JobKind(ALARMS, 3600),
    "mcs.jobs.import_contacts": JobKind(IMPORTS, 6 * 3600),
    "mcs.jobs.enrol_batch": JobKind(IMPORTS, 3600),
    "mcs.jobs.deliver_slice": JobKind(SLICES, 3600),
    "mcs.jobs.run_actions": JobKind(ACTIONS, 3600),
}

# A worker says every 5 s that it lives, and that its job does; the clock says so every second.
HEARTBEAT_SECONDS = 5
ALIVE_SECONDS = 20
# Between taking a job from its list and beginning it a worker needs milliseconds.
BEGIN_SECONDS = 3
FAILURES_KEPT_SECONDS = 7 * 24 * 3600
WORKERS_KEY, CLOCKS_KEY = "mcs:workers", "mcs:clocks"

# A hanging Redis may cost a web request this much once, and then nothing for the rest.
SOCKET_SECONDS = 3.0
REST_SECONDS = 2.0

_RING = """
local job, list, scheduled, failed, queues = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local runs, results = KEYS[6], KEYS[7]
local id, at, alive_since, alive_until, taken_since = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local waiting = redis.call('LPOS', list, id)
if waiting and redis.call('EXISTS', job) == 1 then return 0 end
local state = redis.call('HMGET', job, 'status', 'last_heartbeat', 'enqueued_at')
-- A sign of life from the future is one of a host whose clock is wrong, and says nothing.
if state[1] == 'started' and state[2] and state[2] >= alive_since and state[2] <= alive_until then
    return 0
end
-- Taken from the list a moment ago: its worker is about to begin it.
if at == '' and state[1] == 'queued' and state[3] and state[3] >= taken_since and not waiting then
    return 0
end
redis.call('DEL', job, runs, results)
redis.call('HSET', job, unpack(ARGV, 6))
redis.call('ZREM', failed, id)
if at ~= '' then
    redis.call('ZADD', scheduled, at, id)
    return 1
end
redis.call('ZREM', scheduled, id)
redis.call('SADD', queues, list)
if not waiting then redis.call('RPUSH', list, id) end
return 1
"""


class RefusedJob(Exception):
    """Something in Redis that is not one of ours; it is not run."""


class NamedJob(Job):
    """A job that can only be a function of JOBS, called with plain positional arguments."""

    def __init__(
        self, id: str | None = None, connection: Any = None, serializer: Any = None
    ) -> None:
        super().__init__(id, connection, JSONSerializer)

    def restore(self, raw_data: Any) -> None:
        """What Redis holds, less everything else that RQ would import, call or repeat."""
        super().restore(raw_data)
        self._success_callback_name = None
        self._failure_callback_name = None
        self._stopped_callback_name = None
        self.webhooks = []
        self.retries_left = None
        self.repeats_left = None
        self.timeout = self.timeout or HEARTBEAT_SECONDS

    @property
    def func(self) -> Callable[..., object]:
        """The function to run. Raises RefusedJob for what is not in JOBS."""
        name = self.func_name
        if not isinstance(name, str) or name not in JOBS or self.instance or self.kwargs:
            raise RefusedJob(f"job {self.id} names {str(name)[:80]!r}, which is not a job of MCS")
        function: Callable[..., object] = import_attribute(name)
        return function


@dataclass(frozen=True)
class QueueHealth:
    """Whether Redis answers, how many workers live, and whether a clock does."""

    redis: bool
    workers: int
    clock: bool


class JobQueue:
    """Rings workers through Redis. Makes its connection when first needed; safe over threads."""

    def __init__(self, url: str, tls_verify: bool = True) -> None:
        self.connection = connect(url, tls_verify)
        self._ring = self.connection.register_script(_RING)
        self._away = False
        self._rest_until = 0.0

    def enqueue(self, name: str, *args: object, job_id: str) -> bool:
        """Have a worker run the job soon. False when Redis could not be told.

        An id that waits or runs is not queued twice; one that was scheduled for later, failed, or
        lost its worker is queued now.
        """
        return self.told(lambda: self._send(name, args, job_id, None))

    def enqueue_at(self, at: datetime, name: str, *args: object, job_id: str) -> bool:
        """Have the clock ring the job at an instant, never before it. False when Redis is away.

        An id scheduled already is moved to the new instant; one that waits or runs stays so.
        """
        if at.tzinfo is None:
            raise ValueError("enqueue_at needs an instant with a zone")
        return self.told(lambda: self._send(name, args, job_id, at))

    def cancel(self, job_id: str) -> bool:
        """Take a job that has not begun out of Redis. False when Redis is away."""
        return self.told(lambda: self._withdraw(job_id))

    def others_wait(self, than: str) -> bool:
        """Whether jobs wait for a worker in another queue. False when Redis is away."""

        def look() -> bool:
            others = [name for name in QUEUES if name != than]
            keys = [Queue(name, connection=self.connection).key for name in others]
            return self.connection.exists(*keys) > 0

        return self._answer(look) is True

    def alive(self, key: str, name: str) -> bool:
        """Say that a worker (WORKERS_KEY) or a clock (CLOCKS_KEY) of this name lives."""

        def say() -> None:
            moment = self._server_time()
            with self.connection.pipeline() as pipeline:
                pipeline.zadd(key, {name: moment})
                pipeline.zremrangebyscore(key, 0, moment - ALIVE_SECONDS)
                pipeline.execute()

        return self.told(say)

    def gone(self, key: str, name: str) -> bool:
        """Say that a worker or a clock has ended."""
        return self.told(lambda: self.connection.zrem(key, name))

    def health(self) -> QueueHealth:
        """Asks Redis; never raises."""

        def count() -> QueueHealth:
            oldest = self._server_time() - ALIVE_SECONDS
            with self.connection.pipeline(transaction=False) as pipeline:
                pipeline.zcount(WORKERS_KEY, oldest, "+inf")
                pipeline.zcount(CLOCKS_KEY, oldest, "+inf")
                workers, clocks = pipeline.execute()
            return QueueHealth(redis=True, workers=int(workers), clock=clocks > 0)

        return self._answer(count) or QueueHealth(redis=False, workers=0, clock=False)

    def told(self, ask: Callable[[], object]) -> bool:
        """Say something to Redis. False when it is away, which the log says once."""
        return self._answer(lambda: (ask(), True)[1]) is True

    def _send(self, name: str, args: tuple[object, ...], job_id: str, at: datetime | None) -> None:
        kind = JOBS[name]
        queue = Queue(kind.queue, connection=self.connection)
        job = NamedJob.create(
            name,
            args=args,
            id=job_id,
            connection=self.connection,
            origin=kind.queue,
            timeout=kind.stuck_after,
            result_ttl=0,
            failure_ttl=FAILURES_KEPT_SECONDS,
            status=JobStatus.SCHEDULED if at else JobStatus.QUEUED,
        )
        moment = clock.now()
        job.enqueued_at = moment
        fields = [part for field in job.to_dict().items() for part in field]
        self._ring(
            keys=[
                job.key,
                queue.key,
                Scheduler.scheduled_jobs_key,
                queue.failed_job_registry.key,
                Queue.redis_queues_keys,
                job.execution_registry.key,
                Result.get_key(job_id),
            ],
            args=[
                job_id,
                math.ceil(at.timestamp()) if at else "",
                utcformat(moment - timedelta(seconds=ALIVE_SECONDS)),
                utcformat(moment + timedelta(seconds=ALIVE_SECONDS)),
                utcformat(moment - timedelta(seconds=BEGIN_SECONDS)),
                *fields,
            ],
        )

    def _withdraw(self, job_id: str) -> None:
        key = NamedJob.key_for(job_id)
        running = self.connection.hget(key, "status") == b"started"
        with self.connection.pipeline() as pipeline:
            pipeline.zrem(Scheduler.scheduled_jobs_key, job_id)
            for name in QUEUES:
                pipeline.lrem(Queue.redis_queue_namespace_prefix + name, 0, job_id)
            if not running:
                pipeline.delete(key)
            pipeline.execute()

    def _server_time(self) -> float:
        """Redis's clock: workers on many hosts need not agree about theirs."""
        seconds, microseconds = self.connection.time()
        return float(seconds) + float(microseconds) / 1e6

    def _answer(self, ask: Callable[[], T]) -> T | None:
        """What Redis says, or None when it does not; said once in the log, not each time."""
        if time.monotonic() < self._rest_until:
            return None
        try:
            answer = ask()
        except RedisError as error:
            if isinstance(error, RedisSilent):
                self._rest_until = time.monotonic() + REST_SECONDS
            if not self._away:
                log.warning("Redis does not answer (%s): MCS goes on from SQL", in_short(error))
            self._away = True
            return None
        if self._away:
            log.info("Redis answers again")
        self._away = False
        return answer


def connect(url: str, tls_verify: bool = True, silence: float = SOCKET_SECONDS) -> Redis:
    """A Redis client that connects when first used, and gives up after ``silence`` seconds.

    ``tls_verify=False`` is for hosts whose rediss:// shows a certificate they signed themselves.
    """
    options: dict[str, Any] = {
        "socket_timeout": silence,
        # Once more after a connection that a restart cut; a silent Redis is not asked again.
        "retry": Retry(ConstantBackoff(0), 1, supported_errors=(RedisAway,)),
        "health_check_interval": 15,
        # Else it looks its own version up on disk, 5 ms for each connection of each horse.
        "driver_info": None,
    }
    if not url.startswith("unix://"):
        options["socket_connect_timeout"] = silence
    if url.startswith("rediss://") and not tls_verify:
        options |= {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
    return Redis.from_url(url, **options)


def in_short(error: BaseException) -> str:
    """The first line of an error, for a log."""
    return (str(error).splitlines() or [type(error).__name__])[0]
