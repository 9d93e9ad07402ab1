"""SMTP as text: replies read from bytes, and what a server's greeting offers (RFC 5321)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

LONGEST_REPLY = 64 * 1024
_LINE = re.compile(rb"^([2-5][0-9]{2})(?:([ -])(.*))?$", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ENHANCED = re.compile(r"^([245]\.\d{1,3}\.\d{1,3})(?:\s|$)")


class BadReply(Exception):
    """What the server says is no SMTP: the connection is of no more use."""


class Reply(NamedTuple):
    """One reply: its code and the text of its lines."""

    code: int
    lines: tuple[str, ...]

    @property
    def accepts(self) -> bool:
        return 200 <= self.code < 300

    @property
    def text(self) -> str:
        return " ".join(self.lines).strip()

    @property
    def enhanced(self) -> str:
        """The enhanced status code (RFC 3463), such as 5.1.1; empty when there is none."""
        found = _ENHANCED.match(self.text)
        return found.group(1) if found else ""

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


class ReplyReader:
    """Cuts a stream of bytes into replies. Raises BadReply for what is none."""

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[str] = []

    def feed(self, received: bytes) -> Iterator[Reply]:
        """The replies that ``received`` completes.

        Each is handed out before what comes after it is read: what the server said before it
        talked nonsense stands, and may be that it accepted a message.
        """
        lines = (self._rest + received).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            reply, is_last = _read(line)
            if not is_last:
                self._lines += reply.lines
            elif self._lines:
                whole = Reply(reply.code, (*self._lines, *reply.lines))
                self._lines = []
                yield whole
            else:
                yield reply
        if len(self._rest) > LONGEST_REPLY or len(self._lines) > 1000:
            raise BadReply("the server's reply has no end")


# A server says mostly the same few words.
@lru_cache(maxsize=64)
def _read(line: bytes) -> tuple[Reply, bool]:
    """A line as a reply, and whether it is the last of one. Raises BadReply."""
    found = _LINE.match(line.rstrip(b"\r"))
    if found is None:
        raise BadReply(f"the server said {line[:80]!r}, which is no SMTP reply")
    code, separator, text = found.groups()
    # A NUL would be refused by the database, and with it the whole record of the answer.
    said = (text or b"").decode("utf-8", "replace")
    if not said.isprintable():
        said = _CONTROL.sub(" ", said)
    return Reply(int(code), (said,)), separator != b"-"


@dataclass(frozen=True, slots=True)
class Offers:
    """What the server offers after EHLO."""

    pipelining: bool = False
    starttls: bool = False
    smtputf8: bool = False
    size: int | None = None
    auth: frozenset[str] = frozenset()


def offers(greeting: Reply) -> Offers:
    """Read the reply to EHLO."""
    words = {}
    for line in greeting.lines[1:]:
        keyword, _, rest = line.strip().partition(" ")
        words[keyword.upper()] = rest.strip()
    size = words.get("SIZE", "")
    return Offers(
        pipelining="PIPELINING" in words,
        starttls="STARTTLS" in words,
        smtputf8="SMTPUTF8" in words,
        size=int(size) if size.isdigit() and int(size) else None,
        auth=frozenset(words.get("AUTH", "").upper().split()),
    )
