"""A shop's program with a token that may do everything, and the clock in the story's hands."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from flask import Flask
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from mcs.extensions import db
from mcs.gateways import clock
from mcs.services import api_tokens
from tests.conftest import MONDAY

AUTUMN = {
    "name": "After purchase",
    "start_date": "2026-11-23",
    "end_date": "2026-12-31",
    "timezone": "UTC",
}


# A webhook that could be called.
CONFIG = {"url": "https://shop.example/told", "secret": "a secret of 16 or more"}


class Clock:
    """The moment that every process of the story believes in."""

    def __init__(self) -> None:
        self.at = MONDAY

    def __call__(self) -> datetime:
        return self.at


class Shop:
    """A program that speaks JSON with a token."""

    def __init__(self, app: Flask, token: str) -> None:
        self.app, self.token = app, token

    def ask(
        self, method: str, path: str, body: Any = None, key: str = "", **options: Any
    ) -> TestResponse:
        headers = {"Authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        if key:
            headers["Idempotency-Key"] = key
        if body is not None:
            options |= {"data": json.dumps(body), "content_type": "application/json"}
        return self.app.test_client().open(
            f"/api/v1{path}", method=method, headers=headers, **options
        )

    def get(self, path: str, **options: Any) -> Any:
        answer = self.ask("GET", path, **options)
        assert answer.status_code == 200, answer.text
        return answer.json

    def post(self, path: str, body: Any = None, status: int = 200, **options: Any) -> Any:
        answer = self.ask("POST", path, body, **options)
        assert answer.status_code == status, answer.text
        return answer.json

    def put(self, path: str, body: Any, status: int = 200, **options: Any) -> Any:
        answer = self.ask("PUT", path, body, **options)
        assert answer.status_code == status, answer.text
        return answer.json


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Clock:
    told = Clock()
    monkeypatch.setattr(clock, "now", told)
    return told


@pytest.fixture
def make_shop(app: Flask, at: Clock) -> Callable[[str], Shop]:
    """A shop whose token may do so much."""

    def make(scope: str) -> Shop:
        with app.app_context():
            session: Session = db.session()
            return Shop(app, api_tokens.make(session, at(), f"{scope} shop", scope, None))

    return make


@pytest.fixture
def shop(make_shop: Callable[[str], Shop]) -> Shop:
    return make_shop("manage")


@pytest.fixture
def autumn(shop: Shop) -> str:
    """The key of a campaign of three steps for webhooks."""
    shop.put("/campaigns/after-purchase", AUTUMN, 201)
    steps = [
        {
            "id": f"action{number}",
            "callback": "webhook",
            "interval": interval,
            "config": CONFIG,
            "attempts": 1,
        }
        for number, interval in enumerate(
            ("0days", {"offset": "2days", "time": "10:00"}, {"offset": "4days", "time": "10:00"}),
            1,
        )
    ]
    shop.put("/campaigns/after-purchase/definitions", {"action_defs": steps})
    return "after-purchase"
