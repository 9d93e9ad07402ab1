"""The pages of a campaign's sequence: its steps as a list, and enrolling."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, flash, redirect, render_template, request
from flask_login import current_user
from markupsafe import Markup
from werkzeug.wrappers import Response
from wtforms.validators import InputRequired

from mcs.core import posts, timelines, timing, words
from mcs.core.sequences import Planned
from mcs.extensions import db
from mcs.gateways import clock
from mcs.models import Campaign, Scenario
from mcs.services import (
    actions,
    campaigns,
    definitions,
    email_actions,
    enrolling,
    ledger,
    messages,
    sequences,
    subjects,
)
from mcs.services.callbacks import NOTIFY, WEBHOOK
from mcs.services.definitions import SEND_EMAIL, Step
from mcs.services.scenarios import Fields
from mcs.services.tallies import Period, Tally
from mcs.services.unknown import find_campaign
from mcs.web import frame
from mcs.web.forms import Form, complain
from mcs.web.parts import id_in, line, queue

bp = Blueprint("sequences", __name__)

HERE = "/campaigns/{campaign_id}/sequence"
KINDS = {SEND_EMAIL: "Email", WEBHOOK: "Webhook", NOTIFY: "Post to a channel"}
# So many occurrences of a repeating step are shown.
SHOWN = 4


class EnrolForm(Form):
    email = line("Email address", InputRequired("Enter the contact’s email address."))


@bp.get(id_in(HERE))
def show(campaign_id: int) -> str:
    session, now = db.session(), clock.now()
    campaign = find_campaign(session, campaign_id)
    steps = definitions.steps_of(session, campaign_id)
    found = definitions.read(steps)
    emails = [step.key for step in steps if step.callback == SEND_EMAIL]
    told = titles(campaign_id, steps)
    called = told_apart(told)
    waits = upcoming(campaign, now)
    return render_template(
        "sequences/show.html",
        campaign=campaign,
        steps=steps,
        said={one.key: timing.said(one, upcoming=waits, names=called) for one in found},
        parents={one.key: timing.reference(*one.after, called) for one in found if one.after},
        titles=told,
        names=called,
        moments=moments_of(campaign_id, None),
        counts=subjects.counts_by_step(session, campaign_id),
        status=actions.status(session, now, [campaign_id]),
        summary=subjects.summary(session, campaign_id),
        in_doubt=ledger.doubts_number(session, campaign_id),
        outside=enrolling.not_enrolled(session, campaign_id),
        sender_gaps=campaigns.sender_gaps(campaign) if emails else [],
        unreachable=subjects.without_contact(session, campaign_id, emails),
        now=now,
        shown=SHOWN,
        from_now=words.from_now,
        lateness=lateness,
    )


@bp.post(id_in(f"{HERE}/resume"))
def resume(campaign_id: int) -> Response:
    try:
        email_actions.resume(
            db.session(), clock.now(), queue(), campaign_id, user_id=current_user.id
        )
    except email_actions.NotHeld as refusal:
        flash(str(refusal), "error")
    else:
        flash("Its emails go on.")
    return redirect(f"/campaigns/{campaign_id}/sequence", 303)


def upcoming(campaign: Campaign, now: datetime) -> bool:
    """Whether the campaign's first day is still to come."""
    return timelines.today(now, campaign.timezone) < campaign.start_date


@dataclass(frozen=True)
class Title:
    """What a step does, in a few words, and a second line: a subject, or what is posted."""

    name: str
    detail: str = ""


def titles(campaign_id: int, steps: Sequence[Step]) -> dict[str, Title]:
    """What each step does, by its id: to be shown beside that."""
    return _titles_of({campaign_id: steps})[campaign_id]


def _titles_of(steps: Mapping[int, Sequence[Step]]) -> dict[int, dict[str, Title]]:
    found = messages.messages_of(db.session(), steps)
    return {
        campaign_id: {step.key: title(step, found.get((campaign_id, step.key))) for step in ones}
        for campaign_id, ones in steps.items()
    }


def title(step: Step, message: Scenario | Fields | None) -> Title:
    """What a step does, which sends this message if it is an email."""
    if message is not None:
        return Title(f"Email: {message.name}", message.subject)
    url = str(step.config.get("url", ""))
    if step.callback == WEBHOOK:
        return Title(f"Webhook to {urlsplit(url).hostname}")
    if step.callback == NOTIFY:
        return Title(f"Post to {posts.named(url)}", str(step.config.get("text", "")))
    return Title(KINDS.get(step.callback, step.callback))


def names(campaign_id: int, steps: Sequence[Step]) -> dict[str, str]:
    """What each step is called where its id does not stand beside it: two that do the same are
    told apart by theirs."""
    return told_apart(titles(campaign_id, steps))


def names_of_many(steps: Mapping[int, Sequence[Step]]) -> dict[int, dict[str, str]]:
    """``names`` for each of some campaigns, by its id."""
    return {campaign_id: told_apart(ones) for campaign_id, ones in _titles_of(steps).items()}


def told_apart(found: Mapping[str, Title]) -> dict[str, str]:
    often = Counter(one.name for one in found.values())
    return {
        key: f"{one.name} ({key})" if often[one.name] > 1 else one.name
        for key, one in found.items()
    }


def moments_of(campaign_id: int, steps: Sequence[Step] | None) -> dict[str, list[Planned]]:
    """When the actions of each step fall for a contact that joins now."""
    outlook = sequences.foresight(db.session(), clock.now(), campaign_id, steps)
    found: dict[str, list[Planned]] = {}
    for one in outlook.planned:
        found.setdefault(one.key, []).append(one)
    return found


def effects(tally: Tally) -> list[str]:
    """What an edit changes, in sentences with numbers."""
    count = words.count
    lines = []
    if tally.move:
        lines.append(f"{count(tally.move, 'action moves', 'actions move')} to another moment.")
    if tally.appear:
        lines.append(f"{count(tally.appear, 'action appears', 'actions appear')}.")
    if tally.never:
        lines.append(
            f"{count(tally.never, 'new action never falls', 'new actions never fall')} due."
        )
    if tally.vanish:
        lines.append(f"{count(tally.vanish, 'action vanishes', 'actions vanish')}.")
    if tally.skipped:
        lines.append(f"{count(tally.skipped, 'action is', 'actions are')} left out for good.")
    if tally.at_once:
        lines.append(f"{count(tally.at_once, 'of them runs', 'of them run')} at once.")
    return lines


def periods(moments: Period, zone: str) -> Markup:
    """Some moments as the end of a sentence, in brackets; nothing where there is none."""
    said = frame.period(moments, zone)
    return Markup(" ({})").format(said) if said else said


def lateness(seconds: float | None) -> str:
    """How late actions begin: ``0.4 s``, or in larger units."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{max(seconds, 0):.1f} s"
    return words.span(timedelta(seconds=seconds))


@bp.get(id_in(f"{HERE}/enrol"))
def enrol(campaign_id: int) -> str:
    return _enrol_page(find_campaign(db.session(), campaign_id), EnrolForm(formdata=None))


@bp.post(id_in(f"{HERE}/enrol"))
def enrol_one(campaign_id: int) -> Any:
    campaign = find_campaign(db.session(), campaign_id)
    form = EnrolForm()
    if form.validate():
        try:
            done = enrolling.enrol_one(
                db.session(), clock.now(), campaign_id, form.email.data, by=current_user.id
            )
        except enrolling.Refused as refusal:
            complain(form, "email", str(refusal))
        else:
            flash(ENROLLED[done.did].format(form.email.data))
            return redirect(f"/campaigns/{campaign_id}/sequence/subjects/{done.schedule_id}", 303)
    return _enrol_page(campaign, form), 422


ENROLLED = {
    "began": "{} has begun the sequence.",
    "resumed": "{} goes on with the sequence, counted from when they began.",
    "nothing": "{} is in the sequence already.",
}


def _enrol_page(campaign: Campaign, form: EnrolForm) -> str:
    session = db.session()
    steps = definitions.steps_of(session, campaign.id)
    return render_template(
        "sequences/enrol.html",
        campaign=campaign,
        form=form,
        steps=steps,
        titles=titles(campaign.id, steps),
        outside=enrolling.not_enrolled(session, campaign.id),
        outlook=sequences.foresight(session, clock.now(), campaign.id),
    )


@bp.post(id_in(f"{HERE}/enrol/batch"))
def enrol_batch(campaign_id: int) -> Response:
    find_campaign(db.session(), campaign_id)
    before = enrolling.not_enrolled(db.session(), campaign_id)
    left = enrolling.ask_batch(db.session(), clock.now(), queue(), campaign_id, by=current_user.id)
    if left:
        flash(
            f"The batch is being enrolled: {words.count(left, 'contact')} to go. You can leave"
            " this page."
        )
    else:
        flash(
            f"{words.count(before, 'contact has', 'contacts have')} begun the sequence."
            if before
            else "Everybody in the batch is in the sequence already."
        )
    return redirect(f"/campaigns/{campaign_id}/sequence", 303)


@bp.post(id_in(f"{HERE}/enrol/added"))
def enrol_added(campaign_id: int) -> Response:
    on = request.form.get("on") == "1"
    find_campaign(db.session(), campaign_id)
    enrolling.welcome(db.session(), clock.now(), campaign_id, on, by=current_user.id)
    flash(
        "Everyone who is added from now on begins the sequence at that moment."
        if on
        else "Who is added from now on does not begin the sequence by themselves."
    )
    return redirect(f"/campaigns/{campaign_id}/sequence/enrol", 303)
