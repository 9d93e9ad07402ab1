"""The mail catcher: an SMTP server on loopback that keeps what it is given, and delivers nothing.

It serves an installation without MAIL_SERVER. A message is a file under the instance folder:
``mail/<thousand>/<number>.eml``, its first line the envelope as JSON, the rest as it came over the
wire. Numbers only grow; the newest KEPT stay.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from bisect import bisect_left, bisect_right
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

from mcs import config
from mcs.gateways import clock, journal

KEPT = 5000
FIRST_PORT, PORTS = 8026, 50
PER_FOLDER = 1000
LARGEST = 32 * 1024 * 1024
SHOWN_IN_LIST = 16_384  # Bytes of a message that a list needs: its headers.


@dataclass(frozen=True)
class Caught:
    """A caught message in a list. ``id`` is for ``message``, and for ``before`` of ``messages``."""

    id: str
    received_at: datetime
    envelope_from: str
    envelope_to: str
    sender: str
    to: str
    subject: str
    size: int


@dataclass(frozen=True)
class CaughtMessage:
    """A caught message whole: the envelope, the bytes as they came, and the same parsed."""

    id: str
    received_at: datetime
    envelope_from: str
    envelope_to: tuple[str, ...]
    raw: bytes
    parsed: EmailMessage

    @property
    def text(self) -> str:
        """The text/plain part, or nothing."""
        return self._part("plain")

    @property
    def html(self) -> str:
        """The text/html part as it was sent, not cleaned, or nothing."""
        return self._part("html")

    def _part(self, kind: str) -> str:
        part = self.parsed.get_body(preferencelist=(kind,))
        if part is None:
            return ""
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)
        try:
            return payload.decode(part.get_content_charset() or "utf-8", errors="replace")
        except LookupError:
            return payload.decode(errors="replace")


def messages(instance: Path, limit: int, before: str | None = None) -> list[Caught]:
    """The newest caught messages first, at most ``limit``, older than the id ``before``."""
    numbers, older_than = _kept(instance), _number(before or "")
    if older_than is not None:
        numbers = numbers[: bisect_left(numbers, older_than)]
    found: list[Caught] = []
    for number in reversed(numbers):
        if len(found) == limit:
            break
        try:
            found.append(_listed(_path(instance, number)))
        except (OSError, ValueError):
            continue  # Gone in the meantime: the oldest make room.
    return found


def message(instance: Path, id: str) -> CaughtMessage | None:
    """One caught message, or None when there is none of that id (any more)."""
    number = _number(id)
    if number is None:
        return None
    try:
        head, _, raw = _path(instance, number).read_bytes().partition(b"\n")
        envelope = json.loads(head)
    except (OSError, ValueError):
        return None
    return CaughtMessage(
        id=id,
        received_at=datetime.fromisoformat(envelope["received_at"]),
        envelope_from=envelope["from"],
        envelope_to=tuple(envelope["to"]),
        raw=raw,
        parsed=message_from_bytes(raw, policy=policy.default),
    )


def find(
    instance: Path, opaque: str, since: datetime, until: datetime, margin: timedelta
) -> str | None:
    """The id of the message of a delivery, which names itself so, that was caught between two
    moments, or that much before or after; None where none is kept.

    Of several, the one nearest to the first moment.
    """
    mark = f"\r\nX-MCS-Delivery: {opaque}\r\n".encode("ascii")

    def caught_at(number: int) -> datetime:
        return _received_at(_path(instance, number))

    numbers = _kept(instance)
    first = bisect_left(numbers, since - margin, key=caught_at)
    last = bisect_right(numbers, until + margin, lo=first, key=caught_at)
    likely = bisect_left(numbers, since, lo=first, hi=last, key=caught_at)
    for place in sorted(range(first, last), key=lambda place: abs(place - likely)):
        if mark in _headers(_path(instance, numbers[place])):
            return str(numbers[place])
    return None


class Box:
    """The folder of caught messages, as its one writer holds it."""

    def __init__(self, instance: Path, kept: int = KEPT) -> None:
        self.instance, self.kept = instance, kept
        self.last = max(_kept(instance), default=0)

    def add(self, received_at: datetime, sender: str, to: list[str], raw: bytes) -> str:
        """Keep a message, let the oldest go; the new one's id."""
        self.last += 1
        path = _path(self.instance, self.last)
        if self.last % PER_FOLDER == 0 or not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
        envelope = {"received_at": received_at.isoformat(), "from": sender, "to": to}
        draft = path.with_suffix(".part")
        draft.write_bytes(json.dumps(envelope).encode() + b"\n" + raw)
        os.replace(draft, path)
        self._let_go(self.last - self.kept)
        return str(self.last)

    def _let_go(self, number: int) -> None:
        if number < 1:
            return
        path = _path(self.instance, number)
        path.unlink(missing_ok=True)
        if number % PER_FOLDER == PER_FOLDER - 1 and not any(path.parent.iterdir()):
            path.parent.rmdir()


class _Keeper:
    """What aiosmtpd calls."""

    def __init__(self, box: Box) -> None:
        self.box = box

    async def handle_EHLO(
        self,
        server: SMTP,
        session: Session,
        envelope: Envelope,
        hostname: str,
        responses: list[str],
    ) -> list[str]:
        session.host_name = hostname
        return [responses[0], "250-PIPELINING", *responses[1:]]

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert envelope.original_content is not None
        raw = envelope.original_content
        self.box.add(clock.now(), envelope.mail_from or "", envelope.rcpt_tos, raw)
        return "250 OK kept"


class _Server(SMTP):
    """aiosmtpd reads a message line by line, at 300 messages a second; this one in few pieces."""

    line_length_limit = LARGEST

    async def smtp_DATA(self, arg: str | None) -> None:
        if await self.check_helo_needed():
            return
        assert self.envelope is not None
        if not self.envelope.rcpt_tos:
            await self.push("503 Error: need RCPT command")
            return
        await self.push("354 End data with <CR><LF>.<CR><LF>")
        raw = bytearray(b"\r\n")
        # Up to each line that ends with a dot: what follows the last one may be the next command.
        while not raw.endswith(b"\r\n.\r\n") and len(raw) <= LARGEST:
            raw += await self._reader.readuntil(b".\r\n")
        self.envelope.original_content = bytes(raw.replace(b"\r\n..", b"\r\n.")[2:-3])
        status = await self.event_handler.handle_DATA(self, self.session, self.envelope)
        self._set_post_data_state()
        await self.push(status)


async def serve(instance: Path, stop: asyncio.Event | None = None) -> None:
    """Catch mail until SIGTERM or SIGINT, and say in a file on which port."""
    loop = asyncio.get_running_loop()
    stop = stop or asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    keeper = _Keeper(Box(instance))

    def one() -> SMTP:
        return _Server(keeper, enable_SMTPUTF8=True, hostname="localhost", ident="MCS", loop=loop)

    server, port = await _listen(loop, one, config.catcher_port(instance))
    _write(config.catcher_port_file(instance), str(port))
    print(f"caught mail is kept; listening on 127.0.0.1:{port}", flush=True)  # noqa: T201
    async with server:
        await stop.wait()


async def _listen(
    loop: asyncio.AbstractEventLoop, one: Any, last: int
) -> tuple[asyncio.Server, int]:
    """The port it had the last time, since senders may know it still, or the first free one."""
    for port in (last, *range(FIRST_PORT, FIRST_PORT + PORTS), 0):
        try:
            server = await loop.create_server(one, "127.0.0.1", port, backlog=512)
        except OSError:
            continue
        return server, server.sockets[0].getsockname()[1]
    raise OSError("no free port for the mail catcher")


def _write(path: Path, text: str) -> None:
    draft = path.with_suffix(".part")
    draft.write_text(text)
    os.replace(draft, path)


def _path(instance: Path, number: int) -> Path:
    return instance / "mail" / f"{number // PER_FOLDER:09}" / f"{number:012}.eml"


def _number(id: str) -> int | None:
    return int(id) if id.isascii() and id.isdigit() and len(id) < 16 else None


def _kept(instance: Path) -> list[int]:
    """The numbers of the messages there are, the oldest first: as they were caught."""
    found: list[int] = []
    for folder in (instance / "mail").glob("[0-9]*"):
        with suppress(FileNotFoundError):  # It goes with its last message.
            found += [int(name[:-4]) for name in os.listdir(folder) if name.endswith(".eml")]
    return sorted(found)


def _received_at(path: Path) -> datetime:
    try:
        with open(path, "rb") as file:
            return datetime.fromisoformat(json.loads(file.readline())["received_at"])
    except (OSError, ValueError):
        return _LONG_AGO  # Gone in the meantime: the oldest make room.


_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def _headers(path: Path) -> bytes:
    """Whole lines; none where the message is gone."""
    try:
        with open(path, "rb") as file:
            file.readline()
            return b"\r\n" + file.read(SHOWN_IN_LIST).partition(b"\r\n\r\n")[0] + b"\r\n"
    except OSError:
        return b""


def _listed(path: Path) -> Caught:
    with open(path, "rb") as file:
        head = file.readline()
        headers = file.read(SHOWN_IN_LIST).partition(b"\r\n\r\n")[0]
        size = os.fstat(file.fileno()).st_size - len(head)
    envelope = json.loads(head)
    parsed = message_from_bytes(headers, policy=policy.default)
    return Caught(
        id=str(int(path.stem)),
        received_at=datetime.fromisoformat(envelope["received_at"]),
        envelope_from=envelope["from"],
        envelope_to=", ".join(envelope["to"]),
        sender=str(parsed.get("From", "")),
        to=str(parsed.get("To", "")),
        subject=str(parsed.get("Subject", "")),
        size=size,
    )


def main() -> None:
    """``python -m mcs.gateways.catcher FOLDER``: what ``make run`` starts."""
    journal.begin()
    logging.getLogger("mail.log").setLevel(logging.ERROR)  # It would log each command it hears.
    asyncio.run(serve(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
