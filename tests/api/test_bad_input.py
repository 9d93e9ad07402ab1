"""Garbage over HTTP: a problem comes back that says where and what, never a crash."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from mcs.api.operations import BODY_LIMIT, BULK_LIMIT
from mcs.api.problems import TYPES
from mcs.services import api_tokens, campaigns
from tests.api.conftest import AUTUMN, CONFIG, Shop

ENROL = "/campaigns/after-purchase/schedules"
BULK = f"{ENROL}/bulk"
DEFINITIONS = "/campaigns/after-purchase/definitions"
STEP = {"id": "a", "callback": "webhook", "interval": "1day", "config": CONFIG}


def told(answer: Any) -> dict[str, Any]:
    """The problem, which is one."""
    assert answer.mimetype == "application/problem+json"
    said: dict[str, Any] = answer.json
    name = said["type"].removeprefix("urn:mcs:problem:")
    assert (answer.status_code, said["title"]) == TYPES[name]
    assert said["status"] == answer.status_code
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Traceback" not in answer.text
    return said


WRONG = [
    ("POST", ENROL, {}, "#"),
    ("POST", ENROL, [], "#"),
    ("POST", ENROL, "x", "#"),
    ("POST", ENROL, None, "#"),
    ("POST", ENROL, {"subject": "order"}, "#"),
    ("POST", ENROL, {"subject_id": "1"}, "#"),
    ("POST", ENROL, {"subject": "", "subject_id": "1"}, "#/subject"),
    ("POST", ENROL, {"subject": "x" * 101, "subject_id": "1"}, "#/subject"),
    ("POST", ENROL, {"subject": "order", "subject_id": "x" * 256}, "#/subject_id"),
    ("POST", ENROL, {"subject": "order", "subject_id": 1.5}, "#/subject_id"),
    ("POST", ENROL, {"subject": "order", "subject_id": True}, "#/subject_id"),
    ("POST", ENROL, {"subject": 1, "subject_id": "1"}, "#/subject"),
    ("POST", ENROL, {"contact": "ann@people.example"}, "#/contact"),
    ("POST", ENROL, {"contact": {"name": "Ann"}}, "#/contact"),
    ("POST", ENROL, {"contact": {"email": "ann"}}, "#/contact"),
    ("POST", ENROL, {"contact": {"email": "a@b.example", "age": 3}}, "#/contact"),
    ("POST", ENROL, {"contact": {"email": "a@b.example", "attributes": {"Firm": "x"}}},
     "#/contact/attributes/Firm"),
    ("POST", ENROL, {"contact": {"email": "a@b.example", "attributes": {"a/b~": "x"}}},
     "#/contact/attributes/a~1b~0"),
    ("POST", ENROL, {"contact": {"email": "a@b.example", "attributes": {"email": "x"}}},
     "#/contact/attributes/email"),
    ("POST", ENROL, {"contact": {"email": "a@b.example", "attributes": {"x": 1}}},
     "#/contact/attributes/x"),
    ("POST", ENROL, {"contact_id": 99}, "#/contact_id"),
    ("POST", ENROL, {"contact_id": 0}, "#/contact_id"),
    ("POST", ENROL, {"contact_id": 2**31}, "#/contact_id"),
    ("POST", ENROL, {"contact_id": "1"}, "#/contact_id"),
    ("POST", ENROL, {"contact_id": 1, "contact": {"email": "a@b.example"}}, "#"),
    ("POST", ENROL, {"contact_id": 1, "restart": "yes"}, "#/restart"),
    ("POST", ENROL, {"contact_id": 1, "state": "sent"}, "#"),
    ("POST", BULK, {"subjects": []}, "#/subjects"),
    ("POST", BULK, {"subjects": [{"contact": {"email": "a@b.example"}}, {}]}, "#/subjects/1"),
    ("POST", BULK, {"subjects": [{"contact": {"email": "a@b.example"}}, {"contact_id": 9}]},
     "#/subjects/1/contact_id"),
    ("POST", BULK, {"subjects": [{"contact_id": 1, "restart": True}]}, "#/subjects/0"),
    ("POST", "/contacts", {"email": "a b@c.example"}, "#/email"),
    ("POST", "/contacts", {"email": "a@b.example", "name": "x" * 201}, "#/name"),
    ("POST", "/contacts", {"email": "a@b.example", "attributes": []}, "#/attributes"),
    ("POST", "/campaigns", {"name": "x"}, "#"),
    ("POST", "/campaigns", {**AUTUMN, "end_date": "2026-11-22"}, "#/end_date"),
    ("POST", "/campaigns", {**AUTUMN, "end_date": "2026-02-30"}, "#/end_date"),
    ("POST", "/campaigns", {**AUTUMN, "start_date": "0001-01-01"}, "#/start_date"),
    ("POST", "/campaigns", {**AUTUMN, "timezone": "Mars/Base"}, "#/timezone"),
    ("POST", "/campaigns", {**AUTUMN, "from_email": "ada"}, "#/from_email"),
    ("POST", "/campaigns", {**AUTUMN, "send_rate": 0}, "#/send_rate"),
    ("POST", "/campaigns", {**AUTUMN, "name": " \t"}, "#/name"),
    ("POST", "/campaigns", {**AUTUMN, "key": "17"}, "#/key"),
    ("POST", "/campaigns", {**AUTUMN, "key": "a/b"}, "#/key"),
    ("POST", "/campaigns", {**AUTUMN, "id": 7}, "#"),
    ("PUT", "/campaigns/new", {"name": "x", "timezone": "UTC"}, "#/start_date"),
    ("PUT", "/campaigns/after-purchase", {"key": "other"}, "#"),
    ("PUT", "/campaigns/after-purchase", {"active": None}, "#/active"),
    ("PUT", "/campaigns/after-purchase", {"end_date": "2020-01-01"}, "#/end_date"),
    ("PUT", DEFINITIONS, {}, "#"),
    ("PUT", DEFINITIONS, {"action_defs": {}}, "#/action_defs"),
    ("PUT", DEFINITIONS, {"action_defs": [STEP], "past": "maybe"}, "#/past"),
    ("PUT", DEFINITIONS, {"action_defs": [STEP, STEP]}, "#/action_defs/0/id"),
    ("PUT", DEFINITIONS, {"action_defs": [{**STEP, "id": "a b"}]}, "#/action_defs/0/id"),
    ("PUT", DEFINITIONS, {"action_defs": [{**STEP, "interval": "30m"}]},
     "#/action_defs/0/interval"),
    ("PUT", DEFINITIONS, {"action_defs": [{**STEP, "interval": {"offset": "30m"}}]},
     "#/action_defs/0/interval/offset"),
    ("PUT", DEFINITIONS,
     {"action_defs": [{**STEP, "interval": {"offset": "1day", "time": "25:00"}}]},
     "#/action_defs/0/interval/time"),
    ("PUT", DEFINITIONS,
     {"action_defs": [{**STEP, "interval": {"offset": "1day", "tme": "9:00"}}]},
     "#/action_defs/0/interval"),
    ("PUT", DEFINITIONS, {"action_defs": [{**STEP, "interval": 2}]},
     "#/action_defs/0/interval"),
    ("PUT", DEFINITIONS, {"action_defs": [{**STEP, "interval": {"time": "10:00"}}]},
     "#/action_defs/0/interval"),
    ("PUT", DEFINITIONS, {"action_defs": [{**STEP, "after": "b"}]}, "#/action_defs/0/after"),
    ("PUT", DEFINITIONS, {"action_defs": [{**STEP, "attempts": 0}]},
     "#/action_defs/0/attempts"),
    ("PUT", DEFINITIONS, {"action_defs": [{**STEP, "config": []}]}, "#/action_defs/0/config"),
    ("PUT", DEFINITIONS, {"action_defs": [{**STEP, "state": "x"}]}, "#/action_defs/0"),
]  # fmt: skip


def test_what_is_wrong_is_said_where_it_is(shop: Shop, autumn: str) -> None:
    before = told_of_all(shop)
    for method, path, body, pointer in WRONG:
        data = json.dumps(body)
        answer = shop.ask(method, path, data=data, content_type="application/json")
        said = told(answer)
        assert answer.status_code == 422, (path, body, said)
        assert pointer in [error["pointer"] for error in said["errors"]], (path, body, said)
        assert all(error["detail"] for error in said["errors"]), (path, body, said)
    assert told_of_all(shop) == before, "nothing was saved"


@pytest.mark.parametrize(
    ("path", "body", "detail"),
    [
        (ENROL, {}, "give a subject with its subject_id, a contact, or a contact_id"),
        (ENROL, {"contact_id": 1, "contact": {"email": "a@b.example"}},
         "give a contact or a contact_id, not both"),
        ("/campaigns", {**AUTUMN, "start_date": "yesterday"},
         "'yesterday' is no date: write it as 2026-11-24"),
        ("/campaigns", {**AUTUMN, "tme": "10:00"},
         "Additional properties are not allowed ('tme' was unexpected)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_plain_words(
    shop: Shop, autumn: str, path: str, body: Any, detail: str
) -> None:
    assert [error["detail"] for error in told(shop.ask("POST", path, body))["errors"]] == [detail]


def told_of_all(shop: Shop) -> list[Any]:
    paths = ("/campaigns", "/schedules", "/contacts", DEFINITIONS)
    return [shop.get(path) for path in paths]


PARAMETERS = [
    ("/actions?stat=failed", "stat"),
    ("/actions?state=done", "state"),
    ("/actions?state=", "state"),
    ("/actions?limit=0", "limit"),
    ("/actions?limit=1001", "limit"),
    ("/actions?limit=x", "limit"),
    ("/actions?limit=²", "limit"),
    ("/actions?limit=1&limit=2", "limit"),
    (f"/actions?contact_id={10**40}", "contact_id"),
    (f"/actions?contact_id={2**31}", "contact_id"),
    ("/actions?active=1", "active"),
    ("/actions?after=x", "after"),
    ("/actions?after=-1", "after"),
    ("/actions?action_id=a%20b", "action_id"),
    ("/actions?subject=", "subject"),
    ("/actions?subject=%00", "subject"),
    ("/actions?due_from=today", "due_from"),
    ("/actions?due_from=2026-11-23", "due_from"),
    ("/actions?due_from=2026-11-23T10:00:00", "due_from"),
    ("/actions?due_from=2026-11-23T10:00:60Z", "due_from"),
    ("/actions?due_from=0001-01-01T00:00:00%2B14:00", "due_from"),
    ("/actions?due_to=9999-12-31T23:59:59-14:00", "due_to"),
    ("/contacts?email=", "email"),
    ("/status?x=1", "x"),
    ("/campaigns/after-purchase/outlook", "subject"),
    (f"{DEFINITIONS}?dry_run=true", "dry_run"),
]


def test_a_parameter_that_cannot_be_is_named(shop: Shop, autumn: str) -> None:
    for path, parameter in PARAMETERS:
        answer = shop.ask("GET", path)
        said = told(answer)
        assert answer.status_code == 422, path
        assert parameter in [error["parameter"] for error in said["errors"]], (path, said)


DEEP = '{"subject":"order","subject_id":"1","contact":' + '{"a":' * 900 + "1" + "}" * 901
BODIES = {
    "nothing": (b"", 400),
    "no JSON": (b"{", 400),
    "a form": (b"a=1", 400),
    "two values": (b"{} {}", 400),
    "NUL byte": (b'{"subject":"a\x00"}', 400),
    "latin-1": '{"subject":"é"}'.encode("latin-1"),
    "UTF-16": '{"subject":"order"}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "NaN": (b'{"contact_id":NaN}', 400),
    "infinity": (b'{"contact_id":-Infinity}', 400),
    "too large for a float": (b'{"contact_id":1e999}', 400),
    "many digits": (b'{"contact_id":' + b"9" * 5000 + b"}", 400),
    "beyond 64 bits": (b'{"contact_id":9223372036854775808}', 400),
    "100 levels": (b'{"a":' * 100 + b"1" + b"}" * 100, 400),
    "900 levels": (DEEP.encode(), 400),
    "100,000 levels": (b"[" * 100_000, 400),
    "NUL escaped": (b'{"subject":"a\\u0000","subject_id":"1"}', 422),
    "NUL in a name": (b'{"subject":"a","subject_id":"1","\\u0000":1}', 422),
    "half a pair": (b'{"subject":"\\ud800","subject_id":"1"}', 422),
    "half a pair in an attribute": (
        b'{"contact":{"email":"a@b.example","attributes":{"x":"\\udfff"}}}',
        422,
    ),
    "1.0 is a number": (b'{"contact_id":1.0}', 422),
    "markup": (b'{"contact":{"email":"<script>alert(1)</script>"}}', 422),
    "too large": (b" " * (BODY_LIMIT + 1), 413),
    "10 MB": (b'{"subject":"' + b"x" * 10_000_000 + b'"}', 413),
}


def test_a_body_of_garbage(shop: Shop, autumn: str) -> None:
    for kind, given in BODIES.items():
        data, status = given if isinstance(given, tuple) else (given, 400)
        answer = shop.ask("POST", ENROL, data=data, content_type="application/json")
        told(answer)
        assert answer.status_code == status, kind
    assert shop.get("/schedules")["items"] == []


def test_lines_of_garbage(shop: Shop, autumn: str) -> None:
    for data in (b"\n\n", b"{}\n[]", b'{"contact_id":1}\n{', b"\xff\n", b"[1]"):
        answer = shop.ask("POST", BULK, data=data, content_type="application/x-ndjson")
        told(answer)
        assert answer.status_code in (400, 422), data
    assert shop.get("/schedules")["items"] == []


def test_the_line_that_cannot_be_read_is_named(shop: Shop, autumn: str) -> None:
    data = b'{"contact_id":1}\n\n{"contact_id":1]\n'
    said = told(shop.ask("POST", BULK, data=data, content_type="application/x-ndjson"))
    assert said["detail"].startswith("Line 3 is not JSON in UTF-8: Expecting ',' delimiter")
    assert "line 1" not in said["detail"]


def test_too_many_at_once(shop: Shop, autumn: str) -> None:
    line = b'{"subject":"order","subject_id":"1"}\n'
    answer = shop.ask("POST", BULK, data=line * 10_001, content_type="application/x-ndjson")
    assert (answer.status_code, told(answer)["errors"][0]["pointer"]) == (422, "#/subjects")
    large = shop.ask("POST", BULK, data=b" " * (BULK_LIMIT + 1), content_type="application/json")
    assert told(large)["type"] == "urn:mcs:problem:too-large"


KINDS = [
    "",
    "text/plain",
    "application/xml",
    "application/x-www-form-urlencoded",
    "application/x-ndjson",
    "multipart/form-data; boundary=x",
    "application/json-seq",
]


def test_a_body_of_another_kind(shop: Shop, autumn: str) -> None:
    for kind in KINDS:
        answer = shop.ask("POST", ENROL, data=b'{"contact_id":1}', content_type=kind)
        told(answer)
        assert answer.status_code == 415, kind


NOWHERE = [
    ("GET", "/", 404),
    ("GET", "/nowhere", 404),
    ("GET", "/campaigns/", 404),
    ("GET", "//campaigns", 404),
    ("GET", "/campaigns/nowhere", 404),
    ("GET", "/campaigns/99", 404),
    ("GET", f"/campaigns/{10**40}", 404),
    ("GET", "/campaigns/²", 404),
    ("GET", "/campaigns/%00", 404),
    ("GET", "/campaigns/a%2Fb", 404),
    ("GET", "/campaigns/%F0%9F%92%A9", 404),
    ("GET", "/campaigns/'; DROP TABLE users;--", 404),
    ("PUT", "/campaigns/17", 404),
    ("GET", "/contacts/0", 404),
    ("GET", f"/contacts/{2**31}", 404),
    ("GET", "/contacts/-1", 404),
    ("GET", "/contacts/1.5", 404),
    ("GET", "/schedules/99", 404),
    ("GET", f"/actions/{2**63 - 1}", 404),
    ("GET", f"/actions/{2**63}", 404),
    ("POST", "/actions/99/retry", 404),
    ("GET", "/actions?campaign=nowhere", 404),
    ("DELETE", "/campaigns", 405),
    ("PATCH", "/campaigns/after-purchase", 405),
    ("OPTIONS", "/actions", 405),
    ("TRACE", "/actions", 405),
    ("POST", "/openapi.json", 405),
]


def test_addresses_that_lead_nowhere(shop: Shop, autumn: str) -> None:
    for method, path, status in NOWHERE:
        answer = shop.ask(method, path, {} if method == "PUT" else None)
        told(answer)
        assert answer.status_code == status, (method, path)
        assert status != 405 or answer.headers["Allow"], (method, path)


def test_a_crash_tells_nothing(app: Flask, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_args: Any) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(campaigns, "named", crash)
    answer = shop.ask("GET", "/campaigns/1")
    assert told(answer)["type"] == "urn:mcs:problem:internal"
    assert "secret detail" not in answer.text


def test_a_database_that_is_away_is_said_to_be(
    app: Flask, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: Any) -> None:
        raise OperationalError("SELECT 1", {}, Exception("gone"))

    monkeypatch.setattr(campaigns, "named", refuse)
    answer = shop.ask("GET", "/campaigns/1")
    assert told(answer)["type"] == "urn:mcs:problem:unavailable"
    assert answer.headers["Retry-After"]


class TestAccess:
    """Who may come in."""

    def test_without_a_good_token_nothing_is_told(self, app: Flask, autumn: str) -> None:
        for header in (None, "", "Bearer", "Bearer ", "Basic b2xnYTpvbGdh", "Bearer mcs_wrong",
                       "Bearer é\x7f", "bearer x y", "Token abc"):  # fmt: skip
            headers = {} if header is None else {"Authorization": header}
            answer = app.test_client().get("/api/v1/campaigns/after-purchase", headers=headers)
            assert told(answer)["type"] == "urn:mcs:problem:unauthorized", header
            assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="MCS"'), header
            assert "Set-Cookie" not in answer.headers, header

    def test_a_token_may_do_what_its_scope_says(
        self, make_shop: Callable[[str], Shop], autumn: str
    ) -> None:
        asked = {
            "read": ("GET", "/campaigns", None),
            "enrol": ("POST", "/contacts", {"email": "ann@people.example"}),
            "manage": ("POST", f"/campaigns/{autumn}/activate", None),
        }
        for place, scope in enumerate(asked):
            shop = make_shop(scope)
            for needed, (method, path, body) in enumerate(asked.values()):
                answer = shop.ask(method, path, body)
                assert (answer.status_code < 300) is (needed <= place), (scope, path)
                if needed > place:
                    assert told(answer)["type"] == "urn:mcs:problem:forbidden"
                    assert "insufficient_scope" in answer.headers["WWW-Authenticate"]

    def test_a_revoked_token_is_refused(self, shop: Shop, session: Session, now: Any) -> None:
        assert shop.ask("GET", "/campaigns").status_code == 200
        api_tokens.revoke(session, now, 1, None)
        assert shop.ask("GET", "/campaigns").status_code == 401

    def test_many_wrong_tokens_are_not_looked_at(self, app: Flask, shop: Shop) -> None:
        wrong = Shop(app, "mcs_wrong")
        for _ in range(api_tokens.WRONG_PER_NETWORK_ADDRESS):
            assert wrong.ask("GET", "/campaigns").status_code == 401
        answer = wrong.ask("GET", "/campaigns")
        assert told(answer)["type"] == "urn:mcs:problem:too-many-wrong-tokens"
        assert answer.headers["Retry-After"] == "900"
        assert shop.ask("GET", "/campaigns").status_code == 200

    def test_the_document_is_for_everybody(self, app: Flask) -> None:
        answer = app.test_client().get("/api/v1/openapi.json")
        assert answer.status_code == 200
        assert "Set-Cookie" not in answer.headers
