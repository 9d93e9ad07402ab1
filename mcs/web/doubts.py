"""The page of an emailer's deliveries in doubt, and the buttons that settle them."""

from flask import Blueprint, abort, flash, redirect, render_template, request
from flask_login import current_user
from werkzeug.wrappers import Response

from mcs.core import words
from mcs.extensions import db
from mcs.gateways import clock
from mcs.services import emailers, ledger, settling
from mcs.services.emailers import NotPossible
from mcs.web.parts import LARGEST_BIG_ID, id_in, place, queue

bp = Blueprint("doubts", __name__)

SETTLED = {
    "sent": "{} settled as sent.",
    "failed": "{} settled as not sent.",
    "again": "{} going out again, with the same Message-ID.",
}


@bp.get(id_in("/emailers/{emailer_id}/doubts"))
def show(emailer_id: int) -> str:
    emailer = ledger.find(db.session(), emailer_id)
    return render_template(
        "emailers/doubts.html",
        emailer=emailer,
        scenario=emailer.scenario,
        campaign=emailer.scenario.campaign,
        page=ledger.ledger(db.session(), emailer_id, "in_doubt", "", place()),
        number=emailers.progress(db.session(), emailer_id).in_doubt,
    )


@bp.post(id_in("/emailers/{emailer_id}/doubts"))
def settle(emailer_id: int) -> Response | tuple[str, int]:
    """Settle ``delivery``, or all of the emailer without it, as ``answer`` says.

    What is no number is not taken for "all": 404.
    """
    ledger.find(db.session(), emailer_id)
    answer = request.form.get("answer", "")
    delivery_id = request.form.get("delivery", type=int)
    if "delivery" in request.form and not 0 < (delivery_id or 0) <= LARGEST_BIG_ID:
        abort(404)
    if answer not in settling.ANSWERS:
        flash("Choose what became of it: it arrived, it did not, or send it again.", "error")
        return show(emailer_id), 422
    try:
        number = settling.settle(
            db.session(),
            clock.now(),
            queue(),
            emailer_id,
            answer,
            delivery_id,
            user_id=current_user.id,
        )
    except NotPossible as refusal:
        flash(str(refusal), "error")
    else:
        flash(SETTLED[answer].format(words.count(number, "message")))
    left = emailers.progress(db.session(), emailer_id).in_doubt
    return redirect(f"/emailers/{emailer_id}/doubts" if left else f"/emailers/{emailer_id}", 303)


@bp.get(id_in("/emailers/{emailer_id}/retry"))
def ask_retry(emailer_id: int) -> str:
    emailer = ledger.find(db.session(), emailer_id)
    failed = emailers.progress(db.session(), emailer_id).failed
    return render_template(
        "confirm.html",
        question=f"Try the failed ones of “{emailer.scenario.name}” again?",
        consequences=[
            f"{words.count(failed, 'message')} failed. Each is tried once more, from now on.",
            "Addresses that do not exist are suppressed and are left out.",
        ],
        action=f"/emailers/{emailer_id}/retry",
        verb="Try them again",
        back=f"/emailers/{emailer_id}",
    )


@bp.post(id_in("/emailers/{emailer_id}/retry"))
def retry(emailer_id: int) -> Response:
    ledger.find(db.session(), emailer_id)
    try:
        number = settling.retry_failed(
            db.session(), clock.now(), queue(), emailer_id, user_id=current_user.id
        )
    except NotPossible as refusal:
        flash(str(refusal), "error")
    else:
        flash(f"{words.count(number, 'message')} going out again.")
    return redirect(f"/emailers/{emailer_id}", 303)
