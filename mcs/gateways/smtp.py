"""One SMTP connection, driven by asyncio: RFC 5321, with PIPELINING (RFC 2920) when offered.

With pipelining a message costs one round trip: the final dot of one and the envelope of the next
travel together. TLS is verified against the system's authorities, and STARTTLS is required when it
is asked for: a server that stops offering it is refused before the login is sent (a downgrade).
"""

import asyncio
import base64
import contextlib
import functools
import ssl
from collections import deque
from dataclasses import dataclass

from mcs.config import Settings
from mcs.core.smtp import BadReply, Offers, Reply, ReplyReader, offers

# RFC 5321 section 4.5.3.2 asks for long patience; shorter at the final dot makes duplicates.
CONNECT_SECONDS = 30
COMMAND_SECONDS = 60
DOT_SECONDS = 600
QUIT_SECONDS = 5


class Unreachable(Exception):
    """The server cannot be talked to; the text says why, for a person."""


class Refused(Exception):
    """The server refuses us, not a recipient: the login, or TLS that it must offer."""


class Disconnected(Exception):
    """The connection ended. ``dot_left`` says whether the final dot may have reached the server."""

    def __init__(self, text: str, dot_left: bool) -> None:
        super().__init__(text)
        self.dot_left = dot_left


@dataclass(frozen=True)
class Server:
    """Where mail goes, and how we say who we are."""

    host: str
    port: int
    use_tls: bool = False
    use_ssl: bool = False
    username: str = ""
    password: str = ""
    helo: str = "localhost"
    tls: ssl.SSLContext | None = None


class Connection(asyncio.Protocol):
    """An open connection. One task talks on it, and reads each reply in the order of commands."""

    def __init__(self) -> None:
        self.offers = Offers()
        self._reader = ReplyReader()
        self._replies: deque[Reply] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._ended: str | None = None
        self._garbled = False
        self._transport: asyncio.Transport | None = None
        self._dot_out = False
        self._after_dot = 0
        self._patience: asyncio.TimerHandle | None = None
        self._patience_seconds = self._patient_until = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._garbled:
            # Nobody knows which command a reply after nonsense is to.
            return
        try:
            # Those before the nonsense too: nothing takes back that a message was accepted.
            self._replies.extend(self._reader.feed(data))
        except BadReply as error:
            self._garbled = True
            self._end(str(error))
        self._wake()

    def eof_received(self) -> None:
        self._end("the mail server closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(str(exc) if exc else "the mail server closed the connection")

    def begin(self, sender: str, recipient: str, utf8: bool) -> None:
        """Send an ``envelope``; three replies follow. Only with pipelining."""
        self._write(envelope(sender, recipient, utf8))

    def mail(self, sender: str, utf8: bool) -> None:
        """Send MAIL; one reply follows."""
        self._write(_mail(sender, utf8))

    def rcpt(self, recipient: str) -> None:
        """Send RCPT; one reply follows."""
        self._write(_rcpt(recipient))

    def command(self, line: str) -> None:
        """Send one command line."""
        self._write(f"{line}\r\n".encode())

    def content(self, data: bytes, then: bytes = b"") -> None:
        """Send a message's dot-stuffed content and the final dot; one reply follows.

        ``then`` is the ``envelope`` of the next message. It leaves in the same system call: each
        wakes the server, which was a fifth of all the time that a message took.
        """
        self._write(b"".join((data, b".\r\n", then)))
        self._dot_out, self._after_dot = self.open, len(then)

    async def reply(self, seconds: float = COMMAND_SECONDS) -> Reply:
        """The next reply. Raises Disconnected when there will be none."""
        if not self._replies:
            await self._more(seconds)
        return self._replies.popleft()

    def invited(self) -> bool:
        """Whether the server has accepted a whole envelope and waits for the content.

        True takes those three replies; False takes none: they are elsewise, or not all here.
        """
        replies = self._replies
        if len(replies) < 3 or replies[2].code != 354:
            return False
        if not (replies[0].accepts and replies[1].accepts):
            return False
        for _ in range(3):
            replies.popleft()
        return True

    async def dot_reply(self) -> Reply:
        """The reply to the final dot."""
        reply = await self.reply(DOT_SECONDS)
        self._dot_out = False
        return reply

    @property
    def open(self) -> bool:
        return self._ended is None

    def expect_more(self) -> None:
        """Raises Disconnected when no more replies will come than are here."""
        if self._ended is not None:
            raise self._disconnected(self._ended)

    async def quit(self) -> None:
        """Say goodbye if there is anybody left, and close."""
        with contextlib.suppress(Disconnected):
            self.command("QUIT")
            await self.reply(QUIT_SECONDS)
        self.close()

    def give_up(self, why: str) -> None:
        """Wait no longer for replies: whoever waits gets Disconnected."""
        self._end(why)

    def close(self) -> None:
        """Close at once: what was sent of an unfinished message is void."""
        self._end("closed")
        if self._transport is not None:
            self._transport.abort()

    async def start_tls(self, tls: ssl.SSLContext, host: str) -> None:
        """Go on encrypted. Raises Unreachable when the certificate is not to be trusted."""
        loop = asyncio.get_running_loop()
        assert self._transport is not None
        # What came before TLS must not be taken for what comes within (CVE-2011-0411).
        self._replies.clear()
        self._reader = ReplyReader()
        try:
            secured = await loop.start_tls(
                self._transport,
                self,
                tls,
                server_hostname=host,
                ssl_handshake_timeout=CONNECT_SECONDS,
            )
        except (OSError, TimeoutError) as error:
            raise Unreachable(f"{host}: {_why(error)}") from None
        assert secured is not None
        self._transport = secured

    def _write(self, data: bytes) -> None:
        if self._transport is not None and self._ended is None:
            self._transport.write(data)
            self._after_dot += len(data)

    async def _more(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        while not self._replies:
            self.expect_more()
            self._waiter = loop.create_future()
            self._be_patient(loop, seconds)
            try:
                await self._waiter
            finally:
                self._waiter = None

    def _be_patient(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        """Have the wait that begins now end after ``seconds``.

        A timer that rings too early is set again then: a timer per reply would cost more than
        all else that waiting for one does.
        """
        self._patience_seconds = seconds
        self._patient_until = loop.time() + seconds
        if self._patience is None or self._patience.when() > self._patient_until:
            self._set_timer(loop)

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        self._stop_timer()
        self._patience = loop.call_at(self._patient_until, self._out_of_patience, loop)

    def _stop_timer(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _out_of_patience(self, loop: asyncio.AbstractEventLoop) -> None:
        self._patience = None
        if self._waiter is None:
            return
        if loop.time() < self._patient_until:
            self._set_timer(loop)
        else:
            self._end(f"the mail server said nothing for {self._patience_seconds:g} s")

    def _disconnected(self, why: str) -> Disconnected:
        # What the transport still holds has not left. That is the dot too, unless it holds no more
        # than what was written after it: the envelope of the next message.
        unsent = self._transport.get_write_buffer_size() if self._transport else 0
        return Disconnected(why, dot_left=self._dot_out and unsent <= self._after_dot)

    def _end(self, why: str) -> None:
        if self._ended is None:
            self._ended = why
        self._stop_timer()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def envelope(sender: str, recipient: str, utf8: bool) -> bytes:
    """MAIL, RCPT and DATA at once."""
    return _mail(sender, utf8) + _rcpt(recipient) + b"DATA\r\n"


def _mail(sender: str, utf8: bool) -> bytes:
    return f"MAIL FROM:<{sender}>{' SMTPUTF8' if utf8 else ''}\r\n".encode()


def _rcpt(recipient: str) -> bytes:
    return f"RCPT TO:<{recipient}>\r\n".encode()


async def connect(server: Server) -> Connection:
    """Connect, secure, greet and log in. Raises Unreachable, or Refused when it is about us."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, connection = await loop.create_connection(
                Connection,
                server.host,
                server.port,
                ssl=(server.tls or _trusting()) if server.use_ssl else None,
            )
    except (OSError, TimeoutError) as error:
        raise Unreachable(f"{server.host}:{server.port}: {_why(error)}") from None
    try:
        await _greet(connection, server)
        if server.use_tls:
            await _secure(connection, server, server.tls or _trusting())
        if server.username:
            await _log_in(connection, server)
        connection.expect_more()
    except Disconnected as error:
        connection.close()
        raise Unreachable(f"{server.host}:{server.port}: {error}") from None
    except BaseException:
        connection.close()
        raise
    return connection


@functools.cache
def _trusting() -> ssl.SSLContext:
    """Verifies against the system's authorities. Reading those takes 48 ms, so: once."""
    return ssl.create_default_context()


async def _greet(connection: Connection, server: Server) -> None:
    hello = await connection.reply()
    if hello.code != 220:
        raise Unreachable(f"{server.host}:{server.port} says {hello}")
    await _ehlo(connection, server)


async def _ehlo(connection: Connection, server: Server) -> None:
    connection.command(f"EHLO {server.helo}")
    greeting = await connection.reply()
    if greeting.code == 250:
        connection.offers = offers(greeting)
        return
    connection.command(f"HELO {server.helo}")
    greeting = await connection.reply()
    if greeting.code != 250:
        raise Unreachable(f"{server.host}:{server.port} says {greeting}")


async def _secure(connection: Connection, server: Server, tls: ssl.SSLContext) -> None:
    if not connection.offers.starttls:
        raise Refused(
            f"{server.host} does not offer STARTTLS, which MAIL_USE_TLS asks for: nothing was sent"
        )
    connection.command("STARTTLS")
    reply = await connection.reply()
    if reply.code != 220:
        raise Unreachable(f"{server.host} refused STARTTLS: {reply}")
    await connection.start_tls(tls, server.host)
    await _ehlo(connection, server)


async def _log_in(connection: Connection, server: Server) -> None:
    if "PLAIN" in connection.offers.auth or not connection.offers.auth:
        secret = f"\0{server.username}\0{server.password}".encode()
        connection.command(f"AUTH PLAIN {base64.b64encode(secret).decode()}")
    else:
        connection.command("AUTH LOGIN")
        await connection.reply()
        connection.command(base64.b64encode(server.username.encode()).decode())
        await connection.reply()
        connection.command(base64.b64encode(server.password.encode()).decode())
    reply = await connection.reply()
    if reply.code == 235:
        return
    if reply.code < 500:
        raise Unreachable(f"{server.host} cannot check the login now: {reply}")
    raise Refused(f"{server.host} refused the login of {server.username}: {reply}")


def _why(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_SECONDS} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted ({error.verify_message})"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def server(settings: Settings) -> Server:
    """The mail server that the settings name."""
    return Server(
        host=settings.mail_server,
        port=settings.mail_port,
        use_tls=settings.mail_use_tls,
        use_ssl=settings.mail_use_ssl,
        username=settings.mail_username,
        password=settings.mail_password,
        helo=settings.mail_domain,
    )
