"""Ringing workers through a real Redis, and without one."""

import json
import logging
import time
import zlib
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from rq import Queue
from rq.utils import import_attribute, utcformat
from rq_scheduler import Scheduler

from mcs.gateways import clock
from mcs.gateways.jobqueue import (
    ALARMS,
    CLOCKS_KEY,
    JOBS,
    QUEUES,
    SLICES,
    WORKERS_KEY,
    JobQueue,
    NamedJob,
    QueueHealth,
    RefusedJob,
)
from tests.running.conftest import OwnRedis

PLAN, SLICE = "mcs.jobs.plan_day", "mcs.jobs.deliver_slice"


@pytest.fixture
def queue(redis_url: str) -> JobQueue:
    return JobQueue(redis_url)


def waiting(queue: JobQueue, name: str) -> list[str]:
    return Queue(name, connection=queue.connection).job_ids


def rung_at(queue: JobQueue, job_id: str) -> float | None:
    return queue.connection.zscore(Scheduler.scheduled_jobs_key, job_id)


def test_every_job_has_a_queue_that_workers_look_at() -> None:
    assert {kind.queue for kind in JOBS.values()} == set(QUEUES)


def test_a_job_waits_in_its_queue_with_its_arguments(queue: JobQueue) -> None:
    assert queue.enqueue(SLICE, 7, "a", job_id="slice-7")
    assert waiting(queue, "slices") == ["slice-7"]
    job = NamedJob.fetch("slice-7", connection=queue.connection)
    assert (job.func_name, list(job.args), job.origin) == (SLICE, [7, "a"], "slices")


def test_what_is_stored_is_json(queue: JobQueue) -> None:
    queue.enqueue(SLICE, 7, job_id="slice-7")
    stored = zlib.decompress(queue.connection.hget("rq:job:slice-7", "data"))
    assert json.loads(stored) == [SLICE, None, [7], {}]


def test_an_id_that_waits_is_not_queued_twice(queue: JobQueue) -> None:
    assert [queue.enqueue(PLAN, job_id="plan") for _ in range(3)] == [True] * 3
    assert waiting(queue, ALARMS) == ["plan"]


def test_whether_jobs_wait_in_other_queues(queue: JobQueue) -> None:
    assert not queue.others_wait(than=SLICES)
    queue.enqueue(SLICE, 7, job_id="slice-7")
    queue.enqueue_at(clock.now() + timedelta(days=1), PLAN, job_id="tomorrow")
    assert not queue.others_wait(than=SLICES)
    assert queue.others_wait(than=ALARMS)
    queue.enqueue("mcs.jobs.run_actions", 0, job_id="run-actions-0")
    assert waiting(queue, "actions") == ["run-actions-0"]
    assert queue.others_wait(than=SLICES)


def test_an_id_that_runs_is_not_queued_twice(queue: JobQueue) -> None:
    queue.enqueue(PLAN, job_id="plan")
    start(queue, "plan")
    queue.enqueue(PLAN, job_id="plan")
    assert waiting(queue, ALARMS) == []


@pytest.mark.parametrize(
    "heartbeat",
    [
        pytest.param("2026-01-01T00:00:00.000000Z", id="long ago"),
        pytest.param("2999-01-01T00:00:00.000000Z", id="by a host whose clock is wrong"),
    ],
)
def test_a_job_whose_worker_died_is_queued_again(queue: JobQueue, heartbeat: str) -> None:
    queue.enqueue(PLAN, job_id="plan")
    start(queue, "plan", heartbeat)
    queue.enqueue(PLAN, job_id="plan")
    assert waiting(queue, ALARMS) == ["plan"]


def test_a_job_that_was_taken_and_never_begun_is_queued_again(queue: JobQueue) -> None:
    queue.enqueue(PLAN, job_id="plan")
    queue.connection.lpop("rq:queue:alarms")
    queue.enqueue(PLAN, job_id="plan")
    assert waiting(queue, ALARMS) == []  # Its worker is given a moment.
    queue.connection.hset("rq:job:plan", "enqueued_at", "2026-01-01T00:00:00.000000Z")
    queue.enqueue(PLAN, job_id="plan")
    assert waiting(queue, ALARMS) == ["plan"]


def test_a_failed_job_is_queued_again_and_forgotten_as_failed(queue: JobQueue) -> None:
    queue.enqueue(PLAN, job_id="plan")
    queue.connection.lpop("rq:queue:alarms")
    job = NamedJob.fetch("plan", connection=queue.connection)
    job.failed_job_registry.add(job, ttl=100)
    job.set_status("failed")
    queue.enqueue(PLAN, job_id="plan")
    assert waiting(queue, ALARMS) == ["plan"]
    assert job.failed_job_registry.get_job_ids() == []
    assert queue.connection.ttl("rq:job:plan") == -1


def test_a_later_job_waits_with_the_clock_and_never_for_less(
    queue: JobQueue, now: datetime
) -> None:
    at = now + timedelta(seconds=5, milliseconds=1)
    assert queue.enqueue_at(at, "mcs.jobs.send_emailer", 3, job_id="emailer-3")
    assert waiting(queue, ALARMS) == []
    assert rung_at(queue, "emailer-3") == now.timestamp() + 6


def test_a_later_job_is_moved_cancelled_or_sent_now(queue: JobQueue, now: datetime) -> None:
    name = "mcs.jobs.send_emailer"
    queue.enqueue_at(now + timedelta(hours=1), name, 3, job_id="emailer-3")
    queue.enqueue_at(now + timedelta(hours=2), name, 3, job_id="emailer-3")
    assert rung_at(queue, "emailer-3") == now.timestamp() + 7200
    assert queue.cancel("emailer-3")
    assert rung_at(queue, "emailer-3") is None
    queue.enqueue_at(now + timedelta(hours=1), name, 3, job_id="emailer-3")
    queue.enqueue(name, 3, job_id="emailer-3")
    assert rung_at(queue, "emailer-3") is None
    assert waiting(queue, ALARMS) == ["emailer-3"]


def test_cancelling_takes_a_waiting_job_out(queue: JobQueue) -> None:
    queue.enqueue(PLAN, job_id="plan")
    assert queue.cancel("plan")
    assert queue.cancel("never-there")
    assert waiting(queue, ALARMS) == []
    assert not queue.connection.exists("rq:job:plan")


def test_an_instant_without_a_zone_is_refused(queue: JobQueue, now: datetime) -> None:
    with pytest.raises(ValueError, match="zone"):
        queue.enqueue_at(now.replace(tzinfo=None), PLAN, job_id="plan")


@pytest.mark.parametrize(
    "data",
    [
        ["os.system", None, ["true"], {}],
        ["mcs.jobs.tick.__globals__", None, [], {}],
        ["mcs.jobs", None, [], {}],
        [PLAN, "an instance", [], {}],
        [PLAN, None, [], {"session": "mine"}],
        [["os.system"], None, [], {}],
        [None, None, [], {}],
    ],
)
def test_what_is_not_our_job_is_refused(queue: JobQueue, data: list[object]) -> None:
    stranger(queue, json.dumps(data).encode())
    with pytest.raises(RefusedJob):
        _ = NamedJob.fetch("stranger", connection=queue.connection).func


def test_callbacks_and_webhooks_found_in_redis_are_dropped(queue: JobQueue) -> None:
    queue.enqueue(PLAN, job_id="plan")
    queue.connection.hset(
        "rq:job:plan",
        mapping={
            "success_callback_name": "os.abort",
            "failure_callback_name": "os.abort",
            "stopped_callback_name": "os.abort",
            "webhooks": json.dumps([{"url": "http://10.0.0.1/", "job_status": "finished"}]),
            "retries_left": "3",
        },
    )
    job = NamedJob.fetch("plan", connection=queue.connection)
    assert (job.success_callback, job.failure_callback, job.stopped_callback) == (None, None, None)
    assert (job.webhooks, job.retries_left) == ([], None)


def test_health_counts_those_who_said_lately_that_they_live(queue: JobQueue) -> None:
    assert queue.health() == QueueHealth(redis=True, workers=0, clock=False)
    queue.alive(WORKERS_KEY, "a")
    queue.alive(WORKERS_KEY, "b")
    queue.alive(CLOCKS_KEY, "c")
    assert queue.health() == QueueHealth(redis=True, workers=2, clock=True)
    queue.gone(WORKERS_KEY, "a")
    queue.connection.zadd(CLOCKS_KEY, {"c": 1.0})
    assert queue.health() == QueueHealth(redis=True, workers=1, clock=False)


def test_without_redis_nothing_is_raised_and_it_is_said_once(
    now: datetime, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    queue = JobQueue(f"unix://{tmp_path}/nobody.sock")
    assert not queue.enqueue(PLAN, job_id="plan")
    assert not queue.enqueue_at(now, PLAN, job_id="plan")
    assert not queue.cancel("plan")
    assert not queue.alive(WORKERS_KEY, "a")
    assert not queue.others_wait(than=SLICES)
    assert queue.health() == QueueHealth(redis=False, workers=0, clock=False)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert said[0].startswith("Redis does not answer")


def test_a_redis_that_came_back_is_used_again(
    own_redis: OwnRedis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    queue = JobQueue(own_redis.url)
    assert queue.enqueue(PLAN, job_id="plan")
    own_redis.stop()
    assert not queue.enqueue(PLAN, job_id="plan")
    own_redis.start()
    assert queue.enqueue(PLAN, job_id="plan")
    assert waiting(queue, ALARMS) == ["plan"]
    assert "Redis answers again" in caplog.text


def test_a_redis_that_hangs_costs_its_patience_once(own_redis: OwnRedis) -> None:
    queue = JobQueue(own_redis.url)
    own_redis.process.send_signal(19)
    queue.connection.connection_pool.connection_kwargs["socket_timeout"] = 0.2
    began = time.monotonic()
    assert [queue.enqueue(PLAN, job_id=f"plan-{number}") for number in range(50)] == [False] * 50
    assert time.monotonic() - began < 50 * 0.2  # What asking it each time would have cost.
    own_redis.process.send_signal(18)


def start(queue: JobQueue, job_id: str, heartbeat: str = "") -> None:
    """As a worker leaves it in Redis once it has begun."""
    queue.connection.lpop("rq:queue:alarms")
    state = {"status": "started", "last_heartbeat": heartbeat or utcformat(clock.now())}
    queue.connection.hset(f"rq:job:{job_id}", mapping=state)


def stranger(queue: JobQueue, data: bytes) -> None:
    """A job that somebody else wrote into our Redis."""
    fields = {"data": data, "origin": ALARMS, "status": "queued", "timeout": "60"}
    queue.connection.hset("rq:job:stranger", mapping=fields)
    queue.connection.rpush("rq:queue:alarms", "stranger")


def test_the_names_are_those_of_real_functions() -> None:
    pytest.importorskip("mcs.jobs")
    assert all(callable(import_attribute(name)) for name in JOBS)
