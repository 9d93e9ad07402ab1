"""A real worker with real horses: it drains, refuses strangers, and outlives its Redis."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from mcs.gateways.jobqueue import JobQueue
from tests.conftest import wait_until
from tests.running.conftest import OwnRedis, Start
from tests.running.rig import ACTION, DIE, NAP, NOTE, URGENT

pytestmark = pytest.mark.usefixtures("rig_jobs")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "lines"


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def begin_nap(queue: JobQueue, file: Path) -> int:
    """The process id of the horse that naps."""
    queue.enqueue(NAP, str(file), job_id="nap")
    wait_until(lambda: len(lines(file)) == 1)
    return int(lines(file)[0].split()[1])


def lives(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_alarms_go_before_slices_and_results_are_not_kept(
    redis_url: str, start: Start, file: Path
) -> None:
    queue = JobQueue(redis_url)
    queue.enqueue(NOTE, str(file), "slice", job_id="slice")
    queue.enqueue(URGENT, str(file), "alarm", job_id="alarm")
    start("worker", redis_url)
    wait_until(lambda: lines(file) == ["alarm", "slice"])
    wait_until(lambda: queue.connection.keys("rq:job:*") == [])
    assert queue.health().workers == 1


def test_slices_and_actions_take_turns_behind_alarms(
    redis_url: str, start: Start, file: Path
) -> None:
    queue = JobQueue(redis_url)
    for number in range(3):
        queue.enqueue(NOTE, str(file), f"slice {number}", job_id=f"slice-{number}")
    for number in range(3):
        queue.enqueue(ACTION, str(file), f"action {number}", job_id=f"action-{number}")
    for number in range(2):
        queue.enqueue(URGENT, str(file), f"alarm {number}", job_id=f"alarm-{number}")
    start("worker", redis_url)
    wait_until(lambda: len(lines(file)) == 8)
    turns = [f"{kind} {number}" for number in range(3) for kind in ("slice", "action")]
    assert lines(file) == ["alarm 0", "alarm 1", *turns]


def test_a_job_that_names_something_else_is_not_run(
    redis_url: str, start: Start, file: Path, tmp_path: Path
) -> None:
    queue = JobQueue(redis_url)
    evil = tmp_path / "evil"
    for number, function in enumerate(["os.system", "posix.system", "subprocess.call"]):
        data = json.dumps([function, None, [f"touch {evil}"], {}])
        fields = {"data": data, "origin": "alarms", "status": "queued", "timeout": "60"}
        queue.connection.hset(f"rq:job:evil-{number}", mapping=fields)
        queue.connection.rpush("rq:queue:alarms", f"evil-{number}")
    pickled = {"data": b"\x80\x04N.", "origin": "alarms", "timeout": "60"}
    queue.connection.hset("rq:job:pickle", mapping=pickled)
    queue.connection.rpush("rq:queue:alarms", "pickle", "../../x", "gone")
    queue.enqueue(NOTE, str(file), "after", job_id="after")
    start("worker", redis_url)
    wait_until(lambda: lines(file) == ["after"])
    assert not evil.exists()


def test_a_horse_that_dies_fails_its_job_and_no_other(
    redis_url: str, start: Start, file: Path
) -> None:
    queue = JobQueue(redis_url)
    start("worker", redis_url)
    queue.enqueue(DIE, job_id="die")
    queue.enqueue(NOTE, str(file), "after", job_id="after")
    wait_until(lambda: lines(file) == ["after"])
    assert queue.connection.hget("rq:job:die", "status") == b"failed"
    assert queue.enqueue(DIE, job_id="die")


def test_sigterm_ends_an_idle_worker_at_once(redis_url: str, start: Start) -> None:
    worker = start("worker", redis_url)
    wait_until(lambda: JobQueue(redis_url).health().workers == 1)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=3) == 0
    assert JobQueue(redis_url).health().workers == 0


@pytest.mark.parametrize("everyone", [True, False])
def test_sigterm_drains_the_job_at_hand(
    redis_url: str, start: Start, file: Path, everyone: bool
) -> None:
    """A host sends it to every process and maybe twice; a terminal to the worker only."""
    worker = start("worker", redis_url)
    horse = begin_nap(JobQueue(redis_url), file)
    if everyone:
        os.kill(horse, signal.SIGTERM)
        worker.send_signal(signal.SIGTERM)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=8) == 0
    assert lines(file)[1:] == ["drained"]
    assert not lives(horse)


def test_a_horse_whose_worker_was_killed_drains(redis_url: str, start: Start, file: Path) -> None:
    worker = start("worker", redis_url)
    horse = begin_nap(JobQueue(redis_url), file)
    worker.kill()
    worker.wait()
    wait_until(lambda: not lives(horse), seconds=5)
    assert lines(file)[1:] == ["drained"]


def test_a_worker_outlives_its_redis(own_redis: OwnRedis, start: Start, file: Path) -> None:
    queue = JobQueue(own_redis.url)
    worker = start("worker", own_redis.url)
    queue.enqueue(NOTE, str(file), "before", job_id="a")
    wait_until(lambda: lines(file) == ["before"])
    own_redis.stop()
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(timeout=1.5)
    own_redis.start()
    assert queue.enqueue(NOTE, str(file), "after", job_id="b")
    wait_until(lambda: lines(file) == ["before", "after"])
    wait_until(lambda: queue.health().workers == 1)


def test_a_worker_whose_redis_goes_during_a_job_finishes_it(
    own_redis: OwnRedis, start: Start, file: Path
) -> None:
    queue = JobQueue(own_redis.url)
    worker = start("worker", own_redis.url)
    horse = begin_nap(queue, file)
    own_redis.stop()
    os.kill(horse, signal.SIGTERM)
    wait_until(lambda: lines(file)[1:] == ["drained"])
    own_redis.start()
    queue.enqueue(NOTE, str(file), "after", job_id="after")
    wait_until(lambda: lines(file)[2:] == ["after"])
    assert worker.poll() is None


def test_a_worker_that_starts_without_redis_waits_for_it(
    own_redis: OwnRedis, start: Start, file: Path
) -> None:
    own_redis.stop()
    start("worker", own_redis.url)
    own_redis.start()
    JobQueue(own_redis.url).enqueue(NOTE, str(file), "served", job_id="a")
    wait_until(lambda: lines(file) == ["served"])
