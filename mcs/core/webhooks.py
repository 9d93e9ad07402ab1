"""Where a webhook may go: what can be told from its URL alone, before any host is looked up."""

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

PORTS = {"http": 80, "https": 443}
_CONTROLS = frozenset(chr(code) for code in (*range(33), 127))
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
# Names that only a network of one's own knows.
_OWN = ("localhost", "local", "internal", "intranet", "lan", "home", "corp", "private", "home.arpa")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class BadUrl(ValueError):
    """A URL that no webhook goes to; the text says why, and what would be right."""


@dataclass(frozen=True)
class Place:
    """What a URL names. ``trusted``: it is one of the hosts of one's own, wherever it may be."""

    host: str
    port: int
    path: str
    secure: bool
    trusted: bool


def read(url: str, allow: Collection[str] = ()) -> Place:
    """What the URL names, if a webhook may go there as far as can be told without a look-up.

    ``allow`` are ``host:port`` of one's own. Raises BadUrl.
    """
    if not isinstance(url, str) or not url:
        raise BadUrl("it is missing: write https://host/path")
    if _CONTROLS.intersection(url):
        raise BadUrl("there is a space or control character in it")
    try:
        parts = urlsplit(url)
        port = PORTS.get(parts.scheme, 0) if parts.port is None else parts.port
    except ValueError:
        raise BadUrl("it is no URL: write https://host/path") from None
    if parts.scheme not in PORTS or not parts.hostname or not port:
        raise BadUrl("it cannot be used: write https://host/path")
    if parts.username is not None or parts.password is not None:
        raise BadUrl("leave out the user and the password: the secret signs what is sent")
    host = _ascii(parts.hostname.lower())
    trusted = f"{host}:{port}" in allow
    if parts.scheme == "http" and not trusted:
        raise BadUrl(f"it is not encrypted: use https, or allow {host}:{port} (MCS_WEBHOOK_ALLOW)")
    if not trusted:
        _refuse_private(host, port)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not path.isascii():
        raise BadUrl("percent-encode what is not ASCII")
    return Place(host, port, path, parts.scheme == "https", trusted)


def public(address: str) -> bool:
    """Whether an IP address is one that anybody can reach: not loopback, private, link-local,
    shared, multicast or reserved, nor such a one inside an IPv6 address."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo or (None, None))[1]
        if inner is not None:
            return public(str(inner))
        if found in _NAT64:
            return public(str(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)))
        if found.is_site_local:
            return False
    return found.is_global and not found.is_multicast and not found.is_reserved


def _ascii(host: str) -> str:
    """The name as it stands in DNS and in the Host header (RFC 3490)."""
    try:
        return host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        raise BadUrl(f"{host} is no name: look for a typing error") from None


def _refuse_private(host: str, port: int) -> None:
    own = f"if it is your own host, allow {host}:{port} (MCS_WEBHOOK_ALLOW)"
    labels = host.rstrip(".").split(".")
    if ":" in host or _NUMBER.fullmatch(labels[-1]):
        try:
            is_public = public(host)
        except ValueError:
            # 127.1, 0x7f000001 and 2130706433 are all 127.0.0.1 to who looks them up.
            raise BadUrl(f"{host} is no address: write a name, or four numbers") from None
        if not is_public:
            raise BadUrl(f"{host} is not a public address: {own}")
    elif len(labels) == 1 or any(f".{host.rstrip('.')}".endswith(f".{name}") for name in _OWN):
        raise BadUrl(f"{host} is not a public name: {own}")
