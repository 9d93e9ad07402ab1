"""A person with a browser, as the stories need one: it keeps cookies and sends CSRF tokens."""

import re
from datetime import UTC, datetime
from html import unescape

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from mcs.extensions import db
from mcs.services import users

OWNER_EMAIL, PASSWORD = "olga@shop.example", "seven green kettles"
MADE_AT = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
_TOKEN = re.compile(r'name="csrf_token" value="([^"]+)"')


class Visitor:
    """Gets pages, and posts forms with the CSRF token of the page it saw last."""

    def __init__(self, app: Flask) -> None:
        self.client: FlaskClient = app.test_client()
        self.token = ""

    def get(self, path: str, **options: object) -> TestResponse:
        return self._seen(self.client.get(path, **options))

    def post(self, path: str, fields: dict[str, object] | None = None) -> TestResponse:
        form = {"csrf_token": self.token, **(fields or {})}
        return self._seen(self.client.post(path, data=form))

    def _seen(self, response: TestResponse) -> TestResponse:
        if response.mimetype == "text/html" and (found := _TOKEN.search(response.text)):
            self.token = found[1]
        return response

    def sign_in(self, email: str = OWNER_EMAIL, password: str = PASSWORD) -> TestResponse:
        self.get("/login")
        answer = self.post("/login", {"email": email, "password": password})
        self.get("/account")
        return answer


def make_owner(app: Flask) -> None:
    with app.app_context():
        users.create_user(db.session(), MADE_AT, OWNER_EMAIL, PASSWORD, users.OWNER)


def words(response: TestResponse) -> str:
    """What a person reads on the page: no tags, single spaces."""
    body = re.sub(r"(?s)<(script|style|svg|head)\b.*?</\1>", " ", response.text)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())
