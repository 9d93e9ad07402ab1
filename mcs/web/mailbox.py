"""The mailbox: what the embedded mail catcher holds, as its readers would see it."""

from email.message import EmailMessage

from flask import Blueprint, Response, abort, render_template, request

from mcs.extensions import db
from mcs.gateways import catcher
from mcs.services import ledger
from mcs.web.parts import settings
from mcs.web.scenarios import sandboxed

bp = Blueprint("mailbox", __name__, url_prefix="/mailbox")
VIEWS = ("html", "text", "headers", "source")
_LISTED = 50
# Links work, each in a tab of its own that is a normal page again. Nothing else does.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "img-src https: data:",
        "form-action 'none'",
        "base-uri 'self'",
        "frame-ancestors 'self'",
        "sandbox allow-popups allow-popups-to-escape-sandbox",
    )
)


@bp.before_request
def only_with_the_catcher() -> None:
    if not settings().embedded_mail:
        abort(404)


@bp.get("/")
def index() -> str:
    found = catcher.messages(
        settings().instance, _LISTED + 1, request.args.get("before", "")[:20] or None
    )
    return render_template(
        "mailbox/index.html",
        rows=found[:_LISTED],
        older=found[_LISTED - 1].id if len(found) > _LISTED else None,
        zone=settings().timezone,
    )


@bp.get("/<message_id>")
def show(message_id: str) -> str:
    message = _found(message_id)
    view = request.args.get("view", "")
    view = view if view in VIEWS else "html" if message.html else "text"
    return render_template(
        "mailbox/show.html",
        message=message,
        subject=str(message.parsed["Subject"] or "(no subject)"),
        view=view,
        views=VIEWS,
        headers=_headers(message.parsed),
        source=message.raw.decode("utf-8", "replace"),
        delivery_id=_delivery_of(message),
        zone=settings().timezone,
    )


@bp.get("/<message_id>/html")
def html(message_id: str) -> Response:
    """The frame's page: the html part, its links in new tabs."""
    message = _found(message_id)
    return sandboxed('<base target="_blank">' + message.html, POLICY)


def _delivery_of(message: catcher.CaughtMessage) -> int | None:
    """The ledger's row that the message is of; a test has none."""
    opaque = str(message.parsed["X-MCS-Delivery"] or "")
    if not opaque or not message.envelope_to:
        return None
    return ledger.of_message(db.session(), message.envelope_to[0], opaque)


def _found(message_id: str) -> catcher.CaughtMessage:
    message = catcher.message(settings().instance, message_id[:20])
    if message is None:
        abort(404)
    return message


def _headers(message: EmailMessage) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in message.items()]
