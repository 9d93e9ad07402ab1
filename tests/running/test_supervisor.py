"""The supervisor with small parts: it restarts, names a crash loop, and leaves none behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import wait_until

SCRIPT = """
import os, sys
from pathlib import Path
from mcs.gateways import supervisor
from mcs.gateways.supervisor import Part, Supervisor
supervisor.LOOP_STOPS = 3
supervisor.ORPHANS_PATIENCE = 1
folder = Path(sys.argv[1])
watcher = Supervisor(os.environ, folder, folder / "ledger")
watcher.take_signals()
parts = [
    Part(f"part-{number}", ["sh", "-c", command], patience=1)
    for number, command in enumerate(sys.argv[2:])
]
try:
    watcher.start(parts)
    watcher.run(lambda: True, "everything runs")
finally:
    watcher.stop()
"""

Supervise = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def supervise(tmp_path: Path, log: Path) -> Iterator[Supervise]:
    started: list[subprocess.Popen[str]] = []

    def begin(*commands: str) -> "subprocess.Popen[str]":
        with open(log, "w") as out:
            command = [sys.executable, "-c", SCRIPT, str(tmp_path), *commands]
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, text=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


def said(log: Path, text: str) -> Callable[[], bool]:
    return lambda: log.exists() and text in log.read_text()


def family(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [
        each
        for each in processes
        if each.is_running() and each.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    ]


def test_each_line_has_the_time_and_the_name(supervise: Supervise, log: Path) -> None:
    supervise("printf 'one\\ntwo'; sleep 100", "echo three >&2; sleep 100")
    wait_until(said(log, "three"))
    wait_until(said(log, "one"))
    lines = [line.split(maxsplit=2) for line in log.read_text().splitlines()]
    assert ["part-0", "one"] in [line[1:] for line in lines]
    assert ["part-1", "three"] in [line[1:] for line in lines]
    assert all(time.strptime(line[0], "%H:%M:%S") for line in lines)


def test_what_keeps_stopping_is_named_with_its_last_line(supervise: Supervise, log: Path) -> None:
    supervise("echo cannot find the thing; exit 3", "sleep 100")
    wait_until(said(log, "part-0 keeps stopping: 3 times in a minute"))
    text = log.read_text()
    assert "its last line was: cannot find the thing" in text
    assert "part-0 stopped (exit 3): starting it again at once" in text
    assert "part-0 stopped (exit 3): starting it again in 1 s" in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_all_and_what_they_started(
    supervise: Supervise, log: Path, number: signal.Signals
) -> None:
    """Even one that takes no notice, and a grandchild in a group of its own."""
    process = supervise(
        "sleep 100 & wait", "trap '' TERM; sleep 101; sleep 102", "set -m; sleep 103 & sleep 104"
    )
    wait_until(said(log, "everything runs"))
    wait_until(lambda: len(family(process)) >= 7)
    everybody = family(process)
    process.send_signal(number)
    assert process.wait(timeout=10) == 0
    assert alive(everybody) == []


def test_parts_end_when_the_supervisor_is_killed(supervise: Supervise, log: Path) -> None:
    process = supervise("exec sleep 100", "exec sleep 101")
    wait_until(said(log, "everything runs"))
    wait_until(lambda: len(family(process)) == 2)
    everybody = family(process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: alive(everybody) == [], seconds=3)


def test_leftovers_of_a_killed_supervisor_are_ended_by_the_next(tmp_path: Path) -> None:
    from mcs.gateways.supervisor import clear_leftovers

    mine = subprocess.Popen(
        ["sh", "-c", "trap '' TERM; echo deaf; sleep 99; sleep 99"],
        start_new_session=True,
        stdout=subprocess.PIPE,
    )
    assert mine.stdout is not None
    assert mine.stdout.readline() == b"deaf\n"
    stranger = subprocess.Popen(["sleep", "98"], start_new_session=True)
    ledger = tmp_path / "ledger"
    created = psutil.Process(mine.pid).create_time()
    ledger.write_text(f"{mine.pid} {created}\n{stranger.pid} {created - 500}\n999999 5.0\nhalf")
    clear_leftovers(ledger, seconds=0.3)
    assert mine.wait(timeout=3) == -signal.SIGKILL
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
    mine.stdout.close()
    assert not ledger.exists()
