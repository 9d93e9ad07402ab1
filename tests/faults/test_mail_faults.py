"""Everything that a mail server may do to us."""

import random
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from mcs.core.breaker import MOST_CUTS, MOST_REFUSALS
from mcs.core.outcomes import Scope
from tests.conftest import wait_until
from tests.faults.conftest import Begin
from tests.faults.world import CONNECTIONS, World

Seeds = Callable[[int, int], range]


def paused(here: World, emailer_id: int) -> str:
    """Wait until MCS has paused it by itself; its notice."""
    here.wait_for(lambda: here.tally(emailer_id).state == "paused")
    here.wait_for(lambda: not here.tally(emailer_id).by_state["sending"])
    return here.book(emailer_id).notice


def test_a_server_that_is_down_at_first_then_back(world: Begin, seeds: Seeds) -> None:
    here = world()
    here.people(300)
    here.begin()
    for _seed in seeds(3, 1):
        here.kill("sink")
        emailer_id = here.scenario()
        here.wait_for(lambda on=emailer_id: "cannot be reached" in here.book(on).notice)
        here.sink()
        here.wait_over(emailer_id)
        here.audit(emailer_id, 0)
        assert here.book(emailer_id).by_state["sent"] == 300
        assert here.book(emailer_id).notice == ""


def test_a_server_that_restarts_in_the_middle(world: Begin, seeds: Seeds) -> None:
    here = world()
    here.people(600)
    here.begin()
    for seed in seeds(3, 1):
        emailer_id = here.scenario()
        here.wait_sent(emailer_id, 1 + 50 * seed)
        here.kill("sink")
        time.sleep(1)
        here.sink()
        here.wait_over(emailer_id, 150)
        here.audit(emailer_id, CONNECTIONS)


@pytest.mark.parametrize("at", ["connect", "ehlo", "mail", "rcpt", "data", "dot"])
def test_421_anywhere(at: str, world: Begin, seeds: Seeds) -> None:
    here = world()
    here.people(100)
    here.begin()
    for seed in seeds(3, 1):
        which = random.Random(seed).sample(range(1, 20), 3)
        here.script({"at": at, "do": "421 4.3.2 Later", "nth": which})
        emailer_id = here.scenario()
        here.wait_over_in_a_hurry(emailer_id)
        here.audit(emailer_id, 0)
        assert here.book(emailer_id).by_state["sent"] == 100


@pytest.mark.short
@pytest.mark.parametrize("pipelining", [True, False])
def test_a_server_that_takes_five_a_connection(pipelining: bool, world: Begin) -> None:
    here = world()
    here.people(100)
    here.begin()
    enough = "421 4.4.2 Maximum message count per session reached"
    here.script({"at": "mail", "do": enough, "after": 5}, pipelining=pipelining)
    emailer_id = here.scenario()
    here.wait_over(emailer_id, 30)
    here.audit(emailer_id, 0)
    assert here.book(emailer_id).by_state["sent"] == 100
    assert here.book(emailer_id).notice == ""


@pytest.mark.parametrize("pipelining", [True, False])
def test_a_mix_of_refusals(pipelining: bool, world: Begin, seeds: Seeds) -> None:
    here = world()
    here.people(300)
    here.begin()
    for seed in seeds(3, 1):
        here.script(
            {"at": "rcpt", "do": "450 4.2.0 Busy", "first": True, "chance": 0.1},
            {"at": "rcpt", "do": "550 5.1.1 Unknown", "to": "p7"},
            {"at": "rcpt", "do": "552 5.2.2 Full", "to": "p13"},
            {"at": "dot", "do": "451 4.3.0 Error", "first": True, "chance": 0.05},
            {"at": "dot", "do": "554 5.6.0 No", "to": "1@"},
            {"at": "dot", "do": "452 4.3.1 Space", "nth": [50]},
            seed=seed,
            pipelining=pipelining,
        )
        emailer_id = here.scenario()
        here.wait_over_in_a_hurry(emailer_id)
        here.audit(emailer_id, 0)
        book = here.book(emailer_id)
        gone = {email for _id, state, email in book.rows if state in ("failed", "skipped")}
        assert gone == {f"p{n}@people.example" for n in range(300) if _refused(str(n))}


def _refused(number: str) -> bool:
    return number.startswith(("7", "13")) or number.endswith("1")


def test_everything_greylisted(world: Begin) -> None:
    here = world()
    here.people(300)
    here.begin()
    here.script({"at": "rcpt", "do": "450 4.7.1 Greylisted", "first": True})
    emailer_id = here.scenario()
    here.wait_over(emailer_id, 180)
    here.audit(emailer_id, 0)
    assert here.book(emailer_id).by_state["sent"] == 300


@pytest.mark.parametrize(
    ("at", "do"),
    [
        ("body", "cut"),
        pytest.param("accepted", "cut", marks=pytest.mark.short),
        ("dot", "garbage"),
        ("accepted", "garbage"),
        ("rcpt", "garbage"),
        ("mail", "cut"),
    ],
)
def test_the_server_breaks_off_now_and_then(at: str, do: str, world: Begin, seeds: Seeds) -> None:
    here = world()
    here.people(150)
    here.begin()
    for seed in seeds(3, 1):
        which = random.Random(seed).sample(range(10, 140), 3)
        here.script({"at": at, "do": do, "nth": which})
        emailer_id = here.scenario()
        here.wait_over_in_a_hurry(emailer_id)
        here.audit(emailer_id, 3)


@pytest.mark.parametrize(("at", "do"), [("dot", "cut"), ("accepted", "cut"), ("dot", "garbage")])
def test_a_server_that_cuts_after_every_dot_stops_the_emailer(
    at: str, do: str, world: Begin, seeds: Seeds
) -> None:
    here = world()
    here.people(300)
    here.begin()
    for _seed in seeds(3, 1):
        here.script({"at": at, "do": do})
        emailer_id = here.scenario()
        assert "in the middle" in paused(here, emailer_id)
        book = here.book(emailer_id)
        assert 0 < book.by_state["in_doubt"] <= CONNECTIONS + MOST_CUTS - 1
        assert book.by_state["pending"] == 300 - book.by_state["in_doubt"]


def test_a_server_that_refuses_the_message_stops_the_emailer(world: Begin, seeds: Seeds) -> None:
    here = world()
    here.people(300)
    here.begin()
    for _seed in seeds(3, 1):
        here.script({"at": "dot", "do": "554 5.7.1 Spam, " + "we think. " * 200})
        emailer_id = here.scenario()
        assert "refused the message" in paused(here, emailer_id)
        assert (
            here.book(emailer_id).by_state["failed"] <= MOST_REFUSALS[Scope.MESSAGE] + CONNECTIONS
        )


def test_a_server_that_refuses_the_sender_marks_nobody(world: Begin, seeds: Seeds) -> None:
    here = world()
    here.people(50)
    here.begin()
    for _seed in seeds(3, 1):
        here.script({"at": "mail", "do": "530 5.7.0 Log in. " + "Long text. " * 100})
        emailer_id = here.scenario()
        assert "sender" in paused(here, emailer_id)
        assert here.book(emailer_id).by_state == {"pending": 50}


def test_one_address_that_breaks_the_connection_fails_alone(world: Begin) -> None:
    here = world(MCS_SMTP_CONNECTIONS="1")
    here.people(40)
    here.begin()
    here.script({"at": "rcpt", "do": "cut", "to": "p3@"})
    emailer_id = here.scenario()
    here.wait_sent(emailer_id, 39)


@pytest.mark.parametrize("people", [pytest.param(500, marks=pytest.mark.short), 5000])
def test_one_poisonous_contact_among_many(people: int, world: Begin) -> None:
    here = world()
    here.people(people)
    with here.engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE contacts SET email = :email WHERE email_key = 'p250@people.example'",
            ),
            {"email": "p250@people.example>\r\nRCPT TO:<eve@evil.example"},
        )
        connection.execute(
            text(
                "UPDATE contacts SET attributes = '[3]' WHERE email_key = 'p260@people.example'",
            )
        )
    here.begin(workers=2)
    emailer_id = here.scenario()
    here.wait_over(emailer_id, 120)
    book = here.book(emailer_id)
    assert book.by_state["sent"] >= people - 2
    assert book.by_state["sent"] + book.by_state["failed"] == people
    here.audit(emailer_id, 0)


def test_hanging_after_the_dot_holds_up_nobody_else(world: Begin) -> None:
    here = world()
    here.people(100)
    here.begin(workers=2)
    here.script({"at": "accepted", "do": "hang", "nth": [30]})
    emailer_id = here.scenario()
    # All but the one that hangs, and the one whose envelope went with it.
    here.wait_sent(emailer_id, 98)
    assert here.book(emailer_id).by_state["sending"] == 1


def test_starttls_stripped_or_with_a_wrong_certificate_sends_nothing(
    world: Begin, tmp_path: Path
) -> None:
    certificate = tmp_path / "certificate.pem"
    options = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=wrong.example"
    subprocess.run(
        ["openssl", *options.split(), "-keyout", certificate, "-out", tmp_path / "c.pem"],
        check=True,
        capture_output=True,
    )
    certificate.write_bytes(certificate.read_bytes() + (tmp_path / "c.pem").read_bytes())
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate)
    here = world(MAIL_USE_TLS="1")
    here.people(20)
    here.begin()
    stripped = here.scenario()
    assert "STARTTLS" in paused(here, stripped)
    here.script(certificate=str(certificate))
    wrong = here.scenario()
    here.wait_for(lambda: "certificate" in here.book(wrong).notice)
    for emailer_id in (stripped, wrong):
        assert here.book(emailer_id).by_state == {"pending": 20}
    wait_until(lambda: not (tmp_path / "accepted").read_text())
