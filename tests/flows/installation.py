"""MCS as ``make run`` starts it: real processes on a folder of their own."""

import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from mcs.config import ROOT
from tests.conftest import wait_until
from tests.mail import free_port

OWNER = {"email": "ada@shop.example", "password": "correct horse battery staple"}


class Installation:
    """Runs from the beginning; may be stopped and started again, on the same folder and port."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.port = free_port()
        self.log = folder / "run.log"
        self.base_url = f"http://127.0.0.1:{self.port}"
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        own = {"PORT": str(self.port), "MCS_INSTANCE": str(folder / "mcs")}
        self.environ = kept | environ | own
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mcs.run"],
                cwd=ROOT,
                env=self.environ,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def said(self, text: str) -> int:
        """How often its log says this."""
        return self.log.read_text().count(text)

    def setup_path(self) -> str:
        """The one-time link, as the console prints it."""
        wait_until(lambda: "/setup?token=" in self.log.read_text(), 60)
        found = re.search(r"https?://\S+(/setup\?token=\S+)", self.log.read_text())
        assert found
        return found.group(1)

    def workers(self) -> list[psutil.Process]:
        """The workers, without the processes that they forked for their jobs."""
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if "worker.py" in " ".join(child.cmdline())]

    def interrupt(self) -> None:
        """Ctrl-C, and wait for the end."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(40) == 0

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(40)


def next_minute(beyond: timedelta = timedelta(seconds=4)) -> datetime:
    """The next full minute that is at least ``beyond`` away: the form's times are minutes."""
    return (datetime.now(UTC) + beyond + timedelta(minutes=1)).replace(second=0, microsecond=0)
