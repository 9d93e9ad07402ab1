"""What is answered when a request cannot be: RFC 9457 problem details, each of a known type."""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Blueprint, Flask, Response, request
from sqlalchemy.exc import DataError
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from mcs.extensions import db
from mcs.services.campaigns import RefusedCampaign, TakenKey
from mcs.services.transactions import PASSING
from mcs.services.unknown import Unknown

PREFIX = "urn:mcs:problem:"
MEDIA_TYPE = "application/problem+json"
LONGEST_DETAIL = 500
MOST_ERRORS = 100

# Each type: its status, and the title, which is the same whenever it occurs.
TYPES = {
    "malformed": (400, "The body cannot be read"),
    "unauthorized": (401, "A token is needed"),
    "forbidden": (403, "The token may not do this"),
    "not-found": (404, "There is nothing here"),
    "method-not-allowed": (405, "This is not done here"),
    "conflict": (409, "It stands against what there is"),
    "in-progress": (409, "The same request is being answered"),
    "too-large": (413, "The body is too large"),
    "unsupported-media-type": (415, "The body is of a kind that is not read here"),
    "invalid": (422, "Something in the request cannot be"),
    "key-reused": (422, "The Idempotency-Key was used for another request"),
    "too-many-wrong-tokens": (429, "Too many wrong tokens"),
    "internal": (500, "Something went wrong here"),
    "unavailable": (503, "The database does not answer"),
}
_BY_STATUS = {
    400: "malformed",
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
    415: "unsupported-media-type",
}
_WAIT = {"Retry-After": "5"}

log = logging.getLogger(__name__)


class Problem(Exception):
    """A request that cannot be answered. ``errors`` say where in it, one by one."""

    def __init__(
        self,
        type: str,
        detail: str = "",
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail or type)
        self.type, self.detail = type, detail
        self.errors, self.headers = errors, headers or {}


def at(path: Sequence[int | str], detail: str) -> dict[str, str]:
    """What is wrong at a place in the body, which a JSON Pointer (RFC 6901) names."""
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in path)
    return {"pointer": "#" + "".join(f"/{step}" for step in steps), "detail": _short(detail)}


def of_parameter(name: str, detail: str) -> dict[str, str]:
    """What is wrong with a parameter of the address."""
    return {"parameter": name, "detail": _short(detail)}


def invalid(*errors: Mapping[str, str]) -> Problem:
    """A request that says something that cannot be, in these places."""
    return Problem("invalid", errors[0]["detail"] if len(errors) == 1 else "", errors)


def answer(problem: Problem) -> Response:
    """The problem as a response."""
    status, title = TYPES[problem.type]
    said: dict[str, Any] = {"type": PREFIX + problem.type, "title": title, "status": status}
    if problem.detail:
        said["detail"] = _short(problem.detail)
    if problem.errors:
        said["errors"] = list(problem.errors[:MOST_ERRORS])
    body = json.dumps(said, ensure_ascii=False)
    headers = {"Cache-Control": "no-store", **problem.headers}
    return Response(body, status, headers, mimetype=MEDIA_TYPE)


def init_app(app: Flask, bp: Blueprint) -> None:
    """Answer errors of the interface's views, and addresses under it that lead nowhere.

    The latter belong to no blueprint, so that their errors would be pages: they are answered
    before anything else looks at the request.
    """
    prefix = f"{bp.url_prefix}/"
    app.before_request(lambda: _lead_nowhere() if request.path.startswith(prefix) else None)
    bp.register_error_handler(Problem, answer)
    bp.register_error_handler(Unknown, lambda error: answer(Problem("not-found", f"No {error}.")))
    bp.register_error_handler(TakenKey, lambda error: answer(Problem("conflict", str(error))))
    bp.register_error_handler(RefusedCampaign, _refused_campaign)
    bp.register_error_handler(DataError, _refuse_value)
    bp.register_error_handler(HTTPException, _other)
    for kind in PASSING:
        bp.register_error_handler(kind, _unavailable)


def _lead_nowhere() -> Response | None:
    lost = request.routing_exception
    if lost is None:
        return None
    if isinstance(lost, MethodNotAllowed):
        allowed = ", ".join(sorted(lost.valid_methods or ()))
        return answer(Problem("method-not-allowed", headers={"Allow": allowed}))
    return answer(Problem("not-found", "No such address."))


def _refused_campaign(refusal: RefusedCampaign) -> Response:
    return answer(
        invalid(*(at([name] if name else [], said) for name, said in refusal.reasons.items()))
    )


def _refuse_value(_error: DataError) -> Response:
    """A value that PostgreSQL cannot hold and nobody refused before."""
    db.session.rollback()
    return answer(Problem("invalid", "A value in it cannot be kept."))


def _unavailable(error: Exception) -> Response:
    db.session.rollback()
    log.warning("the database does not answer: %s", error)
    return answer(Problem("unavailable", "Try again in some seconds.", headers=_WAIT))


def _other(error: HTTPException) -> Response:
    return answer(Problem(_BY_STATUS.get(error.code or 500, "internal")))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_DETAIL else text[: LONGEST_DETAIL - 1] + "…"
