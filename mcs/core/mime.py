"""How text becomes bytes on the wire: quoted-printable that can be spliced, headers, addresses.

Every line these functions make is ASCII, ends in CRLF and has at most 76 characters (a header that
cannot be folded: 998), and none begins with a dot, so there is nothing to dot-stuff.
The one exception is an address whose local part is not ASCII (RFC 6532), which says so.
"""

import re
from base64 import b64encode
from binascii import b2a_qp
from functools import lru_cache

import idna

SOFT_BREAK = b"=\r\n"
# One less than the 76 of RFC 2045: the soft break's "=" needs a place too.
QP_WIDTH = 75
# RFC 5322 allows 78, RFC 2047 76 where there are encoded-words.
HEADER_WIDTH = 76
WORD_WIDTH = 60
# 39 bytes make an encoded-word of 64 characters: with the longest header name we write it, 76.
ENCODED_WORD_BYTES = 39

_QP = [
    chr(byte) if (32 <= byte <= 126 and byte != 61) or byte == 9 else f"={byte:02X}"
    for byte in range(256)
]
_PLAIN = re.compile(r"(?!From )[A-Za-z0-9_,;:()!?@/+* -][A-Za-z0-9_.,;:()!?@/+* -]{0,74}+")
# Not for bodies either: C0 without TAB and LF, DEL, C1, and halves of characters.
_BODY_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_HEADER_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SPACES = re.compile(" {2,}")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/?^_`{|}~ -]{1,60}")

_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_PLAIN_ADDRESS = re.compile(rf"{_ATEXT}+(?:\.{_ATEXT}+)*@{_LABEL}(?:\.{_LABEL})*")
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_WIDE_LOCAL = re.compile(
    r"(?:[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]|[^\x00-\xa0])"
    r"(?:[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]|[^\x00-\xa0]|\.(?!\.|$))*"
)


class BadAddress(ValueError):
    """An address that cannot stand in a message."""


def quoted(text: str) -> bytes:
    """The text in quoted-printable (RFC 2045). LF in, CRLF out; control characters are left out."""
    return b"\r\n".join([_quoted_line(line) for line in body_text(text).split("\n")])


def literal(text: str) -> bytes:
    """The text in quoted-printable, ending so that more can follow: the break is invisible."""
    encoded = quoted(text)
    last_line = len(encoded) - encoded.rfind(b"\n") - 1
    if last_line > QP_WIDTH:
        encoded = b"\r\n".join(map(_careful_line, body_text(text).split("\n")))
    return encoded + SOFT_BREAK if last_line else encoded


def spliced(value: str) -> bytes:
    """What ``literal`` makes of a contact's value, faster for a plain one."""
    return plain(value) or literal(value)


def plain(value: str) -> bytes | None:
    """The same for a value that reads alike in text and in html; None for any other."""
    return value.encode("ascii") + SOFT_BREAK if _PLAIN.fullmatch(value) else None


def body_text(text: str) -> str:
    """The text with LF line ends and without control characters."""
    if text.isprintable():
        return text
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _BODY_CONTROLS.sub("", text)


def header_text(text: str) -> str:
    """The text on one line: a control character becomes a space, bidi controls vanish."""
    # What Python calls printable has neither control characters nor bidi controls.
    if not text.isprintable():
        text = _BIDI.sub("", _HEADER_CONTROLS.sub(" ", text))
    if "  " in text:
        text = _SPACES.sub(" ", text)
    return text.strip(" ")


def unstructured(name: str, text: str) -> bytes:
    """``name: text`` folded, as encoded-words where ASCII does not do. Without the last CRLF."""
    text = header_text(text)
    if _needs_encoding(text) or _has_long_word(text):
        text = _encoded_words(text)
    return _folded(name, text).encode("ascii")


def mailbox(name: str, display: str, address: str) -> bytes:
    """``name: display <address>`` folded (RFC 5322). Without the last CRLF.

    The address is one from ``wire_address``.
    """
    phrase = _phrase(header_text(display))
    return _folded(name, f"{phrase} <{address}>" if phrase else address).encode()


def wire_address(email: str) -> tuple[str, bool]:
    """The address with its domain as A-label, and whether it needs SMTPUTF8. Raises BadAddress."""
    if _PLAIN_ADDRESS.fullmatch(email):
        if len(email) > 64:
            _refuse_lengths(email)
        return email, False
    local, at, domain = email.rpartition("@")
    if not at or _HEADER_CONTROLS.search(email) or _BIDI.search(email):
        raise BadAddress("the address is not one that mail can be sent to")
    if not _WIDE_LOCAL.fullmatch(local) or any(character.isspace() for character in local):
        raise BadAddress("the part of the address before the @ is not legal")
    address = f"{local}@{wire_domain(domain)}"
    _refuse_lengths(address)
    return address, not local.isascii()


@lru_cache(maxsize=4096)
def wire_domain(domain: str) -> str:
    """The domain as A-label (RFC 5891). Raises BadAddress."""
    if _DOMAIN.fullmatch(domain):
        return domain
    try:
        wire = idna.encode(domain, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise BadAddress("the part of the address after the @ is not a domain") from error
    if not _DOMAIN.fullmatch(wire):
        raise BadAddress("the part of the address after the @ is not a domain")
    return wire


def _refuse_lengths(address: str) -> None:
    # RFC 5321, section 4.5.3.1.
    if len(address.encode()) > 254 or len(address.rpartition("@")[0].encode()) > 64:
        raise BadAddress("the address is too long")


def _quoted_line(line: str) -> bytes:
    encoded = b2a_qp(line.encode("utf-8")).replace(b"\n", b"\r\n")
    if encoded.startswith((b".", b"From ")) or b"\n." in encoded:
        return _careful_line(line)
    return encoded


def _careful_line(line: str) -> bytes:
    """For a line that b2a_qp would begin with a dot or "From ", or leave no room at its end."""
    text = "".join([_QP[byte] for byte in line.encode("utf-8")])
    if text[-1:] in (" ", "\t"):
        text = f"{text[:-1]}={ord(text[-1]):02X}"
    if text.startswith("From "):
        text = f"=46{text[1:]}"
    lines: list[str] = []
    start, end = 0, len(text)
    while True:
        # A line that begins with a dot would have to be stuffed.
        head = "=2E" if text.startswith(".", start) else ""
        start += bool(head)
        room = QP_WIDTH - len(head)
        if end - start <= room:
            lines.append(head + text[start:])
            return "=\r\n".join(lines).encode("ascii")
        cut = start + room
        escape = text.rfind("=", cut - 2, cut)
        cut = escape if escape >= 0 else cut
        lines.append(head + text[start:cut])
        start = cut


def _needs_encoding(text: str) -> bool:
    # Something that looks like an encoded-word would be decoded by the reader.
    return not text.isascii() or "=?" in text


def _has_long_word(text: str) -> bool:
    return len(text) > WORD_WIDTH and max(map(len, text.split(" "))) > WORD_WIDTH


def _folded(name: str, text: str) -> str:
    lines = [f"{name}: {text}"]
    if len(lines[0]) > HEADER_WIDTH:
        first, *words = text.split(" ")
        lines = [f"{name}: {first}"]
        for word in words:
            if len(lines[-1]) + 1 + len(word) <= HEADER_WIDTH:
                lines[-1] += f" {word}"
            else:
                lines.append(f" {word}")
    return "\r\n".join(lines)


def _encoded_words(text: str) -> str:
    """RFC 2047, base64: a character is never divided between two words."""
    encoded = text.encode("utf-8")
    words: list[str] = []
    start = 0
    while len(encoded) - start > ENCODED_WORD_BYTES:
        cut = start + ENCODED_WORD_BYTES
        while encoded[cut] & 0b1100_0000 == 0b1000_0000:
            cut -= 1
        words.append(_encoded_word(encoded[start:cut]))
        start = cut
    words.append(_encoded_word(encoded[start:]))
    return " ".join(words)


def _encoded_word(chunk: bytes) -> str:
    return f"=?utf-8?B?{b64encode(chunk).decode('ascii')}?="


def _phrase(text: str) -> str:
    if not text or _ATOMS.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    if _needs_encoding(text) or _has_long_word(escaped):
        return _encoded_words(text)
    return f'"{escaped}"'
