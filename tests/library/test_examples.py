"""The examples run as they stand, from anywhere."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("quick_start_sqlite", "review: pending"),
        ("quick_start_postgres", "'completed': 1000"),
        ("after_purchase", "Tue 01 Dec 10:02  email3 to jenny@customers.example"),
    ],
)
def test_an_example_runs(name: str, words: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
