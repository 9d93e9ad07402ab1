"""The library's databases: the run's own, and a real MariaDB where Debian's is installed."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest

from tests.conftest import TEST_DATABASE, wait_until

SERVER = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin")


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A MariaDB of our own, on a unix socket; the socket's path."""
    if SERVER is None:
        pytest.skip("MariaDB is not installed")
    # Short: a unix socket's path ends at 108 bytes.
    folder = Path(f"/tmp/mcs-maria-{uuid.uuid4().hex[:8]}")
    folder.mkdir()
    common = [f"--datadir={folder}/data", "--user=root"] if os.getuid() == 0 else [
        f"--datadir={folder}/data"
    ]  # fmt: skip
    subprocess.run(
        ["mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal",
         *common],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    socket = f"{folder}/s"
    process = subprocess.Popen(
        [SERVER, "--no-defaults", f"--socket={socket}", "--skip-networking", *common,
         "--innodb-flush-log-at-trx-commit=0"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_until(lambda: _answers(socket), 60)
    yield socket
    process.kill()
    process.wait()
    shutil.rmtree(folder)


def _answers(socket: str) -> bool:
    try:
        pymysql.connect(unix_socket=socket, user="root").close()
    except pymysql.OperationalError:
        return False
    return True


# MariaDB beside one of the two runs of ``make test`` is enough.
DATABASES = ["sqlite", "mariadb"] if TEST_DATABASE == "sqlite" else [TEST_DATABASE]


@pytest.fixture(params=DATABASES)
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A database with nothing in it, in a shape that CampaignScheduler takes."""
    if request.param == "sqlite":
        return {"dialect": "sqlite", "storage": str(tmp_path / "library.db")}
    if request.param == "postgres":
        url: Callable[[Path], str] = request.getfixturevalue("make_database")
        return {"url": url(tmp_path), "schema": "library"}
    socket = request.getfixturevalue("mariadb")
    name = f"mcs_{uuid.uuid4().hex[:12]}"
    with pymysql.connect(unix_socket=socket, user="root", autocommit=True) as admin:
        admin.cursor().execute(f"CREATE DATABASE {name}")
    return f"mysql+pymysql://root@localhost/{name}?unix_socket={socket}"
