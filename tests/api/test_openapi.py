"""The document equals the interface: its routes, and what schemathesis finds when it tries it."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    negative_data_rejection,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.openapi import from_wsgi

from mcs import api, config
from mcs.api.operations import Operation
from mcs.app import create_app
from mcs.extensions import db
from mcs.gateways import clock
from mcs.services import api_tokens
from tests.api.conftest import AUTUMN, CONFIG, Shop

# For each operation and each way. PostgreSQL refuses more than SQLite does.
EXAMPLES = 10  # On each database, and other ones.
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
KNOWN = {"campaign": "a", "contact_id": 1, "schedule_id": 1, "action_id": 1}
NAMES = [one.name for one in api.OPERATIONS]


@pytest.fixture(scope="module")
def described(
    make_database: Callable[[Path], str],
    redis_server: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Any]]:
    """The operations as schemathesis reads them, of an installation with one of each noun."""
    folder = tmp_path_factory.mktemp("described")
    environ = {
        "DATABASE_URL": make_database(folder),
        "REDIS_URL": redis_server,
        "MCS_INSTANCE": str(folder / "instance"),
        "MCS_BASE_URL": "http://mcs.example",
    }
    app = create_app(config.load(environ))
    with app.app_context():
        token = api_tokens.make(db.session(), clock.now(), "schemathesis", "manage", None)
    _one_of_each(Shop(app, token))
    schema = from_wsgi("/api/v1/openapi.json", app)
    found = (result.ok() for result in schema.get_all_operations())
    yield {"token": token} | {one.definition.raw["operationId"]: one for one in found}
    with app.app_context():
        db.engine.dispose()


def _of(name: str) -> Operation:
    return next(one for one in api.OPERATIONS if one.name == name)


def _one_of_each(shop: Shop) -> None:
    """Of the id 1 each, so that what is drawn finds something now and then."""
    shop.put("/campaigns/a", AUTUMN, 201)
    step = {"id": "a", "callback": "webhook", "interval": "1day", "config": CONFIG}
    shop.put("/campaigns/a/definitions", {"action_defs": [step]})
    shop.post("/campaigns/1/schedules", {"contact": {"email": "ann@people.example"}}, 201)


def test_the_document_has_exactly_the_routes(app: Flask) -> None:
    document = app.test_client().get("/api/v1/openapi.json").json
    told = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    routed = {
        (method, re.sub(r"<(?:[^:>]+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/") and rule.endpoint != "api.openapi"
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert told == routed
    assert len(told) > 20
    assert document["openapi"].startswith("3.1")


def test_each_verb_has_an_example_in_the_docs() -> None:
    told = (config.ROOT / "docs" / "api.md").read_text()
    for one in api.OPERATIONS:
        rule = re.sub(r"{\w+}", "[^/ '?]+", f"$MCS{one.rule}").replace("$", r"\$")
        method = "" if one.method == "GET" else f"-X {one.method} "
        assert re.search(f"curl {method}.*{rule}(?=[ '\"?\n])", told), (one.method, one.rule)


@pytest.mark.parametrize("way", ["positive", "known", "negative"])
@pytest.mark.parametrize("name", NAMES)
def test_no_crash_and_no_undocumented_answer(
    described: dict[str, Any], name: str, way: str
) -> None:
    operation = described[name]
    mode = GenerationMode("negative" if way == "negative" else "positive")
    checks = [*CHECKS, negative_data_rejection] if way == "negative" else CHECKS
    # Of what is drawn, an id that leads somewhere is rare.
    known = None if way == "positive" else {one: KNOWN[one] for one in _of(name).path}
    headers = {"Authorization": f"Bearer {described['token']}"}

    @given(case=operation.as_strategy(mode, path_parameters=known or None))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def tried(case: Case) -> None:
        case.call_and_validate(headers=headers, checks=checks)

    tried()
