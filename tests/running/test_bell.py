"""What comes round, and any number of clocks ringing through one Redis."""

import signal
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from rq import Queue
from rq_scheduler import Scheduler

from mcs.core.daily import next_daily, next_minute
from mcs.gateways.bell import Bell
from mcs.gateways.jobqueue import JobQueue
from tests.conftest import wait_until
from tests.running.conftest import OwnRedis, Start

BERLIN = ZoneInfo("Europe/Berlin")
SEND = "mcs.jobs.send_emailer"


@pytest.mark.parametrize(
    ("zone", "after", "expected"),
    [
        ("UTC", "2026-11-23 05:59", "2026-11-23 06:00"),
        ("UTC", "2026-11-23 06:00", "2026-11-24 06:00"),
        ("Europe/Berlin", "2026-11-23 04:59", "2026-11-23 05:00"),  # Winter.
        ("Europe/Berlin", "2026-07-01 03:59", "2026-07-01 04:00"),  # Summer.
        ("Europe/Berlin", "2026-03-28 05:00", "2026-03-29 04:00"),  # 23 hours later.
        ("Europe/Berlin", "2026-10-24 04:00", "2026-10-25 05:00"),  # 25 hours later.
        ("America/New_York", "2026-03-08 00:00", "2026-03-08 10:00"),
        ("Pacific/Kiritimati", "2026-11-23 12:00", "2026-11-23 16:00"),  # Already the 24th there.
        ("Asia/Kathmandu", "2026-11-23 00:14", "2026-11-23 00:15"),
        ("Pacific/Pago_Pago", "2026-12-31 17:00", "2027-01-01 17:00"),
    ],
)
def test_six_o_clock_is_six_o_clock_there(zone: str, after: str, expected: str) -> None:
    moment, right = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (after, expected))
    assert next_daily(moment, time(6), ZoneInfo(zone)) == right


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe"])
def test_six_o_clock_comes_once_on_every_day_of_a_year(zone: str) -> None:
    there, moment, days = ZoneInfo(zone), datetime(2025, 12, 31, 12, tzinfo=UTC), []
    for _ in range(365):
        moment = next_daily(moment, time(6), there)
        assert moment.astimezone(there).time() == time(6)
        days.append(moment.astimezone(there).date())
    assert days == [days[0] + timedelta(days=number) for number in range(365)]
    assert days[0] in (date(2025, 12, 31), date(2026, 1, 1))


def test_the_next_minute_is_later() -> None:
    assert next_minute(datetime(2026, 1, 1, 9, 0, tzinfo=UTC)).minute == 1
    assert next_minute(datetime(2026, 1, 1, 9, 59, 59, 9, tzinfo=UTC)).hour == 10


def waiting(queue: JobQueue) -> list[str]:
    return Queue("alarms", connection=queue.connection).job_ids


def sends(queue: JobQueue) -> list[str]:
    """What waits, less what comes round by itself."""
    return sorted(each for each in waiting(queue) if each.startswith("emailer"))


def scheduled(queue: JobQueue) -> list[str]:
    return [each.decode() for each in queue.connection.zrange(Scheduler.scheduled_jobs_key, 0, -1)]


def test_nothing_is_rung_before_its_instant(redis_url: str, now: datetime) -> None:
    queue = JobQueue(redis_url)
    bell = Bell(queue, BERLIN)
    queue.enqueue_at(now, SEND, 3, job_id="emailer-3")
    bell.ring(now - timedelta(milliseconds=1))
    assert sends(queue) == []
    bell.ring(now)
    assert sends(queue) == ["emailer-3"]
    assert "emailer-3" not in scheduled(queue)


@pytest.mark.parametrize("clocks", [2, 5])
def test_many_clocks_ring_each_job_once(redis_url: str, now: datetime, clocks: int) -> None:
    queues = [JobQueue(redis_url) for _ in range(clocks)]
    bells = [Bell(queue, BERLIN) for queue in queues]
    for number in range(20):
        at = now + timedelta(seconds=number % 3)
        queues[0].enqueue_at(at, SEND, number, job_id=f"emailer-{number}")
    for second in range(3):
        for bell in bells:
            bell.ring(now + timedelta(seconds=second))
    assert sends(queues[0]) == sorted(f"emailer-{number}" for number in range(20))


def test_the_planner_rings_at_six_in_the_zone_and_comes_round(
    redis_url: str, now: datetime
) -> None:
    queue = JobQueue(redis_url)
    bell = Bell(queue, BERLIN)
    bell.ring(now)
    assert scheduled(queue) == ["plan_day-20261123T0901", "plan_day-20261124T0500"]
    six = datetime(2026, 11, 24, 5, 0, tzinfo=UTC)
    bell.ring(six - timedelta(seconds=1))
    assert "plan_day-20261124T0500" not in waiting(queue)
    bell.ring(six)
    assert "plan_day-20261124T0500" in waiting(queue)
    bell.ring(six + timedelta(seconds=29))
    assert "plan_day-20261125T0500" in scheduled(queue)


def test_what_comes_round_is_laid_down_again_after_redis_was_emptied(
    redis_url: str, now: datetime
) -> None:
    queue = JobQueue(redis_url)
    bell = Bell(queue, BERLIN)
    bell.ring(now)
    queue.connection.flushall()
    bell.ring(now + timedelta(seconds=29))
    assert scheduled(queue) == []
    bell.ring(now + timedelta(seconds=30))
    assert len(scheduled(queue)) == 2


def test_a_clock_that_died_with_the_lock_does_not_silence_the_others(
    redis_url: str, now: datetime
) -> None:
    queue = JobQueue(redis_url)
    dead, alive = Bell(queue, BERLIN), Bell(queue, BERLIN)
    dead.acquire_lock()
    assert not alive.acquire_lock()
    assert 0 < queue.connection.ttl(Scheduler.scheduler_lock_key) <= 5
    alive.remove_lock()
    assert queue.connection.exists(Scheduler.scheduler_lock_key)


def test_strangers_among_the_scheduled_jobs_are_dropped(redis_url: str, now: datetime) -> None:
    queue = JobQueue(redis_url)
    for number, data in enumerate([b'["os.system", null, ["true"], {}]', b"\x80\x04N.", b"[[]]"]):
        fields = {"data": data, "origin": "alarms", "status": "scheduled"}
        queue.connection.hset(f"rq:job:evil-{number}", mapping=fields)
        queue.connection.zadd(Scheduler.scheduled_jobs_key, {f"evil-{number}": 1})
    strange: dict[bytes | str, float] = {"../../x": 1, b"\xff": 1, "gone": 1}
    queue.connection.zadd(Scheduler.scheduled_jobs_key, strange)
    queue.enqueue_at(now, SEND, 3, job_id="emailer-3")
    assert Bell(queue, BERLIN).ring(now)
    assert sends(queue) == ["emailer-3"]
    assert all("emailer" not in each and "evil" not in each for each in scheduled(queue))


def test_a_clock_process_ticks_while_redis_is_away_and_rings_when_it_is_back(
    own_redis: OwnRedis, start: Start, tmp_path: Path
) -> None:
    own_redis.stop()
    ticks = tmp_path / "ticks"
    process = start("clock", own_redis.url, str(ticks))
    wait_until(lambda: ticks.exists() and ticks.read_text().count("tick") >= 2)
    own_redis.start()
    queue = JobQueue(own_redis.url)
    wait_until(lambda: queue.health().clock)
    wait_until(lambda: len(scheduled(queue)) == 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=3) == 0
    assert not queue.health().clock
