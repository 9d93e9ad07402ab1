"""Campaigns: the list, the campaign's own page, and the forms that change it."""

from functools import cache

from flask import Blueprint, flash, redirect, render_template, request
from flask.typing import ResponseReturnValue
from flask_login import current_user
from markupsafe import Markup

from mcs.core import words
from mcs.core.sequences import PAST, PAST_SKIP
from mcs.core.timelines import CAMPAIGN_STATES, today
from mcs.extensions import db
from mcs.gateways import clock
from mcs.models import Campaign
from mcs.services import campaigns, definitions, outlook, sequences
from mcs.services.campaigns import Fields, RefusedCampaign
from mcs.services.tallies import Tally
from mcs.services.unknown import find_campaign
from mcs.web.forms import Form, complain
from mcs.web.parts import Day, Rate, id_in, line, lines, place, queue, searched, settings, word
from mcs.web.sequences import effects, periods, titles

bp = Blueprint("campaigns", __name__, url_prefix="/campaigns")

SORT_WORDS = tuple(sign + name for name in campaigns.SORTS for sign in ("", "-"))
ONE = id_in("/{campaign_id}")


class CampaignForm(Form):
    """What may be said of a campaign; what cannot be is the service's to say."""

    name = line("Name")
    description = lines("Description")
    start_date = Day("First day")
    end_date = Day("Last day")
    timezone = line("Time zone")
    from_name = line("From name")
    from_email = line("From address")
    reply_to = line("Reply-to address")
    postal_address = lines("Postal address")
    send_rate = Rate("Messages a second, at most")

    def fields(self) -> Fields:
        return Fields(**{name: self[name].data for name in Fields.__dataclass_fields__})


def accepted(form: CampaignForm) -> Fields | None:
    """What was sent, when all of it is right; otherwise every complaint stands at its field."""
    if not form.is_submitted():
        return None
    parsed = form.validate()
    try:
        fields = campaigns.check(form.fields())
    except RefusedCampaign as refused:
        for name, reason in refused.reasons.items():
            # A date that could not be read has said so itself.
            if name not in form or not form[name].errors:
                complain(form, name, reason)
        return None
    return fields if parsed else None


@bp.get("/")
def index() -> str:
    page = campaigns.listing(
        db.session(),
        clock.now(),
        search=searched(),
        state=word("state", CAMPAIGN_STATES),
        sort=word("sort", SORT_WORDS) or "-start",
        at=place(),
    )
    return render_template(
        "campaigns/index.html",
        page=page,
        states=CAMPAIGN_STATES,
        state=word("state", CAMPAIGN_STATES),
        sort=word("sort", SORT_WORDS) or "-start",
        search=searched(),
        any_campaign=bool(page.rows) or campaigns.any_campaign(db.session()),
    )


@bp.route("/new", methods=["GET", "POST"])
def new() -> ResponseReturnValue:
    zone = str(settings().timezone)
    form = CampaignForm(timezone=zone, start_date=today(clock.now(), zone))
    fields = accepted(form)
    if fields is not None:
        campaign_id = campaigns.create(db.session(), clock.now(), fields, current_user.id)
        return redirect(f"/campaigns/{campaign_id}", 303)
    page = render_template("campaigns/form.html", form=form, campaign=None, zones=zones())
    return (page, 422) if form.errors else page


@bp.get(ONE)
def show(campaign_id: int) -> str:
    now = clock.now()
    overview = campaigns.overview(db.session(), now, campaign_id)
    return render_template(
        "campaigns/show.html",
        view=overview,
        campaign=overview.campaign,
        today=today(now, overview.campaign.timezone),
    )


@bp.route(f"{ONE}/edit", methods=["GET", "POST"])
def edit(campaign_id: int) -> ResponseReturnValue:
    campaign = find_campaign(db.session(), campaign_id)
    form = CampaignForm(obj=campaigns.fields_of(campaign))
    fields = None if request.form.get("back") else accepted(form)
    if fields is not None:
        return _save(campaign, form, fields)
    page = render_template("campaigns/form.html", form=form, campaign=campaign, zones=zones())
    return (page, 422) if form.errors else page


def _save(campaign: Campaign, form: CampaignForm, fields: Fields) -> ResponseReturnValue:
    """Save what was typed, once what it moves in the sequence was confirmed, where it moves any."""
    past = request.form.get("past", "")
    if past not in PAST:
        effect = campaigns.effect(db.session(), clock.now(), campaign.id, fields)
        if effect.any:
            return render_template(
                "campaigns/confirm.html",
                campaign=campaign,
                form=form,
                titles=titles(campaign.id, definitions.steps_of(db.session(), campaign.id)),
                zone=fields.timezone,
                effect=effect,
                effects=effects,
                action=request.path,
            )
        past = PAST_SKIP
    tally = campaigns.edit(
        db.session(), clock.now(), queue(), campaign.id, fields, current_user.id, past
    )
    flash(" ".join(["The campaign is saved.", *effects(tally)]))
    return redirect(f"/campaigns/{campaign.id}", 303)


@bp.get(f"{ONE}/activate")
def ask_activate(campaign_id: int) -> str:
    campaign = find_campaign(db.session(), campaign_id)
    back = sequences.activation(db.session(), clock.now(), campaign_id)
    found = "Its scheduled scenarios are planned again, and go out at their times."
    when = periods(back.period("appear"), campaign.timezone)
    consequences = [found, *_come_back(back, "comes back", "come back", when)]
    return render_template(
        "confirm.html",
        question=f"Activate {campaign.name}?",
        consequences=consequences,
        action=request.path,
        verb="Activate",
        look="btn-primary",
        back=f"/campaigns/{campaign.id}",
    )


@bp.post(f"{ONE}/activate")
def activate(campaign_id: int) -> ResponseReturnValue:
    back = campaigns.activate(db.session(), clock.now(), queue(), campaign_id, current_user.id)
    found = "The campaign is active: its scheduled scenarios go out at their times."
    flash(" ".join([found, *_come_back(back, "is planned again", "are planned again")]))
    return redirect(f"/campaigns/{campaign_id}", 303)


def _come_back(back: Tally, does: str, do: str, when: str = "") -> list[str]:
    """What switching on brings back of a sequence, in sentences with numbers."""
    lines: list[str] = []
    if back.appear:
        lines.append(
            Markup("{} of its sequence {}, of {}, counted from when each began{}.").format(
                words.count(back.appear, "action"),
                does if back.appear == 1 else do,
                words.count(back.subjects, "subject"),
                when,
            )
        )
    if back.at_once:
        late = "is late and runs" if back.at_once == 1 else "are late and run"
        lines.append(f"{words.number(back.at_once)} of them {late} at once.")
    return lines


@bp.route(f"{ONE}/deactivate", methods=["GET", "POST"])
def deactivate(campaign_id: int) -> ResponseReturnValue:
    campaign = find_campaign(db.session(), campaign_id)
    if request.method == "GET":
        return ask(
            campaign,
            f"Deactivate {campaign.name}?",
            "Deactivate",
            "Activate it again, and what is still to come is planned again; actions of its sequence"
            " come back as counted from when each subject began, and those that are late by then"
            " run at once.",
        )
    campaigns.deactivate(db.session(), clock.now(), queue(), campaign_id, current_user.id)
    done = "The campaign is inactive: nothing more is started by itself."
    going = len(outlook.being_sent(db.session(), campaign_id))
    flash(Markup(" ").join([done, _going_on(campaign_id, going)]) if going else done)
    return redirect(f"/campaigns/{campaign_id}", 303)


@bp.route(f"{ONE}/archive", methods=["GET", "POST"])
def archive(campaign_id: int) -> ResponseReturnValue:
    campaign = find_campaign(db.session(), campaign_id)
    if request.method == "GET":
        return ask(
            campaign,
            f"Archive {campaign.name}?",
            "Archive",
            "It leaves the list; its contacts, numbers and ledger stay, and it can come back.",
        )
    try:
        campaigns.archive(db.session(), clock.now(), queue(), campaign_id, current_user.id)
    except RefusedCampaign as refused:
        flash(refused.reasons[""], "error")
    else:
        flash("The campaign is archived.")
    return redirect(f"/campaigns/{campaign_id}", 303)


@bp.post(f"{ONE}/unarchive")
def unarchive(campaign_id: int) -> ResponseReturnValue:
    campaigns.unarchive(db.session(), clock.now(), queue(), campaign_id, current_user.id)
    flash("The campaign is back, inactive: activate it when it should send.")
    return redirect(f"/campaigns/{campaign_id}", 303)


def ask(campaign: Campaign, question: str, verb: str, also: str) -> str:
    """The page before a destructive act, with the consequence in numbers."""
    taken = campaigns.withdrawal(db.session(), clock.now(), campaign.id)
    consequences = [
        f"{words.count(taken.sends, 'planned email')} to"
        f" {words.count(taken.recipients, 'recipient')} will not go out."
        if taken.sends
        else "No email is planned, so nothing is withdrawn.",
    ]
    if taken.actions:
        consequences.append(
            Markup("{} of {} in its sequence will not happen{}.").format(
                words.count(taken.actions, "pending action"),
                words.count(taken.subjects, "subject"),
                periods(taken.period, campaign.timezone),
            )
        )
    if taken.sending:
        consequences.append(_going_on(campaign.id, taken.sending))
    return render_template(
        "confirm.html",
        question=question,
        consequences=[*consequences, also],
        action=request.path,
        verb=verb,
        back=f"/campaigns/{campaign.id}",
    )


def _going_on(campaign_id: int, number: int) -> Markup:
    """What switching off does not stop, and where that can be done."""
    sentence = Markup('{} under way or paused, and not stopped by this: <a href="{}">{}</a>.')
    return sentence.format(
        "1 sending is" if number == 1 else f"{words.number(number)} sendings are",
        f"/emailers/?campaign={campaign_id}",
        "cancel it on its own page" if number == 1 else "cancel each on its own page",
    )


@cache
def zones() -> list[str]:
    """The zones people choose from: Region/City, and UTC."""
    return ["UTC", *sorted(name for name in clock.zones() if _is_a_place(name))]


def _is_a_place(name: str) -> bool:
    region = name.partition("/")[0]
    return region in (
        "Africa", "America", "Antarctica", "Arctic", "Asia", "Atlantic", "Australia", "Europe",
        "Indian", "Pacific",
    )  # fmt: skip
