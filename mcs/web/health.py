"""For machines that watch: whether this installation can answer."""

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from mcs.extensions import db
from mcs.services import health
from mcs.web.parts import queue

bp = Blueprint("health", __name__)


@bp.get("/healthz")
def show() -> ResponseReturnValue:
    """200 when web, database and Redis answer, else 503; which one does not, by name."""
    answers = {
        "web": True,
        "database": health.database_answers(db.session()),
        "redis": queue().health().redis,
    }
    ok = all(answers.values())
    return jsonify(ok=ok, **answers), 200 if ok else 503
