"""Unsubscribe links: /u/<token>, without sign-in, cookies or redirects (RFC 8058).

GET shows a page and changes nothing, since mail scanners fetch every link; POST acts. Who looks
again after unsubscribing is told so, and may take it back.
"""

from flask import Blueprint, render_template, request

from mcs.core.tokens import RESUBSCRIBE, UNSUBSCRIBE, Recipient, Signer
from mcs.extensions import csrf, db
from mcs.gateways import clock
from mcs.services import suppressions
from mcs.web.parts import settings

bp = Blueprint("unsubscribe", __name__, url_prefix="/u")
# The signed token is the permission; a mail provider that posts for a reader has no other.
csrf.exempt(bp)


@bp.get("/<token>", strict_slashes=False)
def ask(token: str) -> tuple[str, int]:
    recipient = _read(token, UNSUBSCRIBE)
    if recipient is None:
        return _unknown()
    scope = suppressions.unsubscribed(db.session(), recipient)
    if scope:
        return _done(token, recipient, everywhere=scope == suppressions.EVERYWHERE, already=True)
    return _page("unsubscribe/ask.html", recipient)


@bp.post("/<token>", strict_slashes=False)
def unsubscribe(token: str) -> tuple[str, int]:
    recipient = _read(token, UNSUBSCRIBE)
    if recipient is None:
        return _unknown()
    everywhere = request.form.get("from") != suppressions.ONLY_CAMPAIGN
    suppressions.unsubscribe(db.session(), clock.now(), recipient, everywhere=everywhere)
    return _done(token, recipient, everywhere=everywhere, already=False)


@bp.post("/<token>/undo", strict_slashes=False)
def undo(token: str) -> tuple[str, int]:
    recipient = _read(token, RESUBSCRIBE)
    if recipient is None:
        return _unknown()
    suppressions.resubscribe(db.session(), clock.now(), recipient)
    again = Signer(settings().unsubscribe_keys, UNSUBSCRIBE).sign(recipient)
    return _page("unsubscribe/undone.html", recipient, again=again)


def _read(token: str, purpose: str) -> Recipient | None:
    return Signer(settings().unsubscribe_keys, purpose).read(token)


def _done(token: str, recipient: Recipient, *, everywhere: bool, already: bool) -> tuple[str, int]:
    undo = Signer(settings().unsubscribe_keys, RESUBSCRIBE).sign(recipient)
    return _page(
        "unsubscribe/done.html",
        recipient,
        everywhere=everywhere,
        already=already,
        undo=undo,
        token=token,
    )


def _page(template: str, recipient: Recipient, **given: object) -> tuple[str, int]:
    sender = suppressions.sender(db.session(), recipient)
    return render_template(template, sender=sender, **given), 200


def _unknown() -> tuple[str, int]:
    """Always the same body, whatever was wrong with the token."""
    return render_template("unsubscribe/unknown.html"), 404
