"""Webhooks: tell another server of an action, by a signed JSON POST.

A URL comes from whoever edits a sequence, so it must not reach what only this machine can: the host
is resolved once, each address it has must be a public one, and the connection goes to that very
address. Redirects are not followed. Hosts of one's own are allowed by name and port.
"""

import hashlib
import hmac
import http.client
import ipaddress
import json
import socket
import ssl
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mcs.core.calls import Call

TIMEOUT_SECONDS = 10.0
# Of the answer, so much is kept as the action's result.
LONGEST_ANSWER = 10_000
SECRET_BYTES = 16
_PORTS = {"http": 80, "https": 443}
_CONTROLS = frozenset(chr(code) for code in (*range(33), 127))


class WebhookFailed(Exception):
    """A webhook that was not delivered; the text says why."""


@dataclass(frozen=True)
class Target:
    """Where a webhook goes: an address that was looked at, and the host it was asked for."""

    address: str
    port: int
    host: str
    path: str
    secure: bool


class Webhook:
    """A callback. ``config`` has ``url``, and ``secret`` that the receiver verifies with.

    The body is JSON; ``X-MCS-Timestamp`` is when it was signed, in seconds since 1970;
    ``X-MCS-Signature`` is ``sha256=`` and the HMAC-SHA256 of the timestamp, a dot and the body;
    ``Idempotency-Key`` is equal on every attempt of the same action. Any answer but 2xx fails.
    """

    def __init__(self, allow: Collection[str] = (), now: Callable[[], float] = time.time) -> None:
        self._allow = frozenset(one.strip().lower() for one in allow)
        self._now = now

    def __call__(self, call: Call) -> Mapping[str, Any]:
        target = resolve(str(call.config.get("url", "")), self._allow)
        secret = str(call.config.get("secret", ""))
        if len(secret) < SECRET_BYTES:
            raise WebhookFailed(f"its secret is missing or shorter than {SECRET_BYTES} characters")
        body = json.dumps(_told(call), ensure_ascii=False).encode()
        stamp = str(int(self._now()))
        headers = {
            "Host": _host_header(target),
            "Content-Type": "application/json",
            "User-Agent": "MCS",
            "X-MCS-Timestamp": stamp,
            "X-MCS-Signature": sign(secret, stamp, body),
            "Idempotency-Key": call.idempotency_key,
        }
        return _post(target, body, headers)


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """What the receiver compares ``X-MCS-Signature`` with, in constant time."""
    signed = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256)
    return f"sha256={signed.hexdigest()}"


def resolve(url: str, allow: Collection[str] = ()) -> Target:
    """Look a URL's host up, once, and refuse it unless all its addresses are public.

    ``allow`` are ``host:port`` of one's own, which may be anywhere. Raises WebhookFailed.
    """
    if _CONTROLS.intersection(url):
        raise WebhookFailed("its url has a space or control character in it")
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        raise WebhookFailed(f"{url!r} is no URL") from None
    if parts.scheme not in _PORTS or not parts.hostname or parts.username or parts.password:
        raise WebhookFailed(f"{url!r} cannot be used: write https://host/path")
    host = parts.hostname.lower()
    trusted = f"{host}:{port}" in allow
    if parts.scheme == "http" and not trusted:
        raise WebhookFailed(f"{url!r} is not encrypted: use https, or allow the host")
    addresses = _addresses(host, port)
    for address in addresses:
        if not trusted and not public(address):
            raise WebhookFailed(
                f"{host} is {address}, which is not a public address: if it is your own host,"
                f" name {host}:{port} among the allowed ones"
            )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        path.encode("ascii")
    except UnicodeEncodeError:
        raise WebhookFailed(f"{url!r}: percent-encode what is not ASCII") from None
    return Target(addresses[0], port, host, path, parts.scheme == "https")


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
    return found.is_global and not found.is_multicast and not found.is_reserved


_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def _addresses(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise WebhookFailed(f"{host} cannot be found: {error}") from None
    return [str(one[4][0]) for one in found]


def _told(call: Call) -> dict[str, Any]:
    contact = None if call.contact is None else dict(call.contact)
    return {
        "campaign": call.campaign_id,
        "subject": call.subject,
        "subject_id": call.subject_id,
        "run": call.run,
        "action": call.action_id,
        "expected_at": call.expected_at.isoformat(),
        "attempt": call.attempt,
        "idempotency_key": call.idempotency_key,
        "contact": contact,
    }


def _host_header(target: Target) -> str:
    host = f"[{target.host}]" if ":" in target.host else target.host
    usual = _PORTS["https" if target.secure else "http"]
    return host if target.port == usual else f"{host}:{target.port}"


def _post(target: Target, body: bytes, headers: Mapping[str, str]) -> Mapping[str, Any]:
    connection = _Connection(target)
    try:
        connection.request("POST", target.path, body=body, headers=dict(headers))
        answer = connection.getresponse()
        said = answer.read(LONGEST_ANSWER).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise WebhookFailed(f"{target.host} did not answer: {error!r}") from error
    finally:
        connection.close()
    if not 200 <= answer.status < 300:
        raise WebhookFailed(f"{target.host} answered {answer.status}: {said[:1000]}")
    return {"status": answer.status, "body": said}


class _Connection(http.client.HTTPConnection):
    """To the address that was looked at, and TLS for the name that was asked for."""

    def __init__(self, target: Target) -> None:
        super().__init__(target.host, target.port, timeout=TIMEOUT_SECONDS)
        self._target = target

    def connect(self) -> None:
        self.sock = socket.create_connection(
            (self._target.address, self._target.port), TIMEOUT_SECONDS
        )
        if self._target.secure:
            context = ssl.create_default_context()
            self.sock = context.wrap_socket(self.sock, server_hostname=self._target.host)
