"""The OpenAPI 3.1 document, made of the operations."""

from collections.abc import Mapping, Sequence
from typing import Any

from mcs.api.operations import LONGEST_KEY, PREFIX, Operation
from mcs.api.problems import MEDIA_TYPE, TYPES
from mcs.api.schemas import SCHEMAS

VERSION = "1.0.0"
SECURITY = "token"
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Whoever asks again with the same key within 24 hours gets the same answer, and"
    " nothing is done twice.",
    "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY, "pattern": "^[ -~]+$"},
}


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """What the interface takes and answers, for programs and for people."""
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(PREFIX + one.rule, {})[one.method.lower()] = _described(one)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "MCS",
            "version": VERSION,
            "summary": "Sequences of actions, each at its right moment.",
            "description": "See docs/api.md for examples.",
        },
        "servers": [{"url": "/"}],
        "security": [{SECURITY: []}],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {SECURITY: {"type": "http", "scheme": "bearer"}},
        },
    }


def _described(one: Operation) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": schema}
        for name, schema in one.path.items()
    ] + [_asked(name, schema, name in one.needs) for name, schema in one.query.items()]
    described: dict[str, Any] = {
        "operationId": one.name,
        "summary": one.summary,
        "description": f"Needs a token that may {one.scope}.",
        "tags": [one.rule.split("/")[1]],
        "parameters": [*parameters, _KEY] if one.creates else parameters,
        "responses": _answers(one),
    }
    if one.body:
        content = {"application/json": {"schema": _ref(one.body)}}
        if one.lines:
            content["application/x-ndjson"] = {
                "schema": {"type": "string", "description": "A Newcomer on each line."}
            }
        described["requestBody"] = {"required": True, "content": content}
    return described


def _asked(name: str, schema: Mapping[str, Any], needed: bool) -> dict[str, Any]:
    described = {key: value for key, value in schema.items() if key != "description"}
    parameter = {"name": name, "in": "query", "required": needed, "schema": described}
    if "description" in schema:
        parameter["description"] = schema["description"]
    return parameter


def _answers(one: Operation) -> dict[str, Any]:
    answers = {str(status): _answer(one, status, name) for status, name in one.answers.items()}
    for status in _problems(one):
        titles = [title for code, title in TYPES.values() if code == status]
        answers[str(status)] = {
            "description": "; ".join(titles),
            "content": {MEDIA_TYPE: {"schema": _ref("Problem")}},
        }
    return answers


def _answer(one: Operation, status: int, schema: str) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": "Created" if status == 201 else "Done",
        "content": {"application/json": {"schema": _ref(schema)}},
    }
    if status == 201:
        answer["headers"] = {"Location": {"schema": {"type": "string"}}}
    return answer


def _problems(one: Operation) -> list[int]:
    """The statuses that it may answer when it cannot do what was asked."""
    statuses = {401, 403, 422, 429, 500, 503}
    if one.path or "campaign" in one.query:
        statuses.add(404)
    if one.body:
        statuses |= {400, 413, 415}
    if one.creates or one.conflicts:
        statuses.add(409)
    return sorted(statuses)


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
