"""Garbage in every form and every address: words or a 4xx come back, never a 500."""

import io
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask, Request
from sqlalchemy.orm import Session
from werkzeug.datastructures import ImmutableMultiDict
from werkzeug.test import TestResponse

from mcs.config import ROOT
from mcs.gateways.jobqueue import JobQueue
from mcs.services import campaigns, emailers, imports, planning, schedules, sequences
from mcs.services.definitions import Step
from mcs.services.schedules import Subject
from mcs.web.forms import FileForm, Form
from tests.conftest import TEST_DATABASE
from tests.people import add_campaign, add_contacts, add_scenario
from tests.web.visitor import Visitor, words

GARBAGE = {
    "nothing": "",
    "blanks": " \t\r\n\u00a0\u2003",
    "long": "x" * 10_000,
    "NUL": "a\x00b",
    "controls": "a\r\nBcc: eve@evil.example\x0b\x1b\x85\u2028b",
    "right to left": "\u202eשלום מרחב",
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈",
    "no characters": "\ufeff\ufffe\U0010ffff\ufffd",
    "negative": "-1",
    "huge": str(10**40),
    "digits of others": "²٣",
    "no number": "NaN",
    "no date": "2026-02-30",
    "no time": "24:00",
    "year 0": "0000-01-01",
    "the last day": "9999-12-31",
    "the first day": "0001-01-01",
    "a date's other spelling": "2026-W48-2",
    "a time with a zone": "10:00+14:00",
    "unknown word": "superuser",
    "SQL": "'; DROP TABLE users;--",
    "LIKE": r"%_\%",
    "template": "{{ ''.__class__ }}{% for x in y %}",
    "markup": "<script>alert(1)</script>",
    "path": "../../../../etc/passwd",
}
# Of PostgreSQL is asked what it takes otherwise than SQLite does, of SQLite all the rest.
REFUSED_BY_POSTGRES = (
    "NUL", "controls", "long", "no characters", "huge", "negative", "digits of others",
    "the last day", "the first day",
)  # fmt: skip
KINDS = [name for name in GARBAGE if (TEST_DATABASE == "postgres") == (name in REFUSED_BY_POSTGRES)]
# What views read from the request beside their forms.
PLAIN_FIELDS = ("draft", "view", "use", "campaign", "scenario", "from", "theme", "next", "review")
PLAIN_FIELDS += ("back", "past", "place", "on", "subject")
QUERY = ("after", "before", "q", "state", "sort", "when", "outcome", "campaign", "scenario")
QUERY += ("reader", "view", "next", "token", "step", "kind")
ODD_IDS = ("0", "999999", str(2**31 - 1), str(2**31), str(2**63))
# No id at all: no database hears of it.
NO_IDS = ("-1", "abc", "1.5", "%00", "²") if TEST_DATABASE == "sqlite" else ()
# These end the session: asked last.
LEAVING = ("/logout", "/account/sign-out-everywhere")


@pytest.fixture
def olgas(app: Flask, olga: Visitor, session: Session, now: datetime, queue: JobQueue) -> Visitor:
    """Olga, with one of each: what she posts to has the id 1."""
    campaign = add_campaign(session)
    add_contacts(session, campaign, 3)
    add_scenario(session, campaign)
    hook = {"url": "https://hooks.example.com/", "secret": "a secret of 24 characters"}
    steps = [Step("1", "webhook", "0days", config=hook), Step("2", "webhook", "1day", config=hook)]
    sequences.define(session, now, campaign.id, steps)
    schedules.enrol(session, now, campaign.id, Subject("contact", "1", 1))
    file = b"email,name\nann@people.example,Ann\n"
    imports.upload(session, now, queue, campaign.id, "a.csv", [file], True, secret="x")
    (emailer_id,) = planning.plan_day(session, now, queue)
    emailers.send(session, now, queue, emailer_id, timedelta(hours=2))
    return olga


def rules(app: Flask, method: str) -> Iterator[str]:
    """The rules that take a method; those that end the session last."""
    found = {rule.rule for rule in app.url_map.iter_rules() if method in (rule.methods or ())}
    yield from sorted(found - {"/static/<path:filename>"}, key=lambda rule: (rule in LEAVING, rule))


def address(rule: str, number: str = "1") -> str:
    return re.sub(r"<[^>]*>", number, rule)


def answered(answer: TestResponse, what: object) -> None:
    """Not a crash; and words to read where it is a page."""
    assert answer.status_code < 500, (what, answer.status_code)
    assert answer.status_code in (200, 303, 308) or 400 <= answer.status_code < 500, what
    if answer.status_code >= 400:
        assert len(words(answer)) > 20, (what, answer.text)
    assert "Traceback" not in answer.text, what


def all_fields() -> set[str]:
    """The names of every form's fields, and what else a view reads."""
    named = {
        name
        for form in [*_kinds(Form), *_kinds(FileForm)]
        for name in dir(form)
        if hasattr(getattr(form, name), "field_class")
    }
    return named | set(PLAIN_FIELDS) | {"attribute-company"}


def _kinds(form: type) -> Iterator[type]:
    for kind in form.__subclasses__():
        yield kind
        yield from _kinds(kind)


def test_the_fields_are_found() -> None:
    assert {"email", "postal_address", "content", "time", "file", "again", "offset"} <= all_fields()


@pytest.mark.parametrize("kind", KINDS)
def test_garbage_in_every_field_of_every_post(app: Flask, olgas: Visitor, kind: str) -> None:
    fields: dict[str, object] = dict.fromkeys(all_fields(), GARBAGE[kind])
    walked = 0
    for rule in rules(app, "POST"):
        answered(olgas.post(address(rule), fields), (rule, kind))
        walked += 1
    assert walked > 30


def test_no_field_at_all(app: Flask, olgas: Visitor) -> None:
    for rule in rules(app, "POST"):
        answered(olgas.post(address(rule)), rule)


def test_each_field_as_a_list_and_as_a_file(app: Flask, olgas: Visitor) -> None:
    names = all_fields()
    for rule in rules(app, "POST"):
        if rule in LEAVING:
            continue
        lists = {name: ["1", "2", "text"] for name in names}
        answered(olgas.post(address(rule), lists), (rule, "lists"))  # type: ignore[arg-type]
        files = {name: (io.BytesIO(b"\xff\x00binary"), "a.exe") for name in names}
        answered(olgas.post(address(rule), files), (rule, "files"))  # type: ignore[arg-type]


@pytest.mark.skipif(TEST_DATABASE == "postgres", reason="no database has a part in it")
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"name": ["a"]}', "application/json"),
        (b"%ff%fe=%00&csrf_token=\xff", "application/x-www-form-urlencoded"),
        (b"--x\r\nContent-Disposition: form-data", "multipart/form-data; boundary=x"),
        (b"no boundary", "multipart/form-data"),
        (b"<a/>", "text/xml"),
        (b"", ""),
    ],
)
def test_bodies_that_are_no_forms(app: Flask, olgas: Visitor, body: bytes, kind: str) -> None:
    for rule in rules(app, "POST"):
        answer = olgas.client.post(
            address(rule), data=body, content_type=kind, headers={"X-CSRFToken": olgas.token}
        )
        answered(answer, (rule, kind))


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_ids_that_nothing_has(app: Flask, olgas: Visitor, method: str) -> None:
    for rule in rules(app, method):
        if "<" not in rule:
            continue
        for number in (*ODD_IDS, *NO_IDS):
            path = address(rule, number)
            answer = olgas.get(path) if method == "GET" else olgas.post(path)
            answered(answer, (method, path))
            assert answer.status_code >= 400 or rule.startswith("/users/invitations"), path


class Query(ImmutableMultiDict[str, str]):
    """A request's query that notes, for the whole process, that somebody read it."""

    read = False

    def __contains__(self, key: object) -> bool:
        Query.read = True
        return super().__contains__(key)

    def __getitem__(self, key: str) -> str:
        Query.read = True
        return super().__getitem__(key)

    def getlist(self, *args: Any, **options: Any) -> list[Any]:
        Query.read = True
        return super().getlist(*args, **options)

    def items(self, *args: Any, **options: Any) -> Any:
        Query.read = True
        return super().items(*args, **options)


class NotingRequest(Request):
    parameter_storage_class = Query


def test_garbage_in_every_query(
    app: Flask, olgas: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind where the first one was read, since what a page does not read is nothing to it."""
    monkeypatch.setattr(app, "request_class", NotingRequest)

    def read(rule: str, kind: str) -> bool:
        Query.read = False
        value = quote(GARBAGE[kind], errors="surrogatepass")
        query = "&".join(f"{name}={value}" for name in QUERY)
        answered(olgas.get(f"{address(rule)}?{query}"), (rule, kind))
        return Query.read

    first, *others = KINDS
    readers = [rule for rule in rules(app, "GET") if read(rule, first)]
    assert len(readers) > 20
    for kind in others:
        for rule in readers:
            read(rule, kind)


LISTS = (
    *(f"/campaigns/?sort={sign}{name}" for name in campaigns.SORTS for sign in ("", "-")),
    "/contacts/?", "/campaigns/1/contacts?", "/scenarios/?", "/campaigns/1/scenarios/?",
    "/emailers/?", "/emailers/1?", "/imports/1?", "/activity/?", "/mailbox/?",
    "/campaigns/1/sequence/subjects?", "/campaigns/1/sequence/actions?",
    "/campaigns/1/sequence/subjects/1?",
)  # fmt: skip
PLACES = (
    "1", "0", str(2**31), str(2**63), "9" * 18, "9" * 200, "-1", "1.1", "2026-11-24 1",
    "2026-11-24_1", "2026-11-24T10:00:00%2B00:00_1", "9999-12-31_5", f"2026-11-24_{2**70}",
    f"2026-11-24_10:00_{2**70}", "2026-11-24_10:00%2B14:00_1", "1_a%00b", f"{2**70}_a",
    "a_b", "_", "ann@people.example", "null", "[1,2]", '["a",1]', "%ff", "%00",
)  # fmt: skip


def test_places_in_lists_that_somebody_made_up(olgas: Visitor) -> None:
    for path in LISTS:
        for place in PLACES:
            # One that cannot be read as "before" is read as "after" too.
            asked = f"{path}&before={place}&after={place}"
            answer = olgas.get(asked)
            answered(answer, asked)
            assert answer.status_code == 200, asked


CAMPAIGN = {
    "name": "Autumn",
    "description": "",
    "start_date": "2026-11-23",
    "end_date": "2026-11-30",
    "timezone": "Europe/Berlin",
    "from_name": "Ada's Shop",
    "from_email": "ada@shop.example",
    "reply_to": "",
    "postal_address": "1 Main Street",
}
SCENARIO = {
    "name": "Hello",
    "subject": "Hello {{ name }}",
    "content": "Dear {{ name }}",
    "format": "text",
    "date": "2026-11-27",
    "time": "10:00",
}
STEP = {
    "key": "3",
    "offset": "2days",
    "time": "10:00",
    "days": "mon",
    "excluded": "2026-12-25",
    "repeat": "every 1week, 3 times",
    "after": "1",
    "on_failure": "skip",
    "attempts": "2",
    "past": "run",
    "back": "",
}
HOOK = STEP | {"url": "https://hooks.example.com/", "secret": "a secret of 24 characters"}
EMAIL = STEP | {name: SCENARIO[name] for name in ("name", "subject", "content", "format")}
POST = STEP | {"service": "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV", "text": "Sold!"}
HERE = "/campaigns/1/sequence"
FORMS: dict[str, dict[str, str]] = {
    "/campaigns/new": CAMPAIGN,
    "/campaigns/1/edit": CAMPAIGN,
    "/campaigns/1/scenarios/new": SCENARIO,
    "/campaigns/1/scenarios/new?draft": SCENARIO | {"draft": "1", "format": "markdown"},
    "/campaigns/1/scenarios/check": SCENARIO,
    "/campaigns/1/scenarios/preview": SCENARIO | {"reader": "p1@people.example"},
    "/campaigns/1/contacts/new": {"email": "eve@people.example", "name": "Eve"},
    "/emailers/1/new-time": {"date": "2026-11-27", "time": "10:00"},
    "/users/": {"email": "marie@shop.example"},
    "/imports/1/confirm": {"use": "email"},
    f"{HERE}/steps/new?kind=webhook": HOOK,
    f"{HERE}/steps/new?kind=send_email": EMAIL,
    f"{HERE}/steps/new?kind=notify": POST,
    f"{HERE}/steps/2": HOOK,
    f"{HERE}/check?kind=send_email": EMAIL | {"reader": "p1@people.example"},
    f"{HERE}/check?step=2": HOOK,
    f"{HERE}/steps/2/move": {"place": "0"},
    f"{HERE}/enrol": {"email": "p1@people.example"},
    f"{HERE}/enrol/added": {"on": "1"},
    f"{HERE}/actions/1/retry": {"subject": "1"},
}


PAGES = ("/", "/campaigns/", "/campaigns/1", "/scenarios/", "/contacts/", "/activity/")
SEQUENCE = (HERE, f"{HERE}/enrol", f"{HERE}/subjects", f"{HERE}/subjects/1", f"{HERE}/actions")


@pytest.mark.parametrize("path", FORMS)
def test_one_bad_field_among_good_ones(olgas: Visitor, path: str) -> None:
    """The field's own checks are reached, and what a service stores is what a page can show."""
    # Each kind in some field of each form, and on the two databases not in the same one.
    place = 1 if TEST_DATABASE == "postgres" else 0
    for number, name in enumerate(FORMS[path], place):
        for kind in list(GARBAGE)[number % 5 :: 5]:
            answer = olgas.post(path, {**FORMS[path], name: GARBAGE[kind]})
            answered(answer, (path, name, kind))
    for page in (
        "/",
        "/campaigns/",
        "/campaigns/1",
        "/scenarios/",
        "/contacts/",
        "/activity/",
        *SEQUENCE,
    ):
        assert olgas.get(page).status_code == 200, page


def test_any_file_as_contacts(olgas: Visitor) -> None:
    """Each is taken or refused with words; what was taken can be looked at, and nobody is lost."""
    for file in sorted((ROOT / "tests" / "files" / "contacts").iterdir()):
        for review in ("", "1"):
            upload = (io.BytesIO(file.read_bytes()), file.name)
            answer = olgas.post("/campaigns/1/contacts/upload", {"file": upload, "review": review})
            answered(answer, file.name)
            assert answer.status_code in (303, 422), file.name
            if answer.status_code == 303:
                assert olgas.get(answer.location).status_code == 200, file.name
                assert olgas.get(f"{answer.location}/rejected.csv").status_code == 200, file.name
    for number in range(3):
        assert f"p{number}@people.example" in olgas.get(f"/contacts/?q=p{number}@people").text
