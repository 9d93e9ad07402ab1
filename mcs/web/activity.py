"""The audit log as a page: who did what, and when."""

from flask import Blueprint, current_app, render_template, request

from mcs.extensions import db
from mcs.services import audit

bp = Blueprint("activity", __name__, url_prefix="/activity")


@bp.get("/")
def index() -> str:
    page = audit.listing(
        db.session(), request.args.get("after", ""), request.args.get("before", "")
    )
    return render_template(
        "activity/index.html", page=page, zone=current_app.config["SETTINGS"].timezone
    )
