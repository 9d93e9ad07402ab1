"""Worlds for the stories about faults. ``MCS_FAULTS=all`` (make faults) runs every one, each with
all its seeds, ``MCS_FAULTS=5`` with five at most; without it a short selection runs.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.world import World

FAULTS = os.environ.get("MCS_FAULTS", "")
Begin = Callable[..., World]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not for the short run."""
    here = Path(__file__).parent
    ours = [item for item in items if here in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.faults)
    long = [item for item in ours if item.get_closest_marker("short") is None]
    if not FAULTS and long:
        config.hook.pytest_deselected(items=long)
        left_out = set(long)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def seeds() -> Callable[[int, int], range]:
    """How many seeds: ``(in make faults, in the short run)``."""
    if FAULTS.isdigit():
        return lambda many, _few: range(min(many, int(FAULTS)))
    return lambda many, few: range(many if FAULTS else few)


@pytest.fixture
def database_url(fresh_database_url: str) -> str:
    return fresh_database_url


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[Begin]:
    """A function that makes a world, not begun; its environment can be added to."""
    made: list[World] = []

    def make(url: str = "", direct: str = "", **environ: str) -> World:
        made.append(World(url or database_url, tmp_path, environ, direct or database_url))
        return made[-1]

    yield make
    for each in made:
        each.end()
