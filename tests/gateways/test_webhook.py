"""Webhooks: signed, to a real server; and never to where only this machine can go."""

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mcs.core.calls import Call
from mcs.gateways.callbacks import webhook
from mcs.gateways.callbacks.webhook import Webhook, WebhookFailed, public, resolve, sign

SECRET = "0123456789abcdef"


class Receiver(ThreadingHTTPServer):
    """A server that keeps what it is told and answers as it is told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Told)
        self.heard: list[tuple[str, dict[str, str], bytes]] = []
        self.answer = (200, {}, b"thanks")
        self.drips = False

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Told(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.heard.append((self.path, dict(self.headers), body))
        status, headers, said = self.server.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(said)

        while self.server.drips:
            try:
                self.wfile.write(b".")
            except OSError:
                return
            time.sleep(0.05)

    do_GET = do_POST

    def log_message(self, *_args: Any) -> None:
        """Quiet."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def call(**config: Any) -> Call:
    return Call(
        "shop", "order", "A-17", 1, "action1", "action1", 1,
        datetime(2026, 11, 23, 9, 0, tzinfo=UTC), 2, "key-1",
        {"id": 1, "email": "jane@customers.example", "name": "Jäne", "attributes": {}}, config,
    )  # fmt: skip


def test_a_webhook_is_signed_and_has_a_stable_key(receiver: Receiver) -> None:
    webhook = Webhook([receiver.host], now=lambda: 1795000000.9)
    told = webhook(call(url=f"http://{receiver.host}/hook?a=1", secret=SECRET))
    assert told == {"status": 200, "body": "thanks"}
    ((path, headers, body),) = receiver.heard
    assert path == "/hook?a=1"
    assert headers["Host"] == receiver.host
    assert headers["Idempotency-Key"] == "key-1"
    assert headers["X-MCS-Timestamp"] == "1795000000"
    assert headers["X-MCS-Signature"] == sign(SECRET, "1795000000", body)
    said = json.loads(body)
    assert (said["action"], said["subject_id"], said["attempt"]) == ("action1", "A-17", 2)
    assert said["contact"]["name"] == "Jäne"
    assert SECRET.encode() not in body


def test_an_answer_that_never_ends_is_cut(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "PATIENCE_SECONDS", 0.5)
    receiver.drips = True
    asked = time.monotonic()
    told = Webhook([receiver.host])(call(url=f"http://{receiver.host}/", secret=SECRET))
    receiver.drips = False
    assert told["status"] == 200, "what was said first is what counts"
    assert time.monotonic() - asked < 5


def test_what_is_signed_is_the_timestamp_and_the_body() -> None:
    import hashlib
    import hmac

    expected = hmac.new(b"s", b"1.body", hashlib.sha256).hexdigest()
    assert sign("s", "1", b"body") == f"sha256={expected}"


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 500])
def test_a_redirect_is_not_followed_and_only_2xx_is_well(receiver: Receiver, status: int) -> None:
    receiver.answer = (status, {"Location": f"http://{receiver.host}/secret"}, b"no")
    webhook = Webhook([receiver.host])
    with pytest.raises(WebhookFailed, match=str(status)):
        webhook(call(url=f"http://{receiver.host}/", secret=SECRET))
    assert len(receiver.heard) == 1


@pytest.mark.parametrize("secret", ["", "short"])
def test_without_a_secret_nothing_is_sent(receiver: Receiver, secret: str) -> None:
    with pytest.raises(WebhookFailed, match="secret"):
        Webhook([receiver.host])(call(url=f"http://{receiver.host}/", secret=secret))
    assert receiver.heard == []


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "017700000001", "0.0.0.0",
        "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "[fe80::1]", "[fd00::1]", "224.0.0.1", "255.255.255.255", "192.0.2.1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_what_only_this_machine_can_reach_is_refused(scheme: str, host: str) -> None:
    with pytest.raises(WebhookFailed):
        resolve(f"{scheme}://{host}/")


@pytest.mark.parametrize(
    "url",
    ["", "ftp://example.com/", "file:///etc/passwd", "https://", "https:///x", "//host/", "gopher://x",
     "https://user:secret@93.184.215.14/", "https://93.184.215.14:99999/", "https://a b/",
     "https://93.184.215.14/\r\nX: y", "https://[::1", "http://93.184.215.14/", "https://93.184.215.14/ä"],
)  # fmt: skip
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(WebhookFailed):
        resolve(url)


def test_a_public_address_is_connected_to_as_it_was_looked_up() -> None:
    target = resolve("https://93.184.215.14/a?b=c")
    assert (target.address, target.port, target.path, target.secure) == (
        "93.184.215.14", 443, "/a?b=c", True,
    )  # fmt: skip


def test_one_s_own_host_is_allowed_with_its_port_only(receiver: Receiver) -> None:
    assert resolve(f"http://{receiver.host}/", [receiver.host]).address == "127.0.0.1"
    with pytest.raises(WebhookFailed, match="https"):
        resolve("http://127.0.0.1:1/", [receiver.host])


@pytest.mark.parametrize(
    ("address", "is_public"),
    [("93.184.215.14", True), ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
     ("fe80::1%eth0", False), ("::ffff:8.8.8.8", True), ("64:ff9b::808:808", True)],
)  # fmt: skip
def test_public_addresses(address: str, is_public: bool) -> None:
    assert public(address) is is_public
