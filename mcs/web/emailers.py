"""The pages of emailers: how each sending stands, its ledger, and the buttons that hold it."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

from flask import Blueprint, flash, redirect, render_template
from flask_login import current_user
from werkzeug.wrappers import Response
from wtforms.validators import InputRequired

from mcs.core import words
from mcs.extensions import db
from mcs.gateways import clock
from mcs.models import Emailer
from mcs.services import audiences, emailers, headway, ledger, scenarios, settling
from mcs.services.emailers import NotPossible
from mcs.web import pace
from mcs.web.downloads import download, in_a_filename
from mcs.web.forms import Form
from mcs.web.parts import (
    Day,
    TimeOfDay,
    id_asked,
    id_in,
    place,
    queue,
    searched,
    settings,
    word,
)

bp = Blueprint("emailers", __name__)
OVER = ("sent", "cancelled")


class NewTimeForm(Form):
    date = Day("New date", [InputRequired("Choose the new date.")])
    time = TimeOfDay("New time", [InputRequired("Choose the new time.")])


@bp.get("/emailers/")
def index() -> str:
    filters = {"search": searched(), "state": word("state", ledger.STATES)}
    chosen = id_asked("campaign")
    page = ledger.emailers(
        db.session(),
        search=filters["search"],
        campaign_id=chosen,
        state=filters["state"],
        at=place(),
    )
    return render_template(
        "emailers/index.html",
        page=page,
        filters=filters,
        chosen=chosen,
        filtered=any(filters.values()) or chosen is not None,
        campaigns=scenarios.campaigns(db.session()),
        states=ledger.STATES,
        served=ledger.served(db.session(), [emailer.id for emailer in page.rows]),
    )


@bp.get(id_in("/emailers/{emailer_id}"))
def show(emailer_id: int) -> str:
    return _page(emailer_id, NewTimeForm(formdata=None))


@bp.get(id_in("/emailers/{emailer_id}/ledger.csv"))
def ledger_file(emailer_id: int) -> Response:
    """The ledger as a CSV, of what the page's filter lets through."""
    session, filters = db.session(), _filters()
    name = _filename(ledger.find(session, emailer_id), filters["outcome"])
    return download(ledger.table(session, emailer_id, **filters), name)


def _filename(emailer: Emailer, outcome: str) -> str:
    """``autumn-sale-opening-2026-11-23.csv``."""
    scenario = emailer.scenario
    zone = ZoneInfo(scenario.campaign.timezone)
    names = [
        in_a_filename(scenario.campaign.name, "campaign"),
        in_a_filename(scenario.name, "scenario"),
        emailer.scheduled_at.astimezone(zone).date().isoformat(),
    ]
    if outcome:
        names.append(in_a_filename(outcome, ""))
    return "-".join(names) + ".csv"


def _filters() -> dict[str, str]:
    return {"outcome": word("outcome", ledger.OUTCOMES), "search": searched()}


def _page(emailer_id: int, form: NewTimeForm) -> str:
    filters = _filters()
    standing = _standing(emailer_id)
    return render_template(
        "emailers/show.html",
        form=form,
        page=ledger.ledger(
            db.session(), emailer_id, filters["outcome"], filters["search"], place()
        ),
        filters=filters,
        outcomes=ledger.OUTCOMES,
        retriable=_retriable(standing["progress"], emailer_id),
        **standing,
    )


@bp.get(id_in("/emailers/{emailer_id}/progress"))
def progress(emailer_id: int) -> str:
    """The part of the page that follows what happens."""
    return render_template("emailers/progress.html", **_standing(emailer_id))


def _standing(emailer_id: int) -> dict[str, Any]:
    emailer = ledger.find(db.session(), emailer_id)
    now = clock.now()
    campaign = emailer.scenario.campaign
    standing = headway.progress(db.session(), emailer_id)
    retrying = headway.retrying(db.session(), now, emailer_id)
    seen, limits = pace.seen(), (campaign.send_rate, settings().send_rate)
    return {
        "emailer": emailer,
        "scenario": emailer.scenario,
        "campaign": campaign,
        "progress": standing,
        "retrying": retrying,
        "now": now,
        "begun": emailer.recipients is not None,
        "audience": _audience(emailer),
        "live": standing.state not in OVER or standing.to_go > 0,
        "pace": pace.told(standing, retrying.number, now, seen, limits),
        "followed": pace.followed(f"/emailers/{emailer_id}/progress", standing, now, seen),
        "punctual": _punctual(standing.late_by),
        "from_now": words.from_now,
        "duration": words.span,
    }


def _retriable(standing: headway.Progress, emailer_id: int) -> int:
    if not standing.failed or standing.state == "cancelled":
        return 0
    return settling.retriable(db.session(), emailer_id)


def _audience(emailer: Emailer) -> audiences.Audience | None:
    """Who would get it, while nobody has been counted yet."""
    if emailer.recipients is not None or emailer.state not in ("planned", "missed"):
        return None
    scenario = emailer.scenario
    return audiences.count(db.session(), scenario.campaign_id, scenario.excludes_id)


def _punctual(late_by: timedelta | None) -> str:
    if late_by is None:
        return ""
    if late_by < timedelta(0):
        return f"{words.span(late_by)} early"
    if late_by < timedelta(seconds=2):
        return "on time"
    return f"{words.span(late_by)} late"


@bp.post(id_in("/emailers/{emailer_id}/pause"))
def pause(emailer_id: int) -> Any:
    return _do(
        emailer_id,
        lambda: emailers.pause(db.session(), clock.now(), emailer_id, user_id=current_user.id),
        "Paused. Messages in flight end, no other one starts.",
    )


@bp.post(id_in("/emailers/{emailer_id}/resume"))
def resume(emailer_id: int) -> Any:
    return _do(
        emailer_id,
        lambda: emailers.resume(
            db.session(),
            clock.now(),
            queue(),
            emailer_id,
            timedelta(minutes=settings().late_limit_minutes),
            user_id=current_user.id,
        ),
        "It goes on.",
    )


@bp.get(id_in("/emailers/{emailer_id}/cancel"))
def ask_cancel(emailer_id: int) -> str:
    emailer = ledger.find(db.session(), emailer_id)
    standing = headway.progress(db.session(), emailer_id)
    return render_template(
        "confirm.html",
        question=f"Cancel “{emailer.scenario.name}”?",
        consequences=_consequences(emailer, standing),
        action=f"/emailers/{emailer_id}/cancel",
        verb="Stop it for good" if emailer.recipients is not None else "Do not send it",
        back=f"/emailers/{emailer_id}",
        keep="Keep it",
    )


def _consequences(emailer: Emailer, standing: headway.Progress) -> list[str]:
    if emailer.recipients is None:
        return ["Nobody has got it, and nobody will. The scenario becomes a draft again."]
    in_flight = words.count(standing.sending, "message")
    return [
        f"{words.count(standing.sent, 'contact')} already got it; that cannot be taken back.",
        *([f"{in_flight} on the way right now may still arrive."] if standing.sending else []),
        f"{words.count(standing.pending, 'contact')} still to go will not get it.",
        "This cannot be undone. To stop for a while, pause instead.",
    ]


@bp.post(id_in("/emailers/{emailer_id}/cancel"))
def cancel(emailer_id: int) -> Any:
    return _do(
        emailer_id,
        lambda: emailers.cancel(db.session(), clock.now(), emailer_id, user_id=current_user.id),
        "Cancelled. No other message starts.",
    )


@bp.post(id_in("/emailers/{emailer_id}/send-now"))
def send_now(emailer_id: int) -> Any:
    return _do(
        emailer_id,
        lambda: emailers.send_now(
            db.session(), clock.now(), queue(), emailer_id, user_id=current_user.id
        ),
        "It goes out now.",
    )


@bp.post(id_in("/emailers/{emailer_id}/skip"))
def skip(emailer_id: int) -> Any:
    return _do(
        emailer_id,
        lambda: emailers.skip(db.session(), clock.now(), emailer_id, user_id=current_user.id),
        "Skipped: nobody gets it.",
    )


@bp.post(id_in("/emailers/{emailer_id}/new-time"))
def new_time(emailer_id: int) -> Any:
    ledger.find(db.session(), emailer_id)
    form = NewTimeForm()
    day, at = form.date.data, form.time.data
    if not form.validate() or day is None or at is None:
        return _page(emailer_id, form), 422
    try:
        emailers.reschedule(
            db.session(),
            clock.now(),
            queue(),
            emailer_id,
            day,
            at,
            user_id=current_user.id,
        )
    except NotPossible as refusal:
        form.date.errors = [str(refusal)]
        return _page(emailer_id, form), 422
    flash("It has a new time.")
    return redirect(f"/emailers/{emailer_id}", 303)


def _do(emailer_id: int, act: Callable[[], None], done: str) -> Response | tuple[str, int]:
    """Do it, or say in the page why it cannot be done (409)."""
    ledger.find(db.session(), emailer_id)
    try:
        act()
    except NotPossible as refusal:
        flash(str(refusal), "error")
        return _page(emailer_id, NewTimeForm(formdata=None)), 409
    flash(done)
    return redirect(f"/emailers/{emailer_id}", 303)
