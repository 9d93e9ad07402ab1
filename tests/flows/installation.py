"""MCS as people install it, all its processes, on a folder of their own: for outsiders."""

import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mcs.config import ROOT
from tests.conftest import wait_until
from tests.mail import free_port

OWNER = {"email": "ada@shop.example", "password": "correct horse battery staple"}


class Installation:
    """MCS as ``make run`` starts it, on a folder of its own."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.port = free_port()
        self.log = folder / "run.log"
        self.base_url = f"http://127.0.0.1:{self.port}"
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mcs.run"],
            cwd=ROOT,
            env=kept | environ | {"PORT": str(self.port), "MCS_INSTANCE": str(folder / "mcs")},
            stdout=self.log.open("wb"),
            stderr=subprocess.STDOUT,
        )

    def setup_path(self) -> str:
        """The one-time link, as the console prints it."""
        wait_until(lambda: "/setup?token=" in self.log.read_text(), 60)
        found = re.search(r"https?://\S+(/setup\?token=\S+)", self.log.read_text())
        assert found
        return found.group(1)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(40)


def next_minute(beyond: timedelta = timedelta(seconds=4)) -> datetime:
    """The next full minute that is at least ``beyond`` away: the form's times are minutes."""
    return (datetime.now(UTC) + beyond + timedelta(minutes=1)).replace(second=0, microsecond=0)
