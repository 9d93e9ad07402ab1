"""Mail servers that end a connection where few do, or talk nonsense: whose attempt that is."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from socketserver import StreamRequestHandler, ThreadingTCPServer

import pytest
from sqlalchemy import select

from mcs.gateways import smtp
from mcs.models import Contact, Delivery
from mcs.services.desk import Desk
from mcs.services.feeds import Letter
from mcs.services.recorder import Told
from tests.services.conftest import Scene

# What a server says to the lines of a connection so far; nothing is to hang up.
Answers = Callable[[list[str]], str]
Row = tuple[str, str, int]

PIPELINING = "250-x\r\n250 PIPELINING"
ONE_BY_ONE = "250 x"


class Server(ThreadingTCPServer):
    """Says what it is told to; ``dots`` are how many messages it was given whole."""

    daemon_threads = True

    def __init__(self, answers: Answers) -> None:
        super().__init__(("127.0.0.1", 0), _Conversation)
        self.answers = answers
        self.dots = 0


class _Conversation(StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Server)
        said: list[str] = ["220 hello"]
        heard: list[str] = []
        while answer := said.pop():
            self.wfile.write(f"{answer}\r\n".encode())
            line = self.rfile.readline().decode()
            if not line:
                break
            if answer.startswith("354"):
                while line != ".\r\n":
                    line = self.rfile.readline().decode()
                self.server.dots += 1
            heard.append(line.strip())
            said.append(self.server.answers(heard))


@pytest.fixture
def serve(scene: Scene) -> Iterator[Callable[[Answers], Server]]:
    """Has the lane send through such a server, over one connection at a time."""
    servers: list[Server] = []

    def serve(answers: Answers) -> Server:
        server = Server(answers)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        scene.set(mail_port=server.server_address[1], smtp_connections=1)
        scene.given = replace(scene.given, server=smtp.server(scene.given.settings))
        return server

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def usual(line: str, greeting: str = ONE_BY_ONE) -> str:
    """What any server says."""
    return {"EHLO": greeting, "DATA": "354 go on", "QUIT": "221 bye"}.get(line[:4], "250 OK")


def rows(scene: Scene) -> list[Row]:
    """Each contact's name, what became of it, and in how many attempts."""
    scene.session.rollback()
    found = scene.session.execute(
        select(Contact.name, Delivery.state, Delivery.attempts)
        .join(Contact, Contact.id == Delivery.contact_id)
        .order_by(Delivery.id)
    )
    return [(name, state, attempts) for name, state, attempts in found]


@pytest.mark.parametrize("greeting", [PIPELINING, ONE_BY_ONE])
@pytest.mark.parametrize("on_doubt", ["hold", "resend"])
def test_a_message_that_was_accepted_before_nonsense_is_sent(
    scene: Scene, serve: Callable[[Answers], Server], greeting: str, on_doubt: str
) -> None:
    def answers(heard: list[str]) -> str:
        return "250 2.0.0 queued\r\n" if heard[-1] == "." else usual(heard[-1], greeting)

    server = serve(answers)
    scene.set(on_doubt=on_doubt)
    scene.add("Ann", "Bob", "Cleo")
    scene.start()
    scene.deliver()
    assert rows(scene) == [("Ann", "sent", 1), ("Bob", "sent", 1), ("Cleo", "sent", 1)]
    assert server.dots == 3


def test_a_server_that_greets_with_nonsense_is_nobodys_attempt(
    scene: Scene, serve: Callable[[Answers], Server]
) -> None:
    serve(lambda heard: usual(heard[-1], "250 x\r\n"))
    scene.add("Ann")
    scene.start()
    scene.deliver()
    assert rows(scene) == [("Ann", "pending", 0)]
    assert "no SMTP reply" in scene.progress().notice


def ends_after(letters: int, says: str, greeting: str) -> Answers:
    """A server that knows nobody called Bad, and ends a connection when so many were begun."""

    def answers(heard: list[str]) -> str:
        if sum(line.startswith("MAIL") for line in heard) > letters:
            return says if heard[-1].startswith("MAIL") else ""
        if heard[-1].startswith("RCPT") and "bad" in heard[-1]:
            return "550 5.1.1 No such user"
        if heard[-1] == "DATA" and "bad" in heard[-2]:
            return "503 5.5.1 No recipients"
        return usual(heard[-1], greeting)

    return answers


@pytest.mark.parametrize("greeting", [PIPELINING, ONE_BY_ONE])
@pytest.mark.parametrize("letters", [1, 2])
@pytest.mark.parametrize("says", ["", "421 4.7.0 Error: too many errors"])
def test_a_connection_whose_first_letters_were_refused_may_end(
    scene: Scene,
    serve: Callable[[Answers], Server],
    says: str,
    letters: int,
    greeting: str,
) -> None:
    """Postfix ends one after twenty errors, others after a refusal, or when nothing is said."""
    serve(ends_after(letters, says, greeting))
    scene.add("Bad1", "Bad2", "Ann", "Bad3", "Bob")
    scene.start()
    scene.deliver()
    assert rows(scene) == [
        ("Bad1", "failed", 1),
        ("Bad2", "failed", 1),
        ("Ann", "sent", 1),
        ("Bad3", "failed", 1),
        ("Bob", "sent", 1),
    ]
    assert (scene.emailer.state, scene.emailer.cuts) == ("sent", 0)
    assert scene.progress().notice == ""


def test_a_letter_that_ends_fresh_connections_is_tried_and_the_others_go(
    scene: Scene, serve: Callable[[Answers], Server]
) -> None:
    def answers(heard: list[str]) -> str:
        if heard[-1].startswith("RCPT") and "poison" in heard[-1]:
            return ""
        return ends_after(9, "", ONE_BY_ONE)(heard)

    serve(answers)
    scene.add("Bad", "Poison", "Ann")
    scene.start()
    scene.deliver()
    assert rows(scene) == [("Bad", "failed", 1), ("Poison", "pending", 1), ("Ann", "sent", 1)]


@pytest.mark.parametrize("greeting", [PIPELINING, ONE_BY_ONE])
def test_who_waits_behind_a_letter_that_is_cut_off_goes_over_the_next_connection(
    scene: Scene, serve: Callable[[Answers], Server], greeting: str
) -> None:
    cut = []

    def answers(heard: list[str]) -> str:
        if heard[-1] == "." and not cut:
            cut.append(heard)
            return ""
        return usual(heard[-1], greeting)

    serve(answers)
    scene.add("Ann", "Bob", "Cleo")
    scene.start()
    scene.deliver_due(seconds=10)
    assert rows(scene) == [("Ann", "in_doubt", 1), ("Bob", "sent", 1), ("Cleo", "sent", 1)]
    assert scene.emailer.state == "sent"


def test_who_is_frozen_between_a_start_and_its_content_hands_nothing_over(
    scene: Scene, serve: Callable[[Answers], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then another worker may have called the message in doubt, and a person have sent it."""
    may_start = Desk.may_start
    lease = timedelta(seconds=scene.given.settings.lease_seconds)

    async def freeze(desk: Desk, answered: Told | None, letter: Letter) -> bool:
        started = await may_start(desk, answered, letter)
        scene.passed += lease
        return started

    server = serve(lambda heard: usual(heard[-1], PIPELINING))
    monkeypatch.setattr(Desk, "may_start", freeze)
    scene.add("Ann", "Bob")
    scene.start()
    scene.deliver_due(seconds=5)
    assert server.dots == 0
    assert "sent" not in scene.states().values()
