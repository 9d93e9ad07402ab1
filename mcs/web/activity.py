"""The audit log as a page: who did what, and when."""

from typing import Any

from flask import Blueprint, current_app, render_template, request

from mcs.core import words
from mcs.extensions import db
from mcs.models import AuditEntry
from mcs.services import audit

bp = Blueprint("activity", __name__, url_prefix="/activity")
COUNTED = ("rows", "deliveries", "contacts")
# The fields of a campaign as its form names them.
FIELDS = {
    "start_date": "first day",
    "end_date": "last day",
    "timezone": "time zone",
    "from_name": "From name",
    "from_email": "From address",
    "reply_to": "Reply to",
    "postal_address": "postal address",
    "send_rate": "messages a second",
}


@bp.get("/")
def index() -> str:
    page = audit.listing(
        db.session(), request.args.get("after", ""), request.args.get("before", "")
    )
    zone = current_app.config["SETTINGS"].timezone
    return render_template("activity/index.html", page=page, zone=zone, details=details)


def details(entry: AuditEntry) -> list[str]:
    """What an entry says beside who did what, in words."""
    return [_said(key, value) for key, value in entry.detail.items() if key not in audit.DOORS]


def _said(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return key if value else f"not {key}"
    if isinstance(value, list):
        return f"{key} {', '.join(FIELDS.get(name, str(name)) for name in value)}"
    shown = words.number(value) if key in COUNTED else value
    return f"{key.replace('_', ' ')}: {shown}"
