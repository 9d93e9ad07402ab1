"""Messages a second, side by side: MCS, Flask-Mail, smtplib, and Postfix's smtp-source.

``make bench``, or ``python -m benchmarks.send --help``. The server is Postfix's smtp-sink. MCS is
timed end to end: from the instant at which the emailer is due to the one at which its ledger is
complete, with real workers, a real clock and durable commits. Every run has all contestants take
their turns, and ratios are those within one run, so that other load on the machine hits them alike.
It reports and never fails for being slow.
"""

import argparse
import math
import os
import platform
import shutil
import signal
import smtplib
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from flask import Flask
from flask_mail import Mail
from flask_mail import Message as FlaskMessage

from benchmarks.parts import CONTENT, SUBJECT, Installation, Stage, Theft
from mcs.core.message import Composer, MessageTemplate, Person
from mcs.services import headway

# Contestants without a ledger, that do the same for each message, are timed on fewer.
FLASK_MAIL_MESSAGES = 1_000
LATENCY_MS = 50
LATENCY_SECONDS = 60
# Of one's own mail server. The setting's default, 8, is what every provider takes.
CONNECTIONS = 24
LATENCY_CONNECTIONS = (1, 10, 50, 100)
LATENCY_GUESS = 20  # messages a second and connection: how many recipients fill the time

Rates = dict[str, list[float]]


def main() -> None:
    """Run what the command line asks for, and print the tables."""
    parser = argparse.ArgumentParser(prog="benchmarks.send", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--recipients", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help="MCS_SMTP_CONNECTIONS")
    parser.add_argument("--only", choices=("sqlite", "postgres", "peers", "latency"), nargs="*")
    asked = parser.parse_args()
    only = set(asked.only or ("sqlite", "postgres", "peers", "latency"))
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, Python {platform.python_version()},", end=" ")
    print(f"{_cores()} cores, load {os.getloadavg()[0]:.1f}; smtp-sink on loopback; ", end="")
    print(f"median of {asked.runs} runs")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with Stage() as stage:
        stage.redis()
        port = stage.sink()
        print(f"{len(message(1).data):,} bytes a message on the wire")
        if only - {"latency"}:
            _at_wire_speed(stage, port, only, asked.runs, asked.recipients, asked.connections)
        if "latency" in only:
            _at_latency(stage, stage.delayed(port, LATENCY_MS))


def _at_wire_speed(
    stage: Stage, port: int, only: set[str], runs: int, recipients: int, connections: int
) -> None:
    turns: dict[str, Callable[[], float]] = {}
    if "peers" in only:
        turns |= {
            "b  Flask-Mail": lambda: flask_mail(port, min(recipients, FLASK_MAIL_MESSAGES)),
            "c  smtplib, ready bytes": lambda: smtplib_ready(port, recipients),
            "d  smtp-source -d -s 10": lambda: smtp_source(port, recipients),
        }
    for name, new in (("SQLite", stage.sqlite), ("PostgreSQL", stage.postgres)):
        if {"SQLite": "sqlite", "PostgreSQL": "postgres"}[name] in only:
            here = Installation(stage, new())
            campaign_id = here.campaign(recipients)
            for workers in (1, 2):
                turns[f"a  MCS, {name}, {workers} worker{'s' * (workers > 1)}"] = _turn(
                    here, campaign_id, workers, port, connections
                )
    rates: Rates = defaultdict(list)
    thefts: Rates = defaultdict(list)
    try:
        for run in range(runs):
            for name, turn in turns.items():
                theft = Theft()
                rates[name].append(turn())
                thefts[name].append(theft.share())
                said = f"{rates[name][-1]:>9,.0f}/s, stolen {thefts[name][-1]:.0%}"
                print(f"  run {run + 1}: {name:32}{said}", flush=True)
    finally:  # A run that was cut short shows what it has.
        _report(rates, thefts, recipients, connections)


def _report(rates: Rates, thefts: Rates, recipients: int, connections: int) -> None:
    print(f"\n{recipients:,} recipients, {connections} connections a worker, messages a second")
    print(f"(Flask-Mail: {min(recipients, FLASK_MAIL_MESSAGES):,} messages)")
    print("(stolen: of the processor time asked for, what the host gave to other guests)")
    _print_table(rates, thefts)


def _turn(
    here: Installation, campaign_id: int, workers: int, port: int, connections: int
) -> Callable[[], float]:
    return lambda: mcs(here, campaign_id, workers, port, connections)


def _at_latency(stage: Stage, port: int) -> None:
    """Each with smtplib on one more connection beside it, while workers start, too, and send: so
    one hour for both."""
    alone = smtplib_ready(port, LATENCY_SECONDS)
    print(f"\n{LATENCY_MS} ms of round-trip time in front of the server, messages a second")
    print(f"(c: smtplib on one more connection meanwhile; with nothing else running {alone:.2f})")
    title = "   (workers x connections)"
    print(f"{title:36}{'all':>9}{'each':>8}{'c':>7}{'stolen':>8}{'x c':>7}{'bar':>6}")
    for name, new, most in (("SQLite", stage.sqlite, 1), ("PostgreSQL", stage.postgres, 2)):
        here = Installation(stage, new())
        for connections in LATENCY_CONNECTIONS:
            workers = min(most, connections)
            campaign_id = here.campaign(connections * LATENCY_GUESS * LATENCY_SECONDS)
            theft = Theft()
            with _smtplib_beside(port) as beside:
                rate = mcs(here, campaign_id, workers, port, connections // workers)
            each, peer = rate / connections, beside.result()
            title = f"a  MCS, {name}, {workers} x {connections // workers}"
            measured = f"{rate:>9.1f}{each:>8.2f}{peer:>7.2f}{theft.share():>8.0%}"
            print(f"{title:36}{measured}{each / peer:>7.2f}{3.7:>6}", flush=True)


@contextmanager
def _smtplib_beside(port: int) -> Iterator["Future[float]"]:
    """smtplib on one connection, in a thread that mostly sleeps; afterwards its rate."""
    over = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        try:
            yield thread.submit(smtplib_ready, port, over=over.is_set)
        finally:
            over.set()


def mcs(here: Installation, campaign_id: int, workers: int, port: int, connections: int) -> float:
    """From the instant an emailer is due to the one its ledger is complete."""
    with here.working(workers, port, connections):
        second = math.ceil(time.time() + 1.5)
        emailer_id = here.plan(campaign_id, datetime.fromtimestamp(second, UTC))
        emailer = here.wait_for(emailer_id, 600)
        with here.sessions() as session:
            progress = headway.progress(session, emailer_id)
    if (progress.state, progress.sent) != ("sent", emailer.recipients):
        raise RuntimeError(f"not everybody got it: {progress}")
    assert emailer.finished_at is not None
    took: timedelta = emailer.finished_at - emailer.scheduled_at
    return progress.sent / took.total_seconds()


def flask_mail(port: int, number: int) -> float:
    """A plain loop as Flask-Mail's manual shows it: a Message per contact, one connection."""
    app = Flask("plain")
    app.config.update(MAIL_SERVER="127.0.0.1", MAIL_PORT=port, MAIL_DEFAULT_SENDER="a@b.example")
    mail = Mail(app)
    preview = Composer(TEMPLATE).preview(person(0))
    with app.app_context():
        began = time.perf_counter()
        with mail.connect() as connection:
            for contact in map(person, range(number)):
                connection.send(
                    FlaskMessage(
                        subject=preview.subject,
                        recipients=[contact.email],
                        body=preview.text.replace("Person Number 0", contact.name),
                        html=preview.html.replace("Person Number 0", contact.name),
                    )
                )
        return number / (time.perf_counter() - began)


def smtplib_ready(
    port: int, number: int | None = None, over: Callable[[], bool] = lambda: False
) -> float:
    """smtplib on one connection, with bytes that were made before the clock runs: so many messages,
    or as many as it sends until it is over."""
    ready = [message(n) for n in range(min(number or 2000, 2000))]
    with smtplib.SMTP("127.0.0.1", port) as connection:
        connection.ehlo()
        sent, began = 0, time.perf_counter()
        while sent != number and not over():
            each = ready[sent % len(ready)]
            connection.sendmail(each.envelope_from, [each.envelope_to], each.data)
            sent += 1
        return sent / (time.perf_counter() - began)


def smtp_source(port: int, number: int) -> float:
    """Postfix's generator in C: ten connections, each kept open, no ledger, no content."""
    program = shutil.which("smtp-source", path="/usr/sbin:/usr/bin") or "smtp-source"
    size = str(len(message(1).data))
    command = [program, "-d", "-s", "10", "-m", str(number), "-l", size, f"127.0.0.1:{port}"]
    began = time.perf_counter()
    subprocess.run(command, check=True)
    return number / (time.perf_counter() - began)


TEMPLATE = MessageTemplate(
    subject=SUBJECT,
    content=CONTENT,
    format="markdown",
    from_name="Ada's Shop",
    from_email="ada@shop.example",
    reply_to="",
    postal_address="Ada's Shop, 1 Main Street, 10115 Berlin",
    campaign_uid="bench",
    campaign_name="Autumn",
    base_url="https://mail.shop.example",
    mail_domain="mail.shop.example",
)
_COMPOSER = Composer(TEMPLATE)


def person(number: int) -> Person:
    """The contact that bulk SQL makes under this number."""
    return Person(
        email=f"p{number}@people.example",
        name=f"Person Number {number}",
        attributes={"company": f"Company {number}", "city": "Berlin"},
        opaque=f"{number:032x}",
        unsubscribe_url=f"https://mail.shop.example/u/{number:0>70}",
    )


def message(number: int):  # noqa: ANN201
    """The message that MCS would send to that contact."""
    return _COMPOSER.compose(person(number), datetime.now(UTC))


def _print_table(rates: Rates, thefts: Rates) -> None:
    bars = {"SQLite, 1 worker": "10 / 0.4", "PostgreSQL, 2 workers": "10 / 0.4"}
    columns = f"{'median':>9}{'lowest':>9}{'highest':>9}{'stolen':>8}{'x b':>7}{'x c':>7}{'x d':>7}"
    print(f"{'':36}{columns}  bars")
    for name, measured in rates.items():
        ratios = [_ratio(rates, name, peer) for peer in "bcd"]
        bar = next((bar for part, bar in bars.items() if name.endswith(part)), "")
        print(
            f"{name:36}{statistics.median(measured):>9,.0f}{min(measured):>9,.0f}"
            f"{max(measured):>9,.0f}{statistics.median(thefts[name]):>8.0%}"
            f"{''.join(ratios)}  {bar}"
        )


def _ratio(rates: Rates, name: str, peer: str) -> str:
    """The median of the ratios within each run."""
    for other, measured in rates.items():
        if other.startswith(peer):
            pairs = zip(rates[name], measured, strict=False)
            return f"{statistics.median(a / b for a, b in pairs):>7.2f}"
    return f"{'':>7}"


def _cores() -> int:
    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    main()
