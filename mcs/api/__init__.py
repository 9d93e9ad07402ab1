"""The HTTP interface for programs, /api/v1: one file per noun, all operations named here."""

import json
from functools import cache

from flask import Blueprint, Flask, Response, request
from werkzeug.wsgi import get_input_stream

from mcs.api import actions, campaigns, contacts, definitions, openapi, problems, schedules
from mcs.api.operations import PREFIX, Operation, view
from mcs.extensions import csrf

# A body of which no more is wanted is read to its end, up to so many bytes, in such pieces.
HEARD_OUT, PIECE = 32 * 1024 * 1024, 64 * 1024

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
    bp.after_request(_hear_out)
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


def _hear_out(response: Response) -> Response:
    """Read what is left of the body: who is cut off while sending sees a broken pipe, no answer."""
    stream = request.environ["wsgi.input"]
    if (request.content_length or 0) > HEARD_OUT:
        return response
    if not request.environ.get("wsgi.input_terminated"):
        if "stream" in vars(request):
            return response
        stream = get_input_stream(request.environ)
    left = HEARD_OUT
    while left > 0 and (chunk := stream.read(min(left, PIECE))):
        left -= len(chunk)
    return response
