"""Email addresses: which ones can be written to, and the key by which two are the same."""

import hashlib
import hmac
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from email_validator import EmailNotValidError, ValidatedEmail, validate_email

LONGEST_ADDRESS, LONGEST_LOCAL = 254, 64

# What copying from a web page or a spreadsheet leaves around an address, unseen.
_AROUND = " \t\r\n\v\f\u00a0\u200b\u200c\u200d\u2060\ufeff"

_RESERVED = ("arpa", "invalid", "local", "localhost", "onion")

# Lower-case ASCII addresses about which there is no question. It takes less than email-validator
# does (no "--", no digit in the last label, no reserved one), so whoever fails here is asked there.
_PLAIN = re.compile(
    r"(?!.{65}.*@)"
    r"[a-z0-9_!#$%&'*+\-/=?^`{|}~]+(?:\.[a-z0-9_!#$%&'*+\-/=?^`{|}~]+)*"
    r"@(?=.{4,63}\Z)"
    r"(?:[a-z0-9]+(?:-[a-z0-9]+)*\.)+(?!(?:" + "|".join(_RESERVED) + r")\Z)[a-z]{2,}\Z"
).match


@dataclass(frozen=True, slots=True)
class Address:
    """``email`` as typed, trimmed; ``key`` is NFC, lower case, the domain as A-label."""

    email: str
    key: str


class BadAddress(ValueError):
    """Not an address that mail can be sent to; ``reason`` says why in plain words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def parse_address(text: str) -> Address:
    """The address in ``text``: RFC 5321 and 6531 as email-validator reads them, no DNS asked.

    Quoted local parts and bracketed IP addresses are refused; ``.test`` is accepted, for
    rehearsals. Raises BadAddress.
    """
    email = text.strip(_AROUND)
    if email.isascii():
        key = email.lower()
        if _PLAIN(key):
            return Address(email, key)
    return Address(email, _key(email))


def tombstone_key(secret: str, email_key: str) -> str:
    """What stands in a deleted contact's ``email_key``: the same for the same address, and of no
    use to anybody without ``secret``."""
    return "#" + hmac.digest(secret.encode(), email_key.encode(), hashlib.sha256).hex()


def _key(email: str) -> str:
    local, at, domain = email.rpartition("@")
    ascii_domain = _ascii_domain(domain) if at and len(email) <= LONGEST_ADDRESS else ""
    if not ascii_domain or not _good_local(local) or _too_long(email, local, ascii_domain):
        raise BadAddress(_plain_reason(email))
    folded = unicodedata.normalize("NFC", local).lower()
    return f"{unicodedata.normalize('NFC', folded)}@{ascii_domain}"


@lru_cache(maxsize=10_000)
def _ascii_domain(domain: str) -> str:
    """The domain as lower-case A-label, or "" when it cannot be one of an address."""
    try:
        found = _validated(f"a@{domain}").ascii_domain.lower()
    except EmailNotValidError:
        return ""
    # "test" alone passes in email-validator's test environment.
    return found if "." in found else ""


def _good_local(local: str) -> bool:
    try:
        _validated(f"{local}@people.example")
    except EmailNotValidError:
        return False
    return True


def _too_long(email: str, local: str, ascii_domain: str) -> bool:
    """RFC 5321 counts bytes: of the address as it was given, and as it goes on the wire."""
    on_the_wire = unicodedata.normalize("NFC", local).encode() + b"@" + ascii_domain.encode()
    return max(len(email.encode()), len(on_the_wire)) > LONGEST_ADDRESS


def _validated(email: str) -> ValidatedEmail:
    return validate_email(email, strict=True, check_deliverability=False, test_environment=True)


def _plain_reason(email: str) -> str:
    """Why a refused address was refused: the first thing a person would notice."""
    local, _, domain = email.rpartition("@")
    last_label = domain.rpartition(".")[2].lower()
    complaints = (
        (not email, "the address is empty"),
        ("@" not in email, "there is no @"),
        (len(email) > LONGEST_ADDRESS, f"it is longer than {LONGEST_ADDRESS} characters"),
        ("<" in email or ">" in email, "there are angle brackets: only the address belongs here"),
        (any(mark in email for mark in ",;"), "there is a comma or a semicolon in it"),
        ('"' in local, "quotation marks before the @ are not supported"),
        ("@" in local, "there is more than one @"),
        (any(letter.isspace() for letter in email), "there is a space in it"),
        (not local, "there is nothing before the @"),
        (not domain, "there is nothing after the @"),
        (domain[:1] == "[", "an IP address after the @ is not supported"),
        (".." in email, "there are two dots in a row"),
        (local[:1] == "." or local[-1:] == ".", "the part before the @ begins or ends with a dot"),
        (len(local) > LONGEST_LOCAL, f"it has more than {LONGEST_LOCAL} characters before the @"),
        (domain[:1] == "." or domain[-1:] == ".", "the part after the @ begins or ends with a dot"),
        ("." not in domain, "the part after the @ has no dot"),
        (last_label in _RESERVED, f"nobody can receive mail at a .{last_label} address"),
        (last_label.isdigit(), "the part after the @ ends with a number"),
        (not _ascii_domain(domain), "the part after the @ is not a domain name"),
        (not _good_local(local), "there is a character before the @ that cannot be there"),
    )
    return next((reason for true, reason in complaints if true), "it is too long")
