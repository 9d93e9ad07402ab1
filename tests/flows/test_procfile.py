"""The Procfile's four commands, with the environment that a Heroku-style host gives them."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session, sessionmaker

from mcs.config import ROOT
from mcs.models import Emailer
from tests.conftest import wait_until
from tests.flows.test_interruptions import add_story
from tests.mail import MailServer, free_port

PROCFILE = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())


class Host:
    """Runs each of the Procfile's commands as a shell of the host would."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.log = folder / "host.log"
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environ = {"PATH": path, "HOME": str(folder), "PYTHONUNBUFFERED": "1", **environ}
        self.dynos: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> "subprocess.Popen[bytes]":
        # A host lets only its router in; here nobody may.
        command = PROCFILE[name].replace("0.0.0.0", "127.0.0.1")
        with self.log.open("ab") as log:
            dyno = subprocess.Popen(
                ["sh", "-c", f"exec {command}"],
                cwd=ROOT,
                env=self.environ | {"DYNO": f"{name}.1"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.dynos[name] = dyno
        return dyno

    def stop(self) -> dict[str, int]:
        """SIGTERM to each; how each ended, within the 30 s that a host waits."""
        for dyno in self.dynos.values():
            dyno.send_signal(signal.SIGTERM)
        return {name: dyno.wait(30) for name, dyno in self.dynos.items()}

    def kill(self) -> None:
        for dyno in self.dynos.values():
            dyno.kill()
            dyno.wait()
        print(self.log.read_text()[-4000:])


@pytest.fixture
def database_url(fresh_database_url: str) -> str:
    return fresh_database_url


@pytest.fixture
def host(
    tmp_path: Path, database_url: str, redis_url: str, mail_server: MailServer
) -> Iterator[Host]:
    host = Host(
        tmp_path,
        {
            "PORT": str(free_port()),
            "DATABASE_URL": database_url.replace("postgresql+psycopg://", "postgres://"),
            "REDIS_URL": redis_url,
            "SECRET_KEY": "a secret of the host, long enough",
            "MCS_UNSUBSCRIBE_KEYS": "an older key of the host",
            "MCS_BASE_URL": "https://mcs.example",
            "MAIL_SERVER": "127.0.0.1",
            "MAIL_PORT": str(mail_server.port),
        },
    )
    yield host
    host.kill()


def healthy(host: Host) -> bool:
    """As the host's router asks: from outside it is https."""
    asked = urllib.request.Request(
        f"http://127.0.0.1:{host.environ['PORT']}/healthz",
        headers={"X-Forwarded-Proto": "https", "X-Forwarded-For": "198.51.100.7"},
    )
    try:
        with urllib.request.urlopen(asked, timeout=5) as answer:
            return bool(json.load(answer)["ok"])
    except OSError:
        return False


def test_release_web_worker_and_clock_send_a_message(
    host: Host, mail_server: MailServer, engine: Engine, sessions: sessionmaker[Session]
) -> None:
    assert set(PROCFILE) == {"release", "web", "worker", "clock"}
    assert host.start("release").wait(60) == 0
    del host.dynos["release"]
    for name in ("web", "worker", "clock"):
        host.start(name)
    wait_until(lambda: healthy(host), 60)
    # This minute: late by less than the limit, it goes out at once.
    add_story(engine, 1, datetime.now(UTC).replace(second=0, microsecond=0))

    def over() -> bool:
        with sessions() as session:
            return session.scalars(select(Emailer.state)).first() == "sent"

    wait_until(over, 60)
    (caught,) = mail_server.mailbox.caught
    assert caught.recipient == "p0@people.example"
    assert str(caught.message["List-Unsubscribe"]).startswith("<https://mcs.example/u/")
    assert str(caught.message["Message-ID"]).endswith("@mcs.example>")
    assert host.stop() == {"web": 0, "worker": 0, "clock": 0}


@pytest.mark.parametrize("name", PROCFILE)
@pytest.mark.parametrize(
    ("missing", "line"),
    [
        ("REDIS_URL", "MCS_ENV=production needs REDIS_URL: set it and start again"),
        ("SECRET_KEY", "MCS_ENV=production needs SECRET_KEY: set it and start again"),
    ],
)
def test_each_refuses_to_start_without_a_part(
    host: Host, name: str, missing: str, line: str
) -> None:
    del host.environ[missing]
    assert host.start(name).wait(60) != 0
    said = host.log.read_text()
    assert line in said
    assert "Traceback" not in said
