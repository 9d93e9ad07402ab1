"""``make faults``: every story about faults with all its seeds, on SQLite and on PostgreSQL.

Prints a table in Markdown, which docs/reliability.md keeps. Exit code 1 when a story failed.
Arguments are handed to pytest (such as ``-k kills``). MCS_TEST_PROCESSES is how many run at once,
MCS_FAULTS=5 limits the seeds.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
DATABASES = ("sqlite", "postgres")


@dataclass
class Told:
    """How often a story was told on one database, how often it ended badly, how long it took."""

    cases: int = 0
    failed: int = 0
    seconds: float = 0

    def __str__(self) -> str:
        if not self.cases:
            return "-"
        verdict = f"{self.failed} of {self.cases} FAILED" if self.failed else f"{self.cases} held"
        return f"{verdict}, {self.seconds:.0f} s"


def main(arguments: list[str]) -> int:
    """Run all; 1 when any failed."""
    began = time.monotonic()
    stories: dict[str, dict[str, Told]] = defaultdict(dict)
    for database in DATABASES:
        for story, told in _run(database, arguments).items():
            stories[story][database] = told
    print(f"\n{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {(time.monotonic() - began) / 60:.0f} min\n")
    print("| story | SQLite | PostgreSQL |")
    print("|---|---|---|")
    for story, tellings in sorted(stories.items()):
        cells = [str(tellings.get(database, Told())) for database in DATABASES]
        print(f"| {story} | {' | '.join(cells)} |")
    return int(any(told.failed for each in stories.values() for told in each.values()))


def _run(database: str, arguments: list[str]) -> dict[str, Told]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [str(BIN / "pytest"), "-q", "tests/faults", f"--junitxml={report}"]
        command += ["-n", os.environ.get("MCS_TEST_PROCESSES", "4"), "--dist", "worksteal"]
        environ = {"MCS_FAULTS": "all", **os.environ, "MCS_TEST_DATABASE": database}
        subprocess.run([*command, *arguments], cwd=ROOT, env=environ, check=False)
        return _read(report)


def _read(report: Path) -> dict[str, Told]:
    stories: dict[str, Told] = defaultdict(Told)
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("skipped") is not None:
            continue
        told = stories[_sentence(case.get("name", ""))]
        told.cases += 1
        told.failed += case.find("failure") is not None or case.find("error") is not None
        told.seconds += float(case.get("time", 0))
    return stories


def _sentence(name: str) -> str:
    return name.partition("[")[0].removeprefix("test_").replace("_", " ")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
