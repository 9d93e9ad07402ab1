"""The whole of ``make run``, as real processes: killed part by part, and as a whole."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mcs import config
from mcs.gateways.jobqueue import connect
from mcs.gateways.redis_server import redis_program
from tests.conftest import wait_until
from tests.running.test_supervisor import alive, family, said

pytestmark = pytest.mark.xdist_group("run")  # One installation serves these stories.

PARTS = {
    "web": "gunicorn",
    "worker-1": "worker.py",
    "clock": "mcs.clock",
    "mail": "mcs.gateways.catcher",
    "redis": Path(redis_program()).name,
}
GREETING = "MCS runs: open http://127.0.0.1:"


class Installation:
    """An instance folder, a port, and MCS running on them or not."""

    def __init__(self, folder: Path) -> None:
        self.instance, self.log = folder / "instance", folder / "log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def environ(self, **given: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        own = {"MCS_INSTANCE": str(self.instance), "PORT": str(self.port), "MCS_WORKERS": "1"}
        return kept | own | given

    def start(self) -> None:
        with open(self.log, "w") as log:
            command = [sys.executable, "-m", "mcs.run"]
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=self.environ(), cwd=config.ROOT
            )
        wait_until(said(self.log, GREETING), seconds=40)
        wait_until(lambda: all(self.part(name) for name in PARTS))

    def refused(self, **given: str) -> str:
        """What a start says that cannot be."""
        command = [sys.executable, "-m", "mcs.run"]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=self.environ(**given),
            cwd=config.ROOT,
            timeout=30,
        )
        assert done.returncode == 1
        return done.stderr.strip()

    def everybody(self) -> list[psutil.Process]:
        assert self.process is not None
        return family(self.process)  # type: ignore[arg-type]

    def part(self, name: str) -> psutil.Process | None:
        """The process that the supervisor started for a part."""
        assert self.process is not None
        for child in psutil.Process(self.process.pid).children():
            try:
                if any(PARTS[name] in word for word in child.cmdline()):
                    return child
            except psutil.NoSuchProcess:
                continue
        return None

    def is_well(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/healthz", timeout=2) as answer:
                return bool(json.load(answer)["ok"])
        except OSError:
            return False

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(timeout=40)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    made = Installation(tmp_path_factory.mktemp("run"))
    yield made
    made.stop()


@pytest.fixture
def running(installation: Installation) -> Installation:
    if installation.process is None or installation.process.poll() is not None:
        installation.start()
    return installation


def test_it_comes_up_and_says_where_and_how_to_begin(running: Installation) -> None:
    wait_until(running.is_well)
    link = re.search(r"/setup\?token=[\w-]{20,}", running.log.read_text())
    assert link is not None
    with urllib.request.urlopen(running.address + link[0], timeout=5) as page:
        assert page.status == 200


def test_every_part_that_is_killed_comes_back(running: Installation) -> None:
    killed = {}
    for name in PARTS:
        part = running.part(name)
        assert part is not None
        killed[name] = part.pid
        part.kill()
    for name, process in killed.items():
        wait_until(lambda name=name, process=process: _another(running, name, process))  # type: ignore[misc]
    wait_until(running.is_well)
    wait_until(lambda: connect(f"unix://{config.redis_socket(running.instance)}").ping())
    text = running.log.read_text()
    assert all(f"{name} stopped (SIGKILL)" in text for name in PARTS)


def _another(running: Installation, name: str, process: int) -> bool:
    part = running.part(name)
    return part is not None and part.pid != process


def test_a_second_start_on_the_folder_is_refused_with_a_line(running: Installation) -> None:
    line = running.refused(PORT="1")
    assert line.startswith(f"MCS runs already on {running.instance} (process ")
    assert "\n" not in line


def test_a_taken_port_is_refused_with_a_line(running: Installation, tmp_path: Path) -> None:
    line = running.refused(MCS_INSTANCE=str(tmp_path / "other"))
    assert line.startswith(f"port {running.port} cannot be used (Address already in use)")
    assert f"PORT={running.port + 1} make run" in line
    assert "\n" not in line


def test_a_killed_supervisor_takes_all_with_it_and_the_next_start_finds_its_data(
    running: Installation,
) -> None:
    redis = connect(f"unix://{config.redis_socket(running.instance)}")
    wait_until(lambda: bool(redis.set("left", "here")))
    everybody = running.everybody()
    assert running.process is not None
    running.process.kill()
    running.process.wait()
    running.start()
    wait_until(running.is_well)
    assert alive(everybody) == []
    assert redis.get("left") == b"here"


def test_ctrl_c_stops_all_and_leaves_no_process(running: Installation) -> None:
    everybody = running.everybody()
    assert len(everybody) >= len(PARTS) + 1
    assert running.process is not None
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(timeout=15) == 0
    assert alive(everybody) == []
    assert not _members_of(running)


def _members_of(running: Installation) -> list[str]:
    """Processes that speak of this instance folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MCS_INSTANCE") == str(running.instance):
                found.append(str(process.cmdline()))
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"MCS_TIMEZONE": "Mars/Olympus"}, "MCS_TIMEZONE=Mars/Olympus is not a time zone"),
        ({"PORT": "http"}, "PORT=http is not usable"),
        ({"MCS_INSTANCE": "/proc/nowhere"}, "/proc/nowhere cannot be used"),
        ({"DATABASE_URL": "mysql://db"}, "DATABASE_URL is not usable"),
        (
            {"DATABASE_URL": "postgres://nobody@127.0.0.1:1/none"},
            "the database cannot be used (connection",
        ),
        ({"MCS_ENV": "production"}, "MCS_ENV=production needs DATABASE_URL"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, given: dict[str, str], line: str) -> None:
    said = Installation(tmp_path).refused(**given)
    assert said.startswith(line)
    assert "\n" not in said


def test_help_says_what_it_does() -> None:
    command = [sys.executable, "-m", "mcs.run", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=config.ROOT)
    assert "Ctrl-C stops all" in " ".join(done.stdout.split())
