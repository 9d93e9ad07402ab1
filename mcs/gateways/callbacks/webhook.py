"""Webhooks: tell another server of an action, by a signed JSON POST.

A URL comes from whoever edits a sequence, so it must not reach what only this machine can: the host
is resolved once, each address it has must be a public one, and the connection goes to that very
address. Redirects are not followed. Hosts of one's own are allowed by name and port.
"""

import hashlib
import hmac
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mcs.core import webhooks
from mcs.core.calls import BadConfig, Call
from mcs.core.webhooks import BadUrl, public

TIMEOUT_SECONDS = 10.0
# For the whole call: one that answers a byte at a time would else hold its thread for days.
PATIENCE_SECONDS = 30.0
# Of the answer, so much is kept as the action's result.
LONGEST_ANSWER = 10_000
SECRET_BYTES = 16
_SECRET_ADVICE = (
    f"it is missing or shorter than {SECRET_BYTES} characters: give one that only you and the"
    " receiver know"
)


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

    secrets = ("secret",)

    def __init__(self, allow: Collection[str] = (), now: Callable[[], float] = time.time) -> None:
        self._allow = frozenset(one.strip().lower() for one in allow)
        self._now = now

    def check(self, config: Mapping[str, Any]) -> None:
        """Whether a step may be defined so, as far as can be told without a look-up.

        Raises BadConfig.
        """
        for name in config:
            if name not in ("url", "secret"):
                raise BadConfig(str(name), "a webhook has a url and a secret, and nothing else")
        try:
            webhooks.read(config.get("url", ""), self._allow)
        except BadUrl as error:
            raise BadConfig("url", str(error)) from None
        secret = config.get("secret", "")
        if not isinstance(secret, str) or len(secret) < SECRET_BYTES:
            raise BadConfig("secret", _SECRET_ADVICE)

    def __call__(self, call: Call) -> Mapping[str, Any]:
        target = resolve(str(call.config.get("url", "")), self._allow)
        secret = str(call.config.get("secret", ""))
        if len(secret) < SECRET_BYTES:
            raise WebhookFailed(f"its secret cannot be used: {_SECRET_ADVICE}")
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
    try:
        place = webhooks.read(url, allow)
    except BadUrl as error:
        raise WebhookFailed(f"its url {url!r}: {error}") from None
    addresses = _addresses(place.host, place.port)
    for address in addresses:
        if not place.trusted and not public(address):
            raise WebhookFailed(
                f"{place.host} is {address}, which is not a public address: if it is your own"
                f" host, allow {place.host}:{place.port} (MCS_WEBHOOK_ALLOW)"
            )
    return Target(addresses[0], place.port, place.host, place.path, place.secure)


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
    usual = webhooks.PORTS["https" if target.secure else "http"]
    return host if target.port == usual else f"{host}:{target.port}"


def _post(target: Target, body: bytes, headers: Mapping[str, str]) -> Mapping[str, Any]:
    connection = _Connection(target)
    alarm = threading.Timer(PATIENCE_SECONDS, connection.cut)
    alarm.daemon = True
    alarm.start()
    try:
        connection.request("POST", target.path, body=body, headers=dict(headers))
        answer = connection.getresponse()
        said = answer.read(LONGEST_ANSWER).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise WebhookFailed(f"{target.host} did not answer: {error!r}") from error
    finally:
        alarm.cancel()
        connection.close()
    if not 200 <= answer.status < 300:
        raise WebhookFailed(f"{target.host} answered {answer.status}: {said[:1000]}")
    return {"status": answer.status, "body": said}


class _Connection(http.client.HTTPConnection):
    """To the address that was looked at, and TLS for the name that was asked for."""

    def __init__(self, target: Target) -> None:
        super().__init__(target.host, target.port, timeout=TIMEOUT_SECONDS)
        self._target = target
        # ``sock`` is gone while an answer is still being read.
        self._wire: socket.socket | None = None

    def connect(self) -> None:
        self.sock = socket.create_connection(
            (self._target.address, self._target.port), TIMEOUT_SECONDS
        )
        if self._target.secure:
            context = ssl.create_default_context()
            self.sock = context.wrap_socket(self.sock, server_hostname=self._target.host)
        self._wire = self.sock

    def cut(self) -> None:
        """End whatever is waited for, from another thread."""
        if self._wire is not None:
            with suppress(OSError):
                # Not TLS's own way, which would wait for the other side.
                socket.socket.shutdown(self._wire, socket.SHUT_RDWR)
