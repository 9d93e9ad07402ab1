"""A scenario and a contact become exactly the bytes a server receives.

Prepared once per emailer: everything that is equal for all. Per contact: a few values are encoded
and spliced between ready bytes. RFC 5322, 2045, 2047, 2369, 2919, 8058.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage, MIMEPart
from email.utils import format_datetime
from functools import lru_cache, partial
from hashlib import sha256
from typing import NamedTuple

from mcs.core import language, mime, tree
from mcs.core.bodies import Sender, bodies
from mcs.core.language import BadContent
from mcs.core.tree import Path, Values
from mcs.core.wire import CONTENT_TYPE, WireBody

# A branch taken costs its preparation once, then memory: enough for eight independent ifs.
VARIANTS_KEPT = 256
MESSAGE_LIMIT = 2_000_000

_OPAQUE = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_OUR_URL = re.compile(r"https?://[!#-;=?-\[\]^_a-z~]{1,900}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class BadTemplate(ValueError):
    """No message at all can be made from this template; the text says why in a plain sentence."""


class CannotCompose(ValueError):
    """No legal message can be made for this one contact; ``reason`` holds no address."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class MessageTemplate:
    """What all messages of an emailer share. ``format`` is one of CONTENT_FORMATS.

    ``campaign_uid`` and ``mail_domain`` go out in List-Id, Feedback-ID and Message-ID;
    ``campaign_name`` and ``base_url`` do not.
    """

    subject: str
    content: str
    format: str
    from_name: str
    from_email: str
    reply_to: str
    postal_address: str
    campaign_uid: str
    campaign_name: str
    base_url: str
    mail_domain: str


class Person(NamedTuple):
    """Whom a message is for. ``opaque`` becomes the Message-ID's local part and X-MCS-Delivery."""

    email: str
    name: str
    attributes: Mapping[str, str]
    opaque: str
    unsubscribe_url: str


class Message(NamedTuple):
    """``data`` is what follows DATA, headers and body, up to but without the closing dot line.

    It ends in CRLF and no line of it begins with a dot, so it needs no dot-stuffing. It is ASCII,
    except for an address in To where ``needs_smtputf8``: then only a server that offers SMTPUTF8
    may be given it. ``envelope_to`` is the address in To, its domain as A-label.
    """

    envelope_from: str
    envelope_to: str
    data: bytes
    needs_smtputf8: bool


@dataclass(frozen=True)
class Preview:
    """What the contact will see, decoded from the very bytes that would be sent."""

    subject: str
    html: str
    text: str


def missing(template: MessageTemplate) -> list[str]:
    """What the campaign lacks before anything may be sent, as plain sentences."""
    sentences = []
    if not template.from_email.strip():
        sentences.append("The campaign has no sender address.")
    if not template.postal_address.strip():
        sentences.append("The campaign has no postal address, which the law wants in every mail.")
    return sentences


class Composer:
    """Makes the messages of one emailer; several threads may share it. Raises BadTemplate."""

    def __init__(self, template: MessageTemplate) -> None:
        self._missing = missing(template)
        self._format = template.format
        self._sender = Sender(
            mime.header_text(template.from_name or template.from_email),
            mime.body_text(template.postal_address),
        )
        try:
            self._subject_tree = language.parse(template.subject)
            self._content = language.parse(template.content)
            self._subject_choices = tree.choices(self._subject_tree)
            self._choices = tree.choices(self._content)
        except BadContent as error:
            raise BadTemplate(error.reason) from error
        self._headers = _Headers(template)
        self._date: tuple[datetime, bytes] | None = None
        self._subject_along = lru_cache(VARIANTS_KEPT)(partial(tree.follow, self._subject_tree))
        self._variant = lru_cache(VARIANTS_KEPT)(self._prepared)
        try:
            self._variant(tree.path(self._choices, {}))
        except CannotCompose as error:
            raise BadTemplate(error.reason) from error

    def compose(self, person: Person, date: datetime) -> Message:
        """The message for this person, dated ``date`` (aware; to the second, never later).

        Raises CannotCompose when this person's data cannot make a legal message, BadTemplate when
        the campaign lacks what every message needs.
        """
        if self._missing:
            raise BadTemplate(" ".join(self._missing))
        return self._write(person, date)

    def preview(self, person: Person) -> Preview:
        """What this person would see. Works for a campaign that still lacks its sender."""
        message = message_from_bytes(
            self._write(person, _EPOCH).data, _class=EmailMessage, policy=policy.default
        )
        text, html = message.iter_parts()
        return Preview(str(message["Subject"]), _decoded(html), _decoded(text))

    def _write(self, person: Person, date: datetime) -> Message:
        values = _values(person)
        address, needs_smtputf8 = _address(person)
        headers = self._headers.write(person, address, self._subject(values), self._written(date))
        body = self._variant(tree.path(self._choices, values)).write(values)
        data = b"".join([*headers, *body])
        if len(data) > MESSAGE_LIMIT:
            raise CannotCompose("The message would be too large with this contact's values.")
        return Message(self._headers.envelope_from, address, data, needs_smtputf8)

    def _subject(self, values: Values) -> str:
        pieces = self._subject_along(tree.path(self._subject_choices, values))
        return "".join([piece if isinstance(piece, str) else piece.of(values) for piece in pieces])

    def _written(self, date: datetime) -> bytes:
        kept = self._date
        if kept is None or kept[0] != date:
            if date.tzinfo is None:
                raise ValueError("the date has no zone")
            kept = self._date = (date, format_datetime(date).encode("ascii"))
        return kept[1]

    def _prepared(self, taken: Path) -> WireBody:
        try:
            flat = tree.follow(self._content, taken)
            return WireBody(bodies(flat, self._format, self._sender))
        except BadContent as error:
            raise CannotCompose(error.reason) from error


class _Headers:
    """The headers, with places for what varies. BadTemplate for what can never be legal."""

    def __init__(self, template: MessageTemplate) -> None:
        try:
            domain = mime.wire_domain(template.mail_domain)
            self.envelope_from = _sender_address(template.from_email)
            reply_to = _sender_address(template.reply_to)
        except mime.BadAddress as error:
            raise BadTemplate(f"The campaign's sender cannot be used: {error}.") from error
        if not _OPAQUE.fullmatch(template.campaign_uid):
            raise BadTemplate("The campaign's uid is not legal in a header.")
        self._first = b""
        if self.envelope_from:
            self._first = mime.mailbox("From", template.from_name, self.envelope_from) + b"\r\n"
        self._after_id = f"@{domain}>\r\n".encode("ascii")
        if reply_to:
            self._after_id += mime.mailbox("Reply-To", "", reply_to) + b"\r\n"
        self._after_id += b"List-Unsubscribe: <"
        sender_id = sha256(domain.encode("ascii")).hexdigest()[:12]
        self._last = (
            ">\r\n"
            "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
            f"List-Id: <{template.campaign_uid}.{domain}>\r\n"
            f"Feedback-ID: {template.campaign_uid}:campaign:email:{sender_id}\r\n"
            "Precedence: bulk\r\n"
            "X-Auto-Response-Suppress: OOF, AutoReply\r\n"
            "X-MCS-Delivery: "
        ).encode("ascii")
        self._end = b"\r\nMIME-Version: 1.0\r\n" + CONTENT_TYPE

    def write(self, person: Person, address: str, subject: str, date: bytes) -> list[bytes]:
        opaque = person.opaque.encode("ascii")
        return [
            self._first,
            mime.mailbox("To", person.name, address),
            b"\r\n",
            mime.unstructured("Subject", subject),
            b"\r\nDate: ",
            date,
            b"\r\nMessage-ID: <",
            opaque,
            self._after_id,
            person.unsubscribe_url.encode("ascii"),
            self._last,
            opaque,
            self._end,
        ]


def _address(person: Person) -> tuple[str, bool]:
    if not _OPAQUE.fullmatch(person.opaque) or not _OUR_URL.fullmatch(person.unsubscribe_url):
        raise CannotCompose("The message's id or its unsubscribe link is not legal.")
    try:
        return mime.wire_address(person.email)
    except mime.BadAddress as error:
        raise CannotCompose(f"This contact cannot be written to: {error}.") from error


def _values(person: Person) -> dict[str, str]:
    """The contact's attributes and the built-in fields; a column first_name wins over ours."""
    values = dict(person.attributes)
    values["name"] = person.name
    values["email"] = person.email
    values["unsubscribe_url"] = person.unsubscribe_url
    if not values.get("first_name"):
        values["first_name"] = person.name.strip().partition(" ")[0]
    return values


def _sender_address(email: str) -> str:
    if not email.strip():
        return ""
    address, needs_smtputf8 = mime.wire_address(email.strip())
    if needs_smtputf8:
        raise mime.BadAddress("the part of the address before the @ has letters outside a to z")
    return address


def _decoded(part: MIMEPart) -> str:
    return str(part.get_content()).replace("\r\n", "\n")
