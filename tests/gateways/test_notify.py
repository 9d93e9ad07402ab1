"""Notify: what is handed to a service, and what is said of a refusal."""

import logging
from datetime import UTC, datetime
from typing import Any

import pytest
import requests

from mcs.core.calls import BadConfig, Call
from mcs.gateways.callbacks.notify import Notify, NotPosted

URL = "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js"


class Answers:
    """Discord's answers, and what it was sent: its real host is not for tests."""

    def __init__(self) -> None:
        self.status = 204
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, url: str, **given: Any) -> requests.Response:
        self.asked.append((url, given))
        answer = requests.Response()
        answer.status_code = self.status
        answer._content = b""
        return answer


@pytest.fixture
def discord(monkeypatch: pytest.MonkeyPatch) -> Answers:
    answers = Answers()
    monkeypatch.setattr(requests, "post", answers)
    return answers


def call(**config: Any) -> Call:
    return Call(
        "shop", "order", "A-17", 1, "action1", "action1", 1,
        datetime(2026, 11, 23, 9, 0, tzinfo=UTC), 1, "key-1",
        {"id": 1, "email": "ann@people.example", "name": "Ann", "attributes": {}}, config,
    )  # fmt: skip


def test_ann_is_announced(discord: Answers) -> None:
    assert Notify()(call(url=URL, text="Welcome {{ name }}!")) == {"service": "Discord"}
    ((url, given),) = discord.asked
    assert url.startswith("https://discord.com/api/webhooks/4174216298/")
    assert "Welcome Ann!" in str(given["data"])
    assert given["verify"] is True


def test_a_refusal_is_an_error_that_keeps_the_secret(
    discord: Answers, caplog: pytest.LogCaptureFixture
) -> None:
    discord.status = 404
    caplog.set_level(logging.DEBUG)
    with pytest.raises(NotPosted, match="Discord") as refusal:
        Notify()(call(url=URL, text="Welcome"))
    assert "JHMHI8qBe7bk2ZwO5U711o3dV_js" not in str(refusal.value) + caplog.text


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"url": "json://localhost/", "text": "hi"}, "url"),
        ({"url": "discord://x", "text": "hi"}, "url"),
        ({"text": "hi"}, "url"),
        ({"url": URL}, "text"),
        ({"url": URL, "text": "{{ name"}, "text"),
        ({"url": URL, "text": "hi", "title": "{{ name"}, "title"),
        ({"url": URL, "text": "hi", "attach": "/etc/passwd"}, "attach"),
    ],
)
def test_configs_that_cannot_be(config: dict[str, Any], name: str) -> None:
    with pytest.raises(BadConfig) as refusal:
        Notify().check(config)
    assert refusal.value.name == name


def test_a_config_that_will_do() -> None:
    Notify().check({"url": URL, "text": "Welcome {{ name }}", "title": "New"})
