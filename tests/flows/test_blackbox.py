"""The main job from outside: ``make run``'s entry, a client that knows only the contracts, and an
SMTP server that is not ours. It runs on real time, since real processes cannot be told another.
"""

import csv
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from mcs.config import ROOT
from tests.conftest import wait_until
from tests.flows.installation import OWNER, Installation, next_minute
from tests.flows.outsider import Outsider
from tests.mail import Caught, MailServer

EXAMPLES = ROOT / "examples" / "contacts.csv"


@pytest.fixture
def database_url(fresh_database_url: str) -> str:
    return fresh_database_url


@pytest.fixture
def installation(
    tmp_path: Path, database_url: str, redis_url: str, mail_server: MailServer
) -> Iterator[Installation]:
    running = Installation(
        tmp_path,
        {
            "DATABASE_URL": database_url.replace("postgresql+psycopg://", "postgres://"),
            "REDIS_URL": redis_url,
            "MAIL_SERVER": "127.0.0.1",
            "MAIL_PORT": str(mail_server.port),
        },
    )
    yield running
    running.stop()
    print(running.log.read_text()[-5000:])


def valid_addresses() -> set[str]:
    """The addresses of the examples that a person would call valid, each once, on the wire."""
    with EXAMPLES.open(newline="", encoding="utf-8") as file:
        emails = {row["email"].strip() for row in csv.DictReader(file)}
    valid = {email for email in emails if re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s.]+", email)}
    return {_on_the_wire(email) for email in valid}


def schedule(client: Outsider, campaign: str, name: str, at: datetime) -> str:
    answer = client.post(
        f"{campaign}/scenarios/new",
        {
            "name": name,
            "subject": f"{name} for {{{{ name }}}}",
            "content": "Dear {{ name }},\n\nautumn is here.",
            "format": "text",
            "date": at.strftime("%Y-%m-%d"),
            "time": at.strftime("%H:%M"),
        },
    )
    assert answer.status == 303, answer.body
    assert re.search(r"/scenarios/\d+$", answer.location)
    return answer.location


def test_a_campaign_from_csv_to_unsubscribe(
    installation: Installation, mail_server: MailServer, engine: Engine
) -> None:
    client = Outsider(installation.base_url)
    setup = installation.setup_path()
    wait_until(lambda: client.get("/healthz").status == 200, 60)
    assert client.post(setup, OWNER).status == 303
    client.post("/login", OWNER)
    assert client.get("/campaigns/").status == 200

    today = datetime.now(UTC).date()
    answer = client.post(
        "/campaigns/new",
        {
            "name": "Autumn",
            "description": "",
            "start_date": str(today),
            "end_date": str(today + timedelta(days=7)),
            "timezone": "UTC",
            "from_name": "Ada's Shop",
            "from_email": "ada@shop.example",
            "reply_to": "",
            "postal_address": "1 Main Street, 10115 Berlin",
        },
    )
    assert answer.status == 303, answer.body
    campaign = re.sub(r"^https?://[^/]+", "", answer.location)
    upload = client.post(
        f"{campaign}/contacts/upload", {}, file=("contacts.csv", EXAMPLES.read_bytes())
    )
    assert upload.status == 303, upload.body
    wait_until(lambda: _one(engine, "SELECT state FROM imports") == "done", 60)

    expected = valid_addresses()
    assert _one(engine, "SELECT count(*) FROM contacts") == len(expected)
    first_at = next_minute()
    schedule(client, campaign, "First", first_at)
    wait_until(lambda: len(mail_server.mailbox.caught) >= len(expected), 150)
    wait_until(lambda: _one(engine, "SELECT state FROM emailers") == "sent", 20)
    first = list(mail_server.mailbox.caught)
    assert_each_once(first, expected)
    assert_on_time(engine, first_at)
    assert _one(engine, "SELECT contacts_served FROM scenarios") == len(expected)

    leaver = first[0]
    link = str(leaver.message["List-Unsubscribe"]).strip("<>")
    assert link.startswith(installation.base_url)
    stranger = Outsider(installation.base_url)
    assert stranger.get(link).status == 200
    assert _one(engine, "SELECT count(*) FROM suppressions") == 0
    assert stranger.post_raw(link, b"List-Unsubscribe=One-Click").status == 200
    assert stranger.post_raw(link, b"List-Unsubscribe=One-Click").status == 200

    second_at = next_minute()
    schedule(client, campaign, "Second", second_at)
    wait_until(lambda: len(mail_server.mailbox.caught) >= 2 * len(expected) - 1, 150)
    wait_until(lambda: _one(engine, "SELECT count(*) FROM emailers WHERE state = 'sent'") == 2, 20)
    second = mail_server.mailbox.caught[len(first) :]
    assert_each_once(second, expected - {_on_the_wire(leaver.recipient)})
    assert _one(engine, "SELECT reason FROM deliveries WHERE state = 'skipped'") == "unsubscribed"


def assert_each_once(caught: list[Caught], expected: set[str]) -> None:
    assert len(caught) == len(expected)
    assert len({message.delivery for message in caught}) == len(expected)
    assert {_on_the_wire(message.recipient) for message in caught} == expected


def assert_on_time(engine: Engine, at: datetime) -> None:
    """Never before the instant. How soon after is told, not judged: this machine may be busy."""
    with engine.connect() as connection:
        started = connection.scalar(text("SELECT min(started_at) FROM deliveries"))
    moment = datetime.fromisoformat(str(started))
    late = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - at
    print(f"the first message started {late.total_seconds():.3f} s after its instant")
    assert timedelta(0) <= late < timedelta(seconds=60)


def _on_the_wire(email: str) -> str:
    """One spelling of each address: lower case, its domain in ASCII."""
    local, _, domain = email.lower().rpartition("@")
    return f"{local}@{domain.encode('idna').decode()}"


def _one(engine: Engine, query: str) -> object:
    with engine.connect() as connection:
        return connection.scalar(text(query))
