"""A real SMTP server for the tests, that keeps what it accepts and can be told how to answer."""

import email
import email.policy
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from email.message import EmailMessage

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session


@dataclass
class Caught:
    """A message that was accepted: its envelope, and the bytes as they came."""

    sender: str
    recipient: str
    content: bytes

    @property
    def message(self) -> EmailMessage:
        parsed = email.message_from_bytes(self.content, policy=email.policy.default)
        assert isinstance(parsed, EmailMessage)
        return parsed

    @property
    def delivery(self) -> str:
        return str(self.message["X-MCS-Delivery"])


@dataclass
class Mailbox:
    """What the server accepted, in order, and how it answers.

    ``at_rcpt`` and ``at_dot`` are asked for each recipient; an empty answer accepts. Before it is
    asked at the dot, the server ``thinks``, while other connections go on. ``share`` is how many
    messages a connection may carry; 0 is without end.
    """

    caught: list[Caught] = field(default_factory=list)
    at_rcpt: Callable[[str], str] = lambda recipient: ""
    at_dot: Callable[[str], str] = lambda recipient: ""
    thinks: Callable[[str], Awaitable[None]] | None = None
    share: int = 0
    begun: Counter[Session] = field(default_factory=Counter)

    @property
    def recipients(self) -> list[str]:
        return sorted(caught.recipient for caught in self.caught)

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.begun[session] += 1
        if 0 < self.share < self.begun[session]:
            return "421 4.4.2 Maximum message count per session reached"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        refusal = self.at_rcpt(address)
        if not refusal:
            envelope.rcpt_tos.append(address)
        return refusal or "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        (recipient,) = envelope.rcpt_tos
        assert isinstance(envelope.content, bytes)
        if self.thinks is not None:
            await self.thinks(recipient)
        refusal = self.at_dot(recipient)
        if not refusal:
            self.caught.append(Caught(str(envelope.mail_from), recipient, envelope.content))
        return refusal or "250 2.0.0 OK"


class MailServer:
    """The server itself, on a free loopback port."""

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox
        self._controller = Controller(
            mailbox, hostname="127.0.0.1", port=free_port(), enable_SMTPUTF8=True, data_size_limit=0
        )

    def __enter__(self) -> "MailServer":
        self._controller.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._controller.stop()

    @property
    def port(self) -> int:
        return int(self._controller.port)


def free_port() -> int:
    """A loopback port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
