"""Processes of a story, forked from one that has everything imported already.

A process of MCS that starts from nothing spends more than a second of processor time on imports,
and some stories start a dozen. Those about starting itself (tests/flows, tests/running/test_run.py)
do it as the product does. These begin at the first line of their program, each with a process id, a
session, an environment and a death of its own.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from mcs import config
from mcs.gateways import lifeline

_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload(["tests.forker"])


class Process:
    """``python ARGUMENTS...`` with this environment; what it says is added to the log.

    It can be asked, signalled and waited for as a subprocess.Popen, and ends with this process.
    """

    def __init__(self, *arguments: str, environ: Mapping[str, str], log: Path) -> None:
        self._begun = _forking.Process(
            target=_become, args=(arguments, dict(environ), str(log)), daemon=True
        )
        self._begun.start()

    @property
    def pid(self) -> int:
        assert self._begun.pid is not None
        return self._begun.pid

    def poll(self) -> int | None:
        return self._begun.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, or less than 0 for a signal. Raises subprocess.TimeoutExpired."""
        self._begun.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired("a process of the story", timeout or 0)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Signal it, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _become(arguments: tuple[str, ...], environ: dict[str, str], log: str) -> None:
    """Be that program from its first line."""
    assert "tests.forker" in sys.modules, "what it imports failed, of which nothing is said"
    os.setsid()
    lifeline.end_with_parent(os.getppid(), signal.SIGKILL)
    said = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(said, stream.fileno())
    os.chdir(config.ROOT)
    if environ.get("PYTHONPATH") != os.environ.get("PYTHONPATH"):
        # What lies there changes a start, so there has to be one.
        os.execve(sys.executable, [sys.executable, *arguments], environ)
    os.environ.clear()
    os.environ.update(environ)
    if arguments[0] == "-m":
        sys.argv = list(arguments[1:])
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(arguments)
        runpy.run_path(arguments[0], run_name="__main__")
