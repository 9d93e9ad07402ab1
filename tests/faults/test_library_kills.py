"""Programs that use the library are killed; whatever they held comes back."""

import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from mcs.library import CampaignScheduler
from tests.conftest import wait_until
from tests.processes import Process

STEPS = [{"id": f"a{n}", "callback": "note", "interval": "0days"} for n in range(4)]
# So 50 kills fall among 20,000 actions.
SUBJECTS_A_KILL = 100


@pytest.mark.short
def test_kill_9_of_library_workers(
    seeds: Callable[[int, int], range], database_url: str, tmp_path: Path
) -> None:
    kills = len(seeds(50, 3))
    subjects = SUBJECTS_A_KILL * kills
    notes = tmp_path / "notes"
    notes.touch()
    with CampaignScheduler({"note": print}, database_url) as scheduler:
        scheduler.upsert_campaign("c", action_defs=STEPS)
        scheduler.schedule_many("c", [("order", n) for n in range(subjects)])
        workers = [_start(database_url, notes) for _ in range(2)]
        try:
            for number in range(kills):
                _wait_for_calls(notes, number * SUBJECTS_A_KILL * len(STEPS))
                place = random.Random(number).randrange(2)
                _kill(workers[place])
                workers[place] = _start(database_url, notes)
            wait_until(lambda: scheduler.get_status().counts["completed"] == 4 * subjects, 120)
        finally:
            for worker in workers:
                _kill(worker)
        actions = scheduler.get_actions()
    assert Counter(one.state for one in actions) == {"completed": 4 * subjects}
    calls = Counter(notes.read_text().splitlines())
    by_action = {tuple(line.split()[:2]) for line in calls}
    assert len(by_action) == 4 * subjects, "each was called"
    assert len(calls) == 4 * subjects, "and each time with the same key"
    assert len({line.split()[2] for line in calls}) == 4 * subjects, "which is nobody else's"
    # No more are called again than were in flight when their worker was killed.
    assert calls.total() - len(calls) <= kills * 50


def _start(url: str, notes: Path) -> Process:
    program = ("-m", "tests.faults.library_worker", url, str(notes))
    return Process(*program, environ=os.environ, log=notes.with_name("log"))


def _kill(worker: Process) -> None:
    worker.kill()
    worker.wait()


def _wait_for_calls(notes: Path, number: int) -> None:
    wait_until(lambda: notes.read_bytes().count(b"\n") > number, 120)
