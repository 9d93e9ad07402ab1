"""Operations: what the interface does, each declared once; its route, checks and description are
made of the declaration."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from flask import Response, current_app, request
from sqlalchemy.orm import Session

from mcs.api import access, bodies
from mcs.api.problems import Problem
from mcs.api.schemas import LARGEST_BIG_ID, LARGEST_ID
from mcs.config import Settings
from mcs.core import words
from mcs.extensions import db
from mcs.gateways import clock
from mcs.gateways.jobqueue import JobQueue
from mcs.services import answers
from mcs.services.answers import BeingAnswered, Key, OtherRequest, Turn
from mcs.services.api_tokens import Admitted
from mcs.services.paging import Page

PREFIX = "/api/v1"
KILOBYTE = 1024
BODY_LIMIT = 512 * KILOBYTE
BULK_LIMIT = 8 * KILOBYTE * KILOBYTE
LONGEST_KEY = 255

# The parts of an address, by their names in it: what Flask takes, and what is documented.
PATH: dict[str, tuple[str, dict[str, Any]]] = {
    "campaign": (
        "<campaign>",
        {"type": "string", "minLength": 1, "description": "The campaign's id, or its key."},
    ),
    **{
        name: (
            f"<int(max={largest}):{name}>",
            {"type": "integer", "minimum": 1, "maximum": largest},
        )
        for name, largest in (
            ("contact_id", LARGEST_ID),
            ("schedule_id", LARGEST_ID),
            ("action_id", LARGEST_BIG_ID),
        )
    },
}

_AFTER = {
    "type": "string",
    "pattern": "^[0-9]{1,18}$",
    "maxLength": 18,
    "description": "Where a page begins; `next` of the page before has it.",
}
_LIMIT = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}
PAGING: dict[str, dict[str, Any]] = {"after": _AFTER, "limit": _LIMIT}


@dataclass(frozen=True)
class Answer:
    """What a verb answers: something that JSON can say. ``location`` is of what was made."""

    body: Any
    status: int = 200
    location: str = ""


@dataclass(frozen=True)
class Asked:
    """A request that was let in and read. ``since`` is when it was first asked, where it named an
    Idempotency-Key."""

    session: Session
    now: datetime
    token: Admitted
    query: Mapping[str, Any]
    body: Any
    turn: Turn | None = None

    @property
    def since(self) -> datetime | None:
        """When this was first asked, with its Idempotency-Key."""
        return self.turn.since if self.turn else None

    @property
    def mark(self) -> str | None:
        """What is the same for who asks this again, with its Idempotency-Key."""
        return self.turn.mark if self.turn else None

    @property
    def settings(self) -> Settings:
        settings: Settings = current_app.config["SETTINGS"]
        return settings

    @property
    def queue(self) -> JobQueue:
        queue: JobQueue = current_app.extensions["jobqueue"]
        return queue

    @property
    def after(self) -> str:
        return str(self.query.get("after", ""))

    @property
    def limit(self) -> int:
        return int(self.query.get("limit", _LIMIT["default"]))

    def page(self, found: Page[Any], show: Callable[[Any], Any]) -> Answer:
        """A page of a list, with the address of the next one."""
        address = None
        if found.next is not None:
            given = [pair for pair in request.args.items(multi=True) if pair[0] != "after"]
            address = f"{request.path}?{urlencode([*given, ('after', found.next)])}"
        return Answer({"items": [show(row) for row in found.rows], "next": address})


@dataclass(frozen=True)
class Operation:
    """One verb of the interface. ``rule`` is its address under PREFIX, with names of PATH in it.

    ``needs`` are those of ``query`` that must be there; ``body`` and the values of ``answers`` are
    names of schemas. ``creates`` are those that take an Idempotency-Key; ``lines`` those whose body
    may be NDJSON; ``conflicts`` those that may stand against what there is.
    """

    name: str
    method: str
    rule: str
    verb: Callable[..., Answer]
    scope: str
    summary: str
    answers: Mapping[int, str]
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    body: str = ""
    creates: bool = False
    lines: bool = False
    conflicts: bool = False

    @property
    def flask_rule(self) -> str:
        return re.sub(r"{(\w+)}", lambda found: PATH[found[1]][0], self.rule)

    @property
    def path(self) -> dict[str, dict[str, Any]]:
        return {name: PATH[name][1] for name in re.findall(r"{(\w+)}", self.rule)}

    @property
    def kinds(self) -> tuple[str, ...]:
        return (bodies.JSON, bodies.NDJSON) if self.lines else (bodies.JSON,)

    @property
    def largest(self) -> int:
        return BULK_LIMIT if self.lines else BODY_LIMIT


def view(operation: Operation) -> Callable[..., Response]:
    """The operation as Flask calls it: let in, read, do, answer."""

    def answered(**path: Any) -> Response:
        session, now = db.session(), clock.now()
        token = access.admit(session, now, operation.scope)
        query = bodies.query(operation.query, operation.needs)
        body = None
        if operation.body:
            body = bodies.body(operation.body, operation.kinds, operation.largest)
        asked = Asked(session, now, token, query, body)
        key = request.headers.get("Idempotency-Key") if operation.creates else None
        if key is not None:
            return _once(operation, asked, _key(asked, key), path)
        answer = operation.verb(asked, **path)
        return _response(answer.status, answer.location, _said(answer.body))

    return answered


def instant(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC."""
    return None if moment is None else words.instant(moment)


def _once(operation: Operation, asked: Asked, key: Key, path: Mapping[str, Any]) -> Response:
    """Do what a key has not been used for, or answer again what was answered then."""
    try:
        known = answers.take(asked.session, asked.now, key)
    except OtherRequest:
        raise Problem("key-reused", "Use a new key for each thing to be done.") from None
    except BeingAnswered:
        raise Problem(
            "in-progress", "Ask again in a second.", headers={"Retry-After": "1"}
        ) from None
    if isinstance(known, answers.Answer):
        response = _response(known.status, known.location, known.body)
        response.headers["Idempotent-Replayed"] = "true"
        return response
    again = Asked(asked.session, asked.now, asked.token, asked.query, asked.body, known)
    try:
        answer = operation.verb(again, **path)
    except Exception:
        asked.session.rollback()
        answers.let_go(asked.session, key, known)
        raise
    said = _said(answer.body)
    kept = answers.Answer(answer.status, answer.location, said)
    answers.keep(asked.session, key, known, kept)
    return _response(answer.status, answer.location, said)


def _key(asked: Asked, text: str) -> Key:
    if not (text.isascii() and text.isprintable() and 0 < len(text) <= LONGEST_KEY):
        raise Problem(
            "invalid", f"The Idempotency-Key has 1 to {LONGEST_KEY} printable ASCII characters."
        )
    told = [request.method, request.full_path, asked.body]
    return Key(asked.token.id, text, hashlib.sha256(_said(told).encode()).hexdigest())


def _said(body: Any) -> str:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def _response(status: int, location: str, body: str) -> Response:
    response = Response(body, status, mimetype=bodies.JSON)
    if location:
        response.headers["Location"] = location
        response.autocorrect_location_header = False
    return response
