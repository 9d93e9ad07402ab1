"""A real Chromium, and a whole installation for it to visit."""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from flask import Flask
from playwright.sync_api import Browser, sync_playwright
from sqlalchemy import Engine, create_engine
from werkzeug.serving import make_server

from mcs.models import configure_engine
from tests.browser.viewer import Viewer
from tests.conftest import TEST_DATABASE
from tests.flows.installation import Installation
from tests.mail import free_port

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# One connection, so that sending takes long enough to be looked at.
SLOW = {"MCS_WORKERS": "1", "MCS_SMTP_CONNECTIONS": "1"}
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--lang=en-GB",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def begin(folder: Path, database_url: str) -> Installation:
    """As a newcomer starts it, with the embedded Redis and mail catcher; the database, too, where
    none is named."""
    url = database_url.replace("postgresql+psycopg://", "postgres://")
    return Installation(folder, SLOW | ({"DATABASE_URL": url} if url else {}))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """For one file only: Playwright's loop must not outlive it in this process."""
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        pytest.skip("NO CHROMIUM FOUND: nothing is proven about the pages in a real browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*QUIET])
        yield browser
        browser.close()


@pytest.fixture
def base_url(app: Flask) -> Iterator[str]:
    """The web process alone, over real HTTP."""
    server = make_server("127.0.0.1", free_port(), app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()


@pytest.fixture
def database_of_installation(request: pytest.FixtureRequest) -> str:
    """Empty on SQLite: a newcomer names no database, so MCS makes its own."""
    if TEST_DATABASE != "postgres":
        return ""
    return str(request.getfixturevalue("fresh_database_url"))


@pytest.fixture
def installation(tmp_path: Path, database_of_installation: str) -> Iterator[Installation]:
    running = begin(tmp_path, database_of_installation)
    yield running
    running.stop()
    print(running.log.read_text()[-5000:])


@pytest.fixture
def ledger(tmp_path: Path, database_of_installation: str) -> Iterator[Engine]:
    """The installation's database, for an outsider to look into."""
    url = database_of_installation or f"sqlite:///{tmp_path / 'mcs' / 'mcs.db'}"
    engine = configure_engine(create_engine(url))
    yield engine
    engine.dispose()


@pytest.fixture
def catcher(installation: Installation) -> "Catcher":
    return Catcher(installation)


class Catcher:
    """The embedded mail server's process, which can be made to hold its breath."""

    def __init__(self, installation: Installation) -> None:
        self._supervisor = installation.process.pid

    def hold(self) -> None:
        self._process().suspend()

    def breathe(self) -> None:
        """For a moment only, in which some messages pass and most do not."""
        self.go_on()
        time.sleep(0.02)
        self.hold()

    def go_on(self) -> None:
        self._process().resume()

    def _process(self) -> psutil.Process:
        children = psutil.Process(self._supervisor).children(recursive=True)
        return next(each for each in children if "mcs.gateways.catcher" in each.cmdline())


@pytest.fixture
def viewer(chromium: Browser, installation: Installation) -> Iterator[Viewer]:
    folder = Path(__file__).parent / "shots" / os.environ.get("MCS_TEST_DATABASE", "sqlite")
    viewer = Viewer(chromium, installation.base_url, folder)
    yield viewer
    print("\n".join(viewer.complaints))
    viewer.close()
