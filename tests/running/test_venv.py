"""What the first start says on a machine that lacks something: one line, no traceback."""

import shutil
import subprocess
from pathlib import Path

import pytest

from mcs.config import ROOT

OLD = """#!/bin/sh
case "$1" in
--version) echo Python 3.9.2 ;;
*) exit 1 ;;
esac
"""
WITHOUT_VENV = """#!/bin/sh
case "$2" in
*ensurepip*) exit 1 ;;
esac
case "$1" in
--version) echo Python 3.12.3 ;;
esac
"""


@pytest.mark.parametrize(
    ("python", "line"),
    [
        (OLD, "MCS needs Python 3.11 or newer, and found Python 3.9.2: install one"),
        (WITHOUT_VENV, "Python 3.12.3 comes without venv here: on Debian and Ubuntu, apt-get"),
        (None, "MCS needs Python 3.11 or newer, and found no Python at all: install one"),
    ],
)
def test_a_python_that_will_not_do_is_said_in_one_line(
    tmp_path: Path, python: str | None, line: str
) -> None:
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    for name in ("Makefile", "constraints.txt", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    given = tmp_path / "python"
    if python is not None:
        given.write_text(python)
        given.chmod(0o755)
    done = subprocess.run(
        ["make", "--silent", "run", f"PYTHON={given}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    first, *rest = done.stderr.splitlines()
    assert done.returncode != 0
    assert first.startswith(line)
    assert [each for each in rest if not each.startswith("make")] == []
    assert not (tmp_path / ".venv").exists()
