"""``make test``: every check, each in a block of its own, on SQLite and on PostgreSQL.

They run side by side, since many stories wait more than they work; a block is shown once all before
it are over. The last lines are pytest's own summaries. The exit code is 1 when any check failed.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
STATIC = {
    "format": ["ruff", "format", "--check", "."],
    "lint": ["ruff", "check", "."],
    "types": ["mypy"],
    "floors": ["lint-imports"],
}
# Tested once: what no database has a part in, by the suite that would be over first; and what
# tests/faults tells of PostgreSQL, too. The hosts that a Procfile is for have PostgreSQL, which
# also refuses more of what programs make up.
LEFT_OUT = {
    "sqlite": (
        "tests/api/test_openapi.py",
        "tests/core",
        "tests/flows/test_procfile.py",
        "tests/gateways",
        "tests/library/test_examples.py",
        # A library's database, which is SQLite's in either run.
        "tests/services/test_sequence_life.py",
        "tests/test_config.py",
    ),
    "postgres": (
        "tests/browser",
        "tests/flows/test_interruptions.py",
        "tests/running",
    ),
}
MARIADB_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
NO_BROWSER = """
!!  NO CHROMIUM FOUND: the browser tests are SKIPPED, so this run proves nothing about the pages
!!  in a real browser. Install one (Debian: apt-get install chromium) and run make test again.
"""
NO_MARIADB = """
!!  NO MARIADB FOUND: the library's tests on it are SKIPPED, so this run proves nothing about the
!!  library on MariaDB and MySQL. Install it (Debian: apt-get install mariadb-server) and run
!!  make test again.
"""


class Check:
    """A command that runs from the beginning; what it says goes to a file."""

    def __init__(self, name: str, command: list[str], environ: Mapping[str, str]) -> None:
        self.name = name
        self._file = tempfile.NamedTemporaryFile()  # noqa: SIM115
        self._began = time.monotonic()
        # Opened anew: two who share a place in a file write where the other has read to.
        with open(self._file.name, "ab") as said:
            self._process = subprocess.Popen(
                [str(BIN / command[0]), *command[1:]],
                cwd=ROOT,
                env=os.environ | environ,
                stdout=said,
                stderr=subprocess.STDOUT,
            )

    def passed(self) -> bool:
        return self._process.wait() == 0

    def show(self) -> None:
        """Its block, as it grows, until it ends."""
        print(f"\n== {self.name} ".ljust(80, "="), flush=True)
        running = True
        while running:
            running = self._process.poll() is None
            sys.stdout.write(self._file.read().decode(errors="replace"))
            sys.stdout.flush()
            time.sleep(0.2 if running else 0)
        print(f"({time.monotonic() - self._began:.0f} s)", flush=True)

    def last_line(self) -> str:
        lines = Path(self._file.name).read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "nothing was said")

    def end(self) -> None:
        """Stop it, if it still runs."""
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()


def main() -> int:
    """Run all; 1 when any failed."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    started: list[Check] = []
    try:
        return _run_all(started)
    except KeyboardInterrupt:
        return 130
    finally:
        for check in started:
            check.end()


def _run_all(started: list[Check]) -> int:
    """``started`` gets each check as it begins."""
    suites: list[Check] = []
    for database in LEFT_OUT:
        if suites:
            # What the first suite has compiled by their end, the next one need not compile, too.
            _read_the_source(started)
        suites.append(suite(database))
        started.append(suites[-1])
    for check in suites:
        check.show()
    say_what_is_missing()
    failed = [check.name for check in started if not check.passed()]
    if failed:
        print(f"\nFAILED: {', '.join(failed)}")
    print("\n" + "\n".join(f"{check.name}: {check.last_line()}" for check in suites), flush=True)
    return 1 if failed else 0


def _read_the_source(started: list[Check]) -> None:
    for name, command in STATIC.items():
        started.append(Check(name, command, {}))
        started[-1].show()


def say_what_is_missing() -> None:
    if not _has_chromium():
        print(NO_BROWSER, flush=True)
    if not shutil.which("mariadbd", path=MARIADB_PATH):
        print(NO_MARIADB, flush=True)


def suite(database: str) -> Check:
    """The tests on a database, by as many processes as there are cores, or MCS_TEST_PROCESSES."""
    processes = os.environ.get("MCS_TEST_PROCESSES", str(os.cpu_count() or 1))
    command = ["pytest", "-q", "-n", processes, "--dist", "loadgroup"]
    command += [f"--ignore={path}" for path in LEFT_OUT[database]]
    if "tests/api/test_openapi.py" in LEFT_OUT[database]:
        command += ["-p", "no:schemathesis"]  # A second of each process.
    if not _has_chromium():
        command += ["-m", "not browser"]
    environ = {
        "MCS_TEST_DATABASE": database,
        "MCS_TEST_PICTURES": "no",
        "PYTHONUNBUFFERED": "1",
    }
    return Check(f"tests on {database}", command, environ)


def _has_chromium() -> bool:
    return any(shutil.which(name) for name in CHROMIUM)


if __name__ == "__main__":
    sys.exit(main())
