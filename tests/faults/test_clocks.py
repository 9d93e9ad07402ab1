"""Clocks that are wrong: one host's, or the only one there is."""

import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from mcs import config
from tests.conftest import TEST_DATABASE, wait_until
from tests.faults.conftest import Begin
from tests.faults.world import CONNECTIONS, World
from tests.people import add_scenario

Seeds = Callable[[int, int], range]
SITE = Path(__file__).parent / "site"
THREE_HOURS = 3 * 3600
postgres_only = pytest.mark.skipif(
    TEST_DATABASE != "postgres", reason="a file has no clock but its host's"
)


class WrongClock:
    """What processes that are started with ``environ`` think what time it is."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "off_by"
        self.environ = {"FAULT_CLOCK": str(self.file), "PYTHONPATH": f"{SITE}:{config.ROOT}"}
        self.jump(0)

    def jump(self, seconds: float) -> None:
        draft = self.file.with_suffix(".new")
        draft.write_text(str(seconds))
        draft.replace(self.file)


@pytest.mark.parametrize("hours", [3, -3])
def test_the_clock_jumps_in_the_middle(
    hours: int, world: Begin, seeds: Seeds, tmp_path: Path
) -> None:
    """Of every process at once, as on a single host. Set forward, every lease is over at once."""
    clock = WrongClock(tmp_path)
    here = world(**clock.environ)
    here.people(600)
    here.begin(workers=2)
    for seed in seeds(3, 1):
        clock.jump(0)
        emailer_id = here.scenario()
        here.wait_sent(emailer_id, 1 + 50 * seed)
        clock.jump(3600 * hours)
        here.wait_over(emailer_id)
        here.audit(emailer_id, 0)
        assert here.book(emailer_id).by_state["sent"] == 600


@postgres_only
@pytest.mark.parametrize("hours", [3, -3])
def test_a_worker_whose_hosts_clock_is_wrong_is_killed(
    hours: int, world: Begin, seeds: Seeds, tmp_path: Path
) -> None:
    """It keeps what it held as long as any other, and no longer."""
    clock = WrongClock(tmp_path)
    clock.jump(3600 * hours)
    here = world()
    here.people(600)
    here.begin(workers=0)
    right = dict(here.given)
    for seed in seeds(3, 1):
        here.given |= clock.environ
        here.worker("worker-wrong")
        emailer_id = here.scenario()
        here.wait_sent(emailer_id, 1 + 50 * seed)
        here.kill_all_of("worker-wrong")
        here.given = dict(right)
        here.worker("worker-right")
        here.wait_over(emailer_id)
        here.audit(emailer_id, CONNECTIONS)
        here.kill("worker-right", signal.SIGTERM)
        assert _earliest(here, emailer_id) >= datetime.now(UTC) - timedelta(minutes=10)


@postgres_only
def test_clocks_that_are_wrong_beside_a_right_one_send_nothing_early(
    world: Begin, seeds: Seeds, tmp_path: Path
) -> None:
    """Nor do they take anything over that is being sent."""
    clock = WrongClock(tmp_path)
    clock.jump(THREE_HOURS)
    here = world()
    here.people(600)
    here.begin(workers=1)
    here.given |= clock.environ
    here.clock("clock-wrong")
    here.worker("worker-wrong")
    wait_until(lambda: here.queue.health().workers >= 2, 60)
    for _seed in seeds(3, 1):
        later = _later_scenario(here)
        emailer_id = here.scenario()
        here.wait_over(emailer_id)
        here.audit(emailer_id, 0)
        assert here.book(emailer_id).by_state["sent"] == 600
        assert "was taken over" not in (tmp_path / "log").read_text()
        assert _state_of(here, later) in ("planned", "")
    assert "this host's clock is off by 3:00:0" in (tmp_path / "log").read_text()


def _later_scenario(here: World) -> int:
    """A scenario of two hours later; its id."""
    due = (datetime.now(UTC) + timedelta(hours=2)).replace(second=0, microsecond=0)
    with here.sessions() as session:
        campaign = here.campaign(session)
        return add_scenario(session, campaign, date=due.date(), time=due.time()).id


def _state_of(here: World, scenario_id: int) -> str:
    query = "SELECT state FROM emailers WHERE scenario_id = :id"
    with here.engine.connect() as connection:
        return connection.scalar(text(query), {"id": scenario_id}) or ""


def _earliest(here: World, emailer_id: int) -> datetime:
    query = "SELECT MIN(started_at) FROM deliveries WHERE emailer_id = :id"
    with here.engine.connect() as connection:
        found = connection.scalar(text(query), {"id": emailer_id})
    assert isinstance(found, datetime)
    return found
