"""Home: what goes out, what is going out, what needs a person, and whether all parts live."""

from itertools import groupby

from flask import Blueprint, current_app, redirect, render_template
from flask.typing import ResponseReturnValue
from flask_login import current_user

from mcs.core.timelines import today
from mcs.extensions import db
from mcs.gateways import clock
from mcs.services import campaigns, health, outlook, samples
from mcs.services.outlook import Upcoming
from mcs.web.parts import queue, settings

bp = Blueprint("home", __name__)

DAYS = 7


@bp.get("/")
def index() -> str:
    now = clock.now()
    session = db.session()
    return render_template(
        "home/index.html",
        today=today(now, str(settings().timezone)),
        any_campaign=campaigns.any_campaign(session),
        days=by_day(outlook.upcoming(session, now, days=DAYS)),
        going=outlook.being_sent(session),
        needs=outlook.needs(session, now),
        parts=health.parts(session, queue(), current_app.extensions["mailserver"]),
    )


@bp.get("/sending")
def sending() -> str:
    """The part of the home page that renews itself while something is being sent."""
    return render_template("home/sending.html", going=outlook.being_sent(db.session()))


@bp.post("/sample")
def sample() -> ResponseReturnValue:
    scenario_id = samples.make(
        db.session(), clock.now(), queue(), settings().timezone, current_user.id
    )
    return redirect(f"/scenarios/{scenario_id}", 303)


def by_day(coming: list[Upcoming]) -> list[tuple[object, list[Upcoming]]]:
    """Grouped by the day on which each goes out in its campaign's own calendar."""
    ordered = sorted(coming, key=lambda one: (one.scenario.date, one.at))
    return [(day, list(ones)) for day, ones in groupby(ordered, key=lambda one: one.scenario.date)]
