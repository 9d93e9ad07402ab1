"""Real parts that a story about running may stop, kill and start."""

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from mcs.gateways.jobqueue import JOBS
from mcs.gateways.redis_server import redis_program
from tests.conftest import wait_until
from tests.processes import Process
from tests.running import rig

Start = Callable[..., Process]


class OwnRedis:
    """A Redis that a story may stop and start."""

    def __init__(self) -> None:
        # Short: a unix socket's path ends at 108 bytes.
        self.socket = Path(f"/tmp/mcs-test-{uuid.uuid4().hex[:8]}.sock")
        self.url = f"unix://{self.socket}"
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [redis_program(), "--port", "0", "--unixsocket", str(self.socket), "--save", ""],
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
    started: list[Process] = []

    def begin(*arguments: str) -> Process:
        environ = os.environ | {"PYTHONUNBUFFERED": "1"}
        program = ("-m", "tests.running.rig", *arguments)
        started.append(Process(*program, environ=environ, log=tmp_path / "log"))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()
