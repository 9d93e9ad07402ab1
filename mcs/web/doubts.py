"""The pages of deliveries in doubt, of an emailer or a sequence, and the buttons that settle
them."""

from collections.abc import Callable

from flask import Blueprint, abort, flash, redirect, render_template, request
from flask_login import current_user
from werkzeug.wrappers import Response

from mcs.core import words
from mcs.extensions import db
from mcs.gateways import clock
from mcs.services import headway, ledger, settling
from mcs.services.emailers import NotPossible
from mcs.services.unknown import find_campaign
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
        noun="sending",
        name=emailer.scenario.name,
        campaign=emailer.scenario.campaign,
        here=f"/emailers/{emailer_id}/doubts",
        back=f"/emailers/{emailer_id}",
        page=ledger.ledger(db.session(), emailer_id, "in_doubt", "", place()),
        number=_number(emailer_id),
    )


@bp.post(id_in("/emailers/{emailer_id}/doubts"))
def settle(emailer_id: int) -> Response | tuple[str, int]:
    ledger.find(db.session(), emailer_id)

    def verb(answer: str, delivery_id: int | None) -> int:
        return settling.settle(
            db.session(),
            clock.now(),
            queue(),
            emailer_id,
            answer,
            delivery_id,
            user_id=current_user.id,
        )

    answered = _settle(verb)
    if answered is None:
        return show(emailer_id), 422
    place = f"/emailers/{emailer_id}"
    return redirect(f"{place}/doubts" if _number(emailer_id) else place, 303)


def _number(emailer_id: int) -> int:
    return headway.progress(db.session(), emailer_id).in_doubt


@bp.get(id_in("/campaigns/{campaign_id}/sequence/doubts"))
def show_of_sequence(campaign_id: int) -> str:
    return render_template(
        "emailers/doubts.html",
        noun="sequence",
        name="Sequence",
        campaign=find_campaign(db.session(), campaign_id),
        here=f"/campaigns/{campaign_id}/sequence/doubts",
        back=f"/campaigns/{campaign_id}/sequence",
        page=ledger.doubts_of_sequence(db.session(), campaign_id, place()),
        number=ledger.doubts_number(db.session(), campaign_id),
    )


@bp.post(id_in("/campaigns/{campaign_id}/sequence/doubts"))
def settle_of_sequence(campaign_id: int) -> Response | tuple[str, int]:
    find_campaign(db.session(), campaign_id)

    def verb(answer: str, delivery_id: int | None) -> int:
        return settling.settle_of_sequence(
            db.session(),
            clock.now(),
            queue(),
            campaign_id,
            answer,
            delivery_id,
            user_id=current_user.id,
        )

    answered = _settle(verb)
    if answered is None:
        return show_of_sequence(campaign_id), 422
    place = f"/campaigns/{campaign_id}/sequence"
    left = ledger.doubts_number(db.session(), campaign_id)
    return redirect(f"{place}/doubts" if left else place, 303)


def _settle(verb: Callable[[str, int | None], int]) -> str | None:
    """Settle ``delivery``, or all without it, as ``answer`` says; the answer, None if it is none.

    What is no number is not taken for "all": 404.
    """
    answer = request.form.get("answer", "")
    delivery_id = request.form.get("delivery", type=int)
    if "delivery" in request.form and not 0 < (delivery_id or 0) <= LARGEST_BIG_ID:
        abort(404)
    if answer not in settling.ANSWERS:
        flash("Choose what became of it: it arrived, it did not, or send it again.", "error")
        return None
    try:
        number = verb(answer, delivery_id)
    except NotPossible as refusal:
        flash(str(refusal), "error")
    else:
        flash(SETTLED[answer].format(words.count(number, "message")))
    return answer


@bp.get(id_in("/emailers/{emailer_id}/retry"))
def ask_retry(emailer_id: int) -> str:
    emailer = ledger.find(db.session(), emailer_id)
    failed = headway.progress(db.session(), emailer_id).failed
    again = settling.retriable(db.session(), emailer_id)
    consequences = [
        f"{words.count(failed, 'message')} failed.",
        f"{words.count(again, 'message')} will be tried once more, from now on.",
    ]
    if failed > again:
        consequences.append(
            f"{words.count(failed - again, 'message')} to addresses that are suppressed, as those"
            " are that do not exist, will stay failed."
        )
    return render_template(
        "confirm.html",
        question=f"Try the failed ones of “{emailer.scenario.name}” again?",
        consequences=consequences,
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
