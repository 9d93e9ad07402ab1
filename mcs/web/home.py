"""Home: what goes out, what is going out, what needs a person, and whether all parts live."""

from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby

from flask import Blueprint, current_app, redirect, render_template
from flask.typing import ResponseReturnValue
from flask_login import current_user

from mcs.core.timelines import today
from mcs.extensions import db
from mcs.gateways import clock
from mcs.models import Campaign
from mcs.services import campaigns, definitions, health, outlook, samples, subjects
from mcs.services.outlook import Upcoming
from mcs.services.subjects import Coming
from mcs.web.parts import queue, settings
from mcs.web.sequences import names_of_many

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
        days=by_day(outlook.upcoming(session, now, days=DAYS), _named_steps(now)),
        going=outlook.being_sent(session),
        needs=outlook.needs(session, now),
        parts=health.parts(session, queue(), current_app.extensions["mailserver"]),
    )


@bp.get("/sending")
def sending() -> str:
    """The part of the home page that renews itself: it is asked for by every home page that is
    open, so it says what is under way and nothing else."""
    return render_template("home/sending.html", going=outlook.being_sent(db.session()))


@bp.post("/sample")
def sample() -> ResponseReturnValue:
    scenario_id = samples.make(
        db.session(), clock.now(), queue(), settings().timezone, current_user.id
    )
    return redirect(f"/scenarios/{scenario_id}", 303)


@dataclass(frozen=True)
class Line:
    """What goes out at a moment of a day: an email of a scenario, or a step of a sequence."""

    day: date
    at: datetime
    name: str
    href: str
    campaign: Campaign
    number: int
    noun: str


def _named_steps(now: datetime) -> list[tuple[Coming, str]]:
    """What sequences do in the days to come, each with what its step is called."""
    coming = subjects.coming(db.session(), now, days=DAYS)
    shown = {one.campaign.id for one in coming}
    called = names_of_many(definitions.steps_of_many(db.session(), shown))
    return [(one, called[one.campaign.id].get(one.key, one.key)) for one in coming]


def by_day(
    emails: list[Upcoming], steps: list[tuple[Coming, str]]
) -> list[tuple[date, list[Line]]]:
    """Grouped by the day on which each goes out in its campaign's own calendar."""
    lines = [_of_scenario(one) for one in emails] + [_of_step(*one) for one in steps]
    ordered = sorted(lines, key=lambda line: (line.day, line.at, line.href))
    return [(day, list(ones)) for day, ones in groupby(ordered, key=lambda line: line.day)]


def _of_scenario(one: Upcoming) -> Line:
    return Line(
        _day(one.at, one.campaign),
        one.at,
        one.scenario.name,
        f"/scenarios/{one.scenario.id}",
        one.campaign,
        one.recipients,
        "recipient",
    )


def _of_step(one: Coming, name: str) -> Line:
    return Line(
        _day(one.first_at, one.campaign),
        one.first_at,
        name,
        f"/campaigns/{one.campaign.id}/sequence/actions?state=pending&step={one.key}",
        one.campaign,
        one.number,
        "action",
    )


def _day(at: datetime, campaign: Campaign) -> date:
    return today(at, campaign.timezone)
