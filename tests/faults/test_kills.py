"""Kill what sends, at every point of a message's way, and see what the ledger says afterwards."""

import contextlib
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from mcs import config
from tests.conftest import wait_until
from tests.faults import auditor
from tests.faults.conftest import Begin
from tests.faults.world import CONNECTIONS, World

Seeds = Callable[[int, int], range]
PEOPLE = 150
SITE = str(Path(__file__).parent / "site")


@pytest.mark.parametrize(
    "at",
    [
        "mail",
        "rcpt",
        "data",
        "body",
        "dot",
        pytest.param("accepted", marks=pytest.mark.short),
        "answered",
    ],
)
def test_a_horse_killed_by_the_server_at(at: str, world: Begin, seeds: Seeds) -> None:
    here = world()
    here.people(PEOPLE)
    here.begin()
    for seed in seeds(20, 1):
        before = here.kills
        here.script({"at": at, "do": "kill", "nth": [random.Random(seed).randint(1, PEOPLE)]})
        emailer_id = here.scenario()
        here.wait_over(emailer_id)
        kills = here.kills - before
        assert kills, f"seed {seed}: nothing was killed"
        here.audit(emailer_id, CONNECTIONS * kills)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_horse_killed_at_a_commit(when: str, world: Begin, seeds: Seeds, tmp_path: Path) -> None:
    """The first commit is the claim; then come starts and answers."""
    here = world(FAULT_COMMIT=str(tmp_path), PYTHONPATH=f"{SITE}:{config.ROOT}")
    here.people(PEOPLE)
    here.begin()
    for seed in seeds(20, 1):
        number = random.Random(seed).choice([1, 2, *range(3, 30)])
        draft = tmp_path / "go.new"
        draft.write_text(f"{when}:{number}")
        draft.replace(tmp_path / "go")
        before = here.kills
        emailer_id = here.scenario()
        here.wait_over(emailer_id)
        assert here.kills == before + 1
        here.audit(emailer_id, CONNECTIONS)


def test_resending_what_is_in_doubt_uses_the_same_message_id(world: Begin, seeds: Seeds) -> None:
    here = world(MCS_ON_DOUBT="resend")
    here.people(PEOPLE)
    here.begin()
    for seed in seeds(20, 1):
        here.script({"at": "accepted", "do": "kill", "nth": [random.Random(seed).randint(1, 100)]})
        emailer_id = here.scenario()
        here.wait_over(emailer_id)
        here.audit(emailer_id, 0, resend=True)
        assert here.book(emailer_id).by_state["sent"] == PEOPLE


@pytest.mark.short
def test_sigterm_drains_within_ten_seconds(world: Begin, seeds: Seeds) -> None:
    """From the signal to the last thing that is heard of a message; then the interpreter ends."""
    here = world()
    here.people(600)
    here.begin()
    for seed in seeds(20, 1):
        emailer_id = here.scenario()
        here.wait_sent(emailer_id, random.Random(seed).randint(1, 300))
        told_at = datetime.now(UTC)
        here.kill("worker-0", signal.SIGTERM)
        assert datetime.now(UTC) - told_at < timedelta(seconds=25)  # Then a host says SIGKILL.
        assert last_event(here, emailer_id) - told_at < timedelta(seconds=10)
        assert not here.book(emailer_id).by_state["sending"]
        here.worker("worker-0")
        here.wait_over(emailer_id)
        here.audit(emailer_id, 0)
        assert here.book(emailer_id).by_state["sent"] == 600


def last_event(here: World, emailer_id: int) -> datetime:
    """When the last message started, was taken by the server, or was recorded."""
    mine = {message_id for message_id, _state, _email in here.book(emailer_id).rows}
    taken = [one.at for one in auditor.accepted(here.folder) if one.delivery in mine]
    query = "SELECT MAX(started_at), MAX(sent_at) FROM deliveries WHERE emailer_id = :id"
    with here.engine.connect() as connection:
        recorded = connection.execute(text(query), {"id": emailer_id}).one()
    moments = [auditor.instant(moment) for moment in recorded]
    return max(*moments, datetime.fromtimestamp(max(taken), UTC))


def test_sigterm_with_a_server_that_answers_no_more(world: Begin, seeds: Seeds) -> None:
    """Only those whose last answer is outstanding are in doubt; the end comes all the same."""
    here = world()
    here.people(PEOPLE)
    here.begin()
    for seed in seeds(3, 1):
        here.script({"at": "accepted", "do": "hang", "nth": list(range(20, 20 + CONNECTIONS))})
        emailer_id = here.scenario()
        here.wait_sent(emailer_id, 15 + seed)
        time.sleep(2)
        began = time.monotonic()
        here.kill("worker-0", signal.SIGTERM)
        assert time.monotonic() - began < 25
        here.script()
        here.worker("worker-0")
        here.wait_over(emailer_id)
        here.audit(emailer_id, CONNECTIONS)
        assert here.book(emailer_id).by_state["in_doubt"] == CONNECTIONS


@pytest.mark.short
def test_a_frozen_horse_that_wakes_starts_nothing(world: Begin, seeds: Seeds) -> None:
    here = world()
    here.people(600)
    here.begin(workers=2)
    for seed in seeds(3, 1):
        emailer_id = here.scenario()
        here.wait_sent(emailer_id, 20 + 50 * seed)
        horses, stopped = _freeze(here)
        wait_until(lambda: _free(here), 30)
        _wake(horses)
        here.wait_over(emailer_id)
        here.audit(emailer_id, CONNECTIONS * stopped)


def _freeze(here: World) -> tuple[list[int], int]:
    """Stop every horse, but none that holds a lock: SQLite's would stop everybody else."""
    while True:
        horses = here.horses()
        stopped = here.kill_horses(signal.SIGSTOP)
        try:
            if here.engine.dialect.name == "sqlite":
                path = here.settings.database_url.removeprefix("sqlite:///")
                with sqlite3.connect(path, timeout=0.5) as other:
                    other.execute("BEGIN IMMEDIATE")
            else:
                with here.engine.connect() as connection:
                    connection.exec_driver_sql("SELECT id FROM slices FOR UPDATE NOWAIT")
            return horses, stopped
        except (sqlite3.OperationalError, OperationalError):
            _wake(horses)
            time.sleep(0.02)


def _wake(horses: list[int]) -> None:
    for horse in horses:
        with contextlib.suppress(ProcessLookupError):
            os.kill(horse, signal.SIGCONT)


def _free(here: World) -> bool:
    """Whether the clock has taken over every slice of the frozen."""
    with here.engine.connect() as connection:
        return not connection.exec_driver_sql(
            "SELECT COUNT(*) FROM slices WHERE claim_token IS NOT NULL"
        ).scalar()


@pytest.mark.parametrize("who", ["worker-0", "clock-0"])
def test_a_parent_killed(who: str, world: Begin, seeds: Seeds) -> None:
    here = world()
    here.people(600)
    here.begin()
    for seed in seeds(3, 1):
        emailer_id = here.scenario()
        here.wait_sent(emailer_id, 20 + seed)
        here.kill(who)
        getattr(here, who.partition("-")[0])(who)
        here.wait_over(emailer_id)
        here.audit(emailer_id, CONNECTIONS)


def test_recovery_at_the_default_lease_takes_less_than_two_minutes(world: Begin) -> None:
    """Five deaths, of a horse or of a whole worker, each in the middle of an emailer of its own."""
    here = world()
    del here.given["MCS_LEASE_SECONDS"]
    here.people(PEOPLE)
    here.begin(workers=2)
    died_at: dict[int, datetime] = {}
    for number in range(5):
        here.script({"at": "dot", "do": "hang", "nth": list(range(20 * number + 20, PEOPLE))})
        emailer_id = here.scenario()
        here.wait_sent(emailer_id, 20 * number + 1)
        for name in [name for name in here.processes if name.startswith("worker")]:
            here.kill_all_of(name) if number % 2 else here.kill_horses()
        died_at[emailer_id] = datetime.now(UTC)
        here.script()
        for name in [name for name in here.processes if name.startswith("worker")]:
            if here.processes[name].poll() is not None:
                here.worker(name)
    for emailer_id, moment in died_at.items():
        here.wait_over(emailer_id, 150)
        here.audit(emailer_id, CONNECTIONS)
        took = _finished_at(here, emailer_id) - moment
        print(f"over {took.total_seconds():.0f} s after the death")
        assert timedelta(seconds=20) < took < timedelta(seconds=120)


def _finished_at(here: World, emailer_id: int) -> datetime:
    query = "SELECT finished_at FROM emailers WHERE id = :id"
    with here.engine.connect() as connection:
        return auditor.instant(connection.scalar(text(query), {"id": emailer_id}))


def test_a_hundred_kills_over_fifty_thousand(world: Begin) -> None:
    """And over a second emailer, where the first was sent before it could be killed so often."""
    here = world()
    here.people(50_000)
    here.begin(workers=2)
    done = 0
    while done < 100:
        before, emailer_id = done, here.scenario()
        here.wait_sent(emailer_id, 1)
        while done < 100 and not here.book(emailer_id).over:
            wait_until(lambda: bool(here.horses()), 60)
            time.sleep(0.3)
            done += here.kill_horses()
        here.wait_over(emailer_id, 600)
        print(f"{done - before} kills, {dict(here.book(emailer_id).by_state)}")
        here.audit(emailer_id, CONNECTIONS * (done - before))
