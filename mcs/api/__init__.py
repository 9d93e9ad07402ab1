"""The HTTP interface for programs, /api/v1: one file per noun, all operations named here."""

import json
from functools import cache

from flask import Blueprint, Flask, Response

from mcs.api import actions, campaigns, contacts, definitions, openapi, problems, schedules
from mcs.api.operations import PREFIX, Operation, view
from mcs.extensions import csrf

OPERATIONS: tuple[Operation, ...] = (
    *campaigns.OPERATIONS,
    *definitions.OPERATIONS,
    *schedules.OPERATIONS,
    *actions.OPERATIONS,
    *contacts.OPERATIONS,
)


def init_app(app: Flask) -> None:
    """Register the interface. It comes before what guards the pages: it has no sessions, so no
    forged request can borrow one, and it asks everybody for a token itself."""
    bp = Blueprint("api", __name__, url_prefix=PREFIX)
    for one in OPERATIONS:
        bp.add_url_rule(
            one.flask_rule,
            one.name,
            view(one),
            methods=[one.method],
            provide_automatic_options=False,
        )
    bp.add_url_rule(
        "/openapi.json", "openapi", described, methods=["GET"], provide_automatic_options=False
    )
    bp.after_request(_keep_nowhere)
    problems.init_app(app, bp)
    app.register_blueprint(bp)
    csrf.exempt(bp)


def described() -> Response:
    """The OpenAPI document, for everybody: it says nothing of this installation."""
    return Response(_document(), mimetype="application/json")


@cache
def _document() -> str:
    return json.dumps(openapi.document(OPERATIONS), ensure_ascii=False, indent=1)


def _keep_nowhere(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response
