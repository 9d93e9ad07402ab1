"""``make test``: every check, each in a block of its own, on SQLite and on PostgreSQL.

The last lines are pytest's own summaries. The exit code is 1 when any check failed; all run.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Tested once: what no database has a part in.
PURE = (
    "tests/browser",
    "tests/core",
    "tests/gateways",
    "tests/library/test_examples.py",
    "tests/running",
    "tests/test_config.py",
)
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


def main() -> int:
    """Run all; 1 when any failed."""
    failed = [
        name
        for name, command in (
            ("format", ["ruff", "format", "--check", "."]),
            ("lint", ["ruff", "check", "."]),
            ("types", ["mypy"]),
            ("floors", ["lint-imports"]),
        )
        if not _passes(name, command)
    ]
    summaries = []
    for database, left_out in (("sqlite", ()), ("postgres", PURE)):
        passed, summary = _tests(database, left_out)
        summaries.append(f"{database}: {summary}")
        if not passed:
            failed.append(f"tests on {database}")
    if failed:
        print(f"\nFAILED: {', '.join(failed)}")
    print("\n" + "\n".join(summaries), flush=True)
    return 1 if failed else 0


def _passes(name: str, command: list[str]) -> bool:
    _heading(name)
    done = subprocess.run([str(BIN / command[0]), *command[1:]], cwd=ROOT, check=False)
    return done.returncode == 0


def _tests(database: str, left_out: tuple[str, ...]) -> tuple[bool, str]:
    """Whether the suite passed on a database, and pytest's last line about it."""
    _heading(f"tests on {database}")
    # One more than there are cores: some stories wait for a minute to come.
    processes = os.environ.get("MCS_TEST_PROCESSES", str((os.cpu_count() or 1) + 1))
    command = [str(BIN / "pytest"), "-q", "-n", processes]
    command += ["--dist", "loadgroup"]
    command += [f"--ignore={path}" for path in left_out]
    if not any(shutil.which(name) for name in CHROMIUM):
        print(NO_BROWSER, flush=True)
        command += ["-m", "not browser"]
    if database == "sqlite" and not shutil.which("mariadbd", path=MARIADB_PATH):
        print(NO_MARIADB, flush=True)
    environ = os.environ | {"MCS_TEST_DATABASE": database, "PYTHONUNBUFFERED": "1"}
    began, last = time.monotonic(), "pytest said nothing"
    with subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as tests:
        assert tests.stdout is not None
        for line in tests.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
    print(f"({time.monotonic() - began:.0f} s)", flush=True)
    return tests.returncode == 0, last


def _heading(name: str) -> None:
    print(f"\n== {name} ".ljust(80, "="), flush=True)


if __name__ == "__main__":
    sys.exit(main())
