"""The mailer hands over one message, or says in a sentence why not."""

import socket
from collections.abc import Iterator

import pytest

from mcs.gateways.mailer import MailServer, NotSent, send
from tests import mail
from tests.mail import Mailbox

MESSAGE = b"Subject: Hello\r\nTo: ann@people.example\r\n\r\nHello.\r\n"


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def server(mailbox: Mailbox) -> Iterator[MailServer]:
    with mail.MailServer(mailbox) as running:
        yield MailServer("127.0.0.1", running.port, "", "", use_tls=False, use_ssl=False)


def hand_over(server: MailServer, **options: bool) -> str:
    return send(server, "ada@shop.example", "ann@people.example", MESSAGE, **options)


def test_what_is_accepted_arrived_as_it_was(mailbox: Mailbox, server: MailServer) -> None:
    assert hand_over(server)
    (caught,) = mailbox.caught
    assert (caught.sender, caught.recipient) == ("ada@shop.example", "ann@people.example")
    assert caught.content.rstrip() == MESSAGE.rstrip()


def test_a_refusal_is_told_in_the_servers_words(mailbox: Mailbox, server: MailServer) -> None:
    mailbox.at_rcpt = lambda recipient: "550 5.1.1 no such person"
    with pytest.raises(NotSent, match=r"refused it: 550 5\.1\.1 no such person"):
        hand_over(server)
    assert mailbox.caught == []


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(NotSent, match="cannot be reached"):
        hand_over(MailServer("127.0.0.1", port, "", "", use_tls=False, use_ssl=False))


def test_starttls_is_required_where_it_is_asked_for(mailbox: Mailbox, server: MailServer) -> None:
    asked = MailServer(server.host, server.port, "", "", use_tls=True, use_ssl=False)
    with pytest.raises(NotSent, match="cannot do what is needed"):
        hand_over(asked)
    assert mailbox.caught == []


def test_no_password_goes_over_an_open_line(mailbox: Mailbox, server: MailServer) -> None:
    asked = MailServer(server.host, server.port, "olga", "secret", use_tls=False, use_ssl=False)
    with pytest.raises(NotSent):
        hand_over(asked)


def test_a_line_break_in_an_address_is_refused(mailbox: Mailbox, server: MailServer) -> None:
    with pytest.raises(NotSent):
        send(
            server, "ada@shop.example", "ann@people.example>\r\nRCPT TO:<eve@evil.example", MESSAGE
        )
    assert mailbox.caught == []
