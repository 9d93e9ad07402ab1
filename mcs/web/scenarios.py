"""The pages of scenarios: lists, writing with a preview beside it, scheduling."""

from datetime import date, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from flask import Blueprint, Response, flash, make_response, redirect, render_template, request
from flask_login import current_user
from werkzeug.wrappers import Response as WerkzeugResponse
from wtforms import HiddenField, RadioField
from wtforms.fields.choices import SelectChoice
from wtforms.validators import InputRequired, Length

from mcs.core import walltime, words
from mcs.core.content import Problem
from mcs.core.language import SOURCE_LIMIT
from mcs.core.message import BadTemplate, CannotCompose
from mcs.extensions import db
from mcs.gateways import clock, mailer
from mcs.models import Campaign, Scenario
from mcs.services import attributes, audiences, messages, previews, scenarios
from mcs.services.scenarios import Fields, Frozen, Refused
from mcs.services.unknown import find_campaign
from mcs.web.forms import Form, complain
from mcs.web.parts import (
    Day,
    TimeOfDay,
    by_htmx,
    id_asked,
    id_in,
    line,
    lines,
    place,
    queue,
    searched,
    settings,
    word,
)

bp = Blueprint("scenarios", __name__)
VIEWS = ("desktop", "phone", "text")
# What an email shows cannot run, submit or load anything but pictures.
SANDBOX = "; ".join(
    (
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "img-src https: data:",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'self'",
        "sandbox",
    )
)


class ScenarioForm(Form):
    name = line(
        "Name",
        InputRequired("Give the scenario a name, to find it again."),
        Length(max=200, message="A name has up to 200 characters."),
    )
    subject = line("Subject", Length(max=500, message="A subject has up to 500 characters."))
    content = lines(
        "Content",
        Length(max=SOURCE_LIMIT, message=f"Content has up to {SOURCE_LIMIT:,} characters."),
    )
    format = RadioField(
        "Format",
        choices=[SelectChoice("text", "Plain text"), SelectChoice("markdown", "Markdown")],
        default="text",
    )
    date = Day("Date")
    time = TimeOfDay("Time")
    reader = HiddenField()

    def fields(self) -> Fields:
        """What was typed, as far as it could be read."""
        kind = self.format.data if self.format.data in ("text", "markdown") else "text"
        return Fields(
            self.name.data or "",
            self.subject.data or "",
            self.content.data or "",
            kind,
            self.date.data,
            self.time.data,
        )


@bp.errorhandler(Frozen)
def frozen(error: Frozen) -> tuple[str, int]:
    scenario_id = (request.view_args or {})["scenario_id"]
    listed = scenarios.find(db.session(), scenario_id)
    return render_template("scenarios/frozen.html", listed=listed, sentence=str(error)), 409


@bp.get("/scenarios/")
def index() -> str:
    return _list(None)


@bp.get(id_in("/campaigns/{campaign_id}/scenarios/"))
def of_campaign(campaign_id: int) -> str:
    return _list(find_campaign(db.session(), campaign_id))


def _list(campaign: Campaign | None) -> str:
    now = clock.now()
    chosen = campaign.id if campaign else id_asked("campaign")
    filters = {
        "search": searched(),
        "state": word("state", scenarios.STATES),
        "when": word("when", scenarios.WHEN),
    }
    page = scenarios.listing(
        db.session(),
        now,
        search=filters["search"],
        campaign_id=chosen,
        state=filters["state"],
        when=filters["when"],
        at=place(),
    )
    return render_template(
        "scenarios/index.html",
        campaign=campaign,
        page=page,
        now=now,
        filters=filters,
        chosen=chosen,
        filtered=any(filters.values()) or (chosen is not None and campaign is None),
        campaigns=scenarios.campaigns(db.session()),
        states=scenarios.STATES,
        instant=scenarios.instant_of,
    )


@bp.get(id_in("/campaigns/{campaign_id}/scenarios/new"))
def new(campaign_id: int) -> str:
    campaign = find_campaign(db.session(), campaign_id)
    form = ScenarioForm(formdata=None, date=_first_free_day(campaign), time=time(10, 0))
    return _form(campaign, form)


def _first_free_day(campaign: Campaign) -> date:
    """Tomorrow, or the campaign's first day when that is later."""
    today = walltime.local(clock.now(), ZoneInfo(campaign.timezone)).date()
    return min(max(today + timedelta(days=1), campaign.start_date), campaign.end_date)


@bp.post(id_in("/campaigns/{campaign_id}/scenarios/new"))
def create(campaign_id: int) -> Any:
    campaign = find_campaign(db.session(), campaign_id)
    form = ScenarioForm()
    draft = _wants_draft()
    if not form.validate():
        return _form(campaign, form), 422
    try:
        scenario_id = scenarios.create(
            db.session(),
            clock.now(),
            queue(),
            campaign_id,
            form.fields(),
            draft=draft,
            by=current_user.id,
        )
    except Refused as refused:
        return _form(campaign, form, problems=refused.problems), 422
    return _saved(scenario_id, draft)


def _wants_draft() -> bool:
    return request.form.get("draft", "") not in ("", "0")


def _saved(scenario_id: int, draft: bool) -> WerkzeugResponse:
    listed = scenarios.find(db.session(), scenario_id)
    if draft:
        flash(
            f"“{listed.scenario.name}” is kept as a draft. Nothing goes out until you schedule it."
        )
    else:
        campaign = listed.scenario.campaign
        at = scenarios.instant_of(listed.scenario)
        assert at is not None, "a scheduled scenario has its time"
        when = words.moment(at, ZoneInfo(campaign.timezone), clock.now().year)
        flash(f"“{listed.scenario.name}” is scheduled for {when}.")
    return redirect(f"/scenarios/{scenario_id}", 303)


@bp.get(id_in("/scenarios/{scenario_id}"))
def show(scenario_id: int) -> Any:
    session, now = db.session(), clock.now()
    listed = scenarios.find(session, scenario_id)
    step = messages.step_of(session, listed.scenario)
    if step is not None:
        return redirect(f"/campaigns/{listed.scenario.campaign_id}/sequence/steps/{step}", 303)
    scenario, campaign = listed.scenario, listed.scenario.campaign
    begun = scenarios.begun(session, scenario_id)
    fields = scenarios.fields_of(scenario)
    reader = request.args.get("reader", "")
    problems: list[Problem] = []
    audience = excluded = None
    if scenario.excludes_id is not None:
        excluded = scenarios.find(session, scenario.excludes_id).scenario
    if not begun:
        problems = scenarios.problems(session, now, campaign, fields, scenario.excludes_id)
        audience = audiences.count(session, campaign.id, scenario.excludes_id)
    return render_template(
        "scenarios/show.html",
        listed=listed,
        scenario=scenario,
        campaign=campaign,
        begun=begun,
        now=now,
        at=scenarios.instant_of(scenario),
        emailers=scenarios.emailers(session, scenario_id),
        audience=audience,
        excluded=excluded,
        added=scenarios.added_since(session, scenario) if begun else 0,
        follow_up=scenarios.follow_up(session, scenario_id),
        problems=problems,
        shown=previews.preview(
            session, settings(), campaign.id, fields, reader, excludes_id=scenario.excludes_id
        ),
        reader=reader,
        readers=previews.readers(session, campaign.id, excludes_id=scenario.excludes_id),
        view=word("view", VIEWS) or "desktop",
        from_now=words.from_now,
    )


@bp.get(id_in("/scenarios/{scenario_id}/edit"))
def edit(scenario_id: int) -> Any:
    scenario = scenarios.find_open(db.session(), scenario_id)
    form = ScenarioForm(formdata=None, obj=scenarios.fields_of(scenario))
    if scenario.date is None:
        form.date.data, form.time.data = _first_free_day(scenario.campaign), time(10, 0)
    return _form(scenario.campaign, form, scenario)


@bp.post(id_in("/scenarios/{scenario_id}/edit"))
def save(scenario_id: int) -> Any:
    scenario = scenarios.find_open(db.session(), scenario_id)
    form = ScenarioForm()
    draft = _wants_draft()
    if not form.validate():
        return _form(scenario.campaign, form, scenario), 422
    try:
        scenarios.edit(
            db.session(),
            clock.now(),
            queue(),
            scenario_id,
            form.fields(),
            draft=draft,
            by=current_user.id,
        )
    except Refused as refused:
        return _form(scenario.campaign, form, scenario, refused.problems), 422
    return _saved(scenario_id, draft)


def _form(
    campaign: Campaign,
    form: ScenarioForm,
    scenario: Scenario | None = None,
    problems: list[Problem] | None = None,
    notice: tuple[str, str] | None = None,
) -> str:
    """The form with all that stands beside it; ``problems`` are those it came back with."""
    excludes_id = scenario.excludes_id if scenario else None
    reader = form.reader.data or ""
    for problem in problems or []:
        if problem.fatal and problem.field in form:
            complain(form, problem.field, problem.text)
    refusals = [p for p in problems or [] if p.fatal and p.field not in form]
    return render_template(
        "scenarios/form.html",
        campaign=campaign,
        scenario=scenario,
        form=form,
        refusals=refusals,
        notice=notice,
        merge_fields=attributes.listed(db.session(), campaign.id),
        readers=previews.readers(db.session(), campaign.id, excludes_id=excludes_id),
        reader=reader,
        view=request.form.get("view", "desktop"),
        **_checked(campaign, form.fields(), excludes_id, reader, asked=request.method == "POST"),
    )


def _checked(
    campaign: Campaign, fields: Fields, excludes_id: int | None, reader: str, *, asked: bool
) -> dict[str, Any]:
    """What the part beside the form shows: subject, problems, the button's words.

    That nothing is written yet is no problem to a person who only just began.
    """
    now = clock.now()
    found = scenarios.problems(db.session(), now, campaign, fields, excludes_id)
    if not asked:
        found = [p for p in found if not _only_unwritten(p, fields)]
    at = scenarios.instant(campaign, fields)
    return {
        "problems": found,
        "audience": audiences.count(db.session(), campaign.id, excludes_id),
        "at": at,
        "when": words.moment(at, ZoneInfo(campaign.timezone), now.year) if at else "",
        "in_words": words.from_now(at, now) if at else "",
        "shown": previews.preview(
            db.session(), settings(), campaign.id, fields, reader, excludes_id=excludes_id
        ),
    }


def _only_unwritten(problem: Problem, fields: Fields) -> bool:
    return (problem.field == "subject" and not fields.subject) or (
        problem.field == "content" and not fields.content
    )


@bp.post(id_in("/campaigns/{campaign_id}/scenarios/check"))
def check(campaign_id: int) -> str:
    """The part beside the form, as one types."""
    campaign = find_campaign(db.session(), campaign_id)
    form = ScenarioForm()
    form.validate()
    reader = form.reader.data or ""
    return render_template(
        "scenarios/check.html",
        campaign=campaign,
        **_checked(campaign, form.fields(), _excluded(campaign), reader, asked=False),
    )


def _excluded(campaign: Campaign) -> int | None:
    """Whose recipients are left out by the scenario that is being edited."""
    scenario_id = id_asked("scenario")
    if scenario_id is None:
        return None
    scenario = scenarios.find(db.session(), scenario_id).scenario
    return scenario.excludes_id if scenario.campaign_id == campaign.id else None


@bp.post(id_in("/campaigns/{campaign_id}/scenarios/preview"))
def preview(campaign_id: int) -> Response:
    """The frame's page: what is typed, as a reader gets it."""
    campaign = find_campaign(db.session(), campaign_id)
    form = ScenarioForm()
    form.validate()
    reader, view = form.reader.data or "", request.form.get("view", "")
    return _frame(campaign_id, form.fields(), reader, view, _excluded(campaign))


@bp.get(id_in("/campaigns/{campaign_id}/scenarios/preview"))
def preview_empty(campaign_id: int) -> Response:
    """The frame's page before anything was typed."""
    return _frame(campaign_id, Fields(), "", "", None)


@bp.get(id_in("/scenarios/{scenario_id}/preview"))
def preview_saved(scenario_id: int) -> Response:
    """The frame's page: what is saved, as a reader gets it."""
    scenario = scenarios.find(db.session(), scenario_id).scenario
    fields = scenarios.fields_of(scenario)
    reader, view = request.args.get("reader", ""), request.args.get("view", "")
    return _frame(scenario.campaign_id, fields, reader, view, scenario.excludes_id)


def _frame(
    campaign_id: int, fields: Fields, reader: str, view: str, excludes_id: int | None
) -> Response:
    shown = previews.preview(
        db.session(), settings(), campaign_id, fields, reader, excludes_id=excludes_id
    )
    if shown.preview is not None and view != "text":
        page = shown.preview.html
    else:
        page = render_template("scenarios/frame.html", shown=shown)
    return sandboxed(page)


def sandboxed(page: str, policy: str = SANDBOX) -> Response:
    """A page that may show, and do nothing else."""
    response = make_response(page)
    response.headers["Content-Security-Policy"] = policy
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


@bp.post(id_in("/campaigns/{campaign_id}/scenarios/test"))
def send_test(campaign_id: int) -> Any:
    """Send what is typed to the person who is signed in; the form comes back as it was."""
    campaign = find_campaign(db.session(), campaign_id)
    form = ScenarioForm()
    form.validate()
    for field in form:
        field.errors = []
    scenario_id = id_asked("scenario")
    scenario = scenarios.find(db.session(), scenario_id).scenario if scenario_id else None
    to = current_user.email
    try:
        previews.send_test(
            db.session(),
            clock.now(),
            settings(),
            campaign_id,
            form.fields(),
            form.reader.data or "",
            to,
            excludes_id=_excluded(campaign),
            scenario_id=scenario_id,
            by=current_user.id,
        )
        notice = ("good", f"A test is on its way to {to}.")
    except (mailer.NotSent, BadTemplate, CannotCompose) as error:
        notice = ("bad", f"The test was not sent. {error}")
    if by_htmx():
        return render_template("scenarios/notice.html", notice=notice)
    return _form(campaign, form, scenario, notice=notice)


@bp.get(id_in("/campaigns/{campaign_id}/scenarios/readers"))
def readers(campaign_id: int) -> str:
    """Choices for the search box of the preview."""
    campaign = find_campaign(db.session(), campaign_id)
    search = request.args.get("reader", "")[:200]
    found = previews.readers(db.session(), campaign_id, search, excludes_id=_excluded(campaign))
    return render_template("scenarios/readers.html", readers=found)


@bp.post(id_in("/scenarios/{scenario_id}/schedule"))
def schedule(scenario_id: int) -> Any:
    scenario = scenarios.find_open(db.session(), scenario_id)
    try:
        scenarios.schedule(db.session(), clock.now(), queue(), scenario_id, by=current_user.id)
    except Refused as refused:
        form = ScenarioForm(formdata=None, obj=scenarios.fields_of(scenario))
        return _form(scenario.campaign, form, scenario, refused.problems), 422
    return _saved(scenario_id, draft=False)


@bp.post(id_in("/scenarios/{scenario_id}/unschedule"))
def unschedule(scenario_id: int) -> WerkzeugResponse:
    scenarios.unschedule(db.session(), clock.now(), queue(), scenario_id, by=current_user.id)
    return _saved(scenario_id, draft=True)


@bp.post(id_in("/scenarios/{scenario_id}/duplicate"))
def duplicate(scenario_id: int) -> WerkzeugResponse:
    made = scenarios.duplicate(db.session(), clock.now(), scenario_id, by=current_user.id)
    flash("This is the copy. It is a draft: choose when it goes out.")
    return redirect(f"/scenarios/{made}/edit", 303)


@bp.post(id_in("/scenarios/{scenario_id}/added"))
def send_to_added(scenario_id: int) -> WerkzeugResponse:
    made = scenarios.send_to_added(db.session(), clock.now(), scenario_id, by=current_user.id)
    flash("This one goes only to those added since. It is a draft: choose when it goes out.")
    return redirect(f"/scenarios/{made}/edit", 303)


@bp.get(id_in("/scenarios/{scenario_id}/delete"))
def ask_delete(scenario_id: int) -> str:
    scenario = scenarios.find_open(db.session(), scenario_id)
    audience = audiences.count(db.session(), scenario.campaign_id, scenario.excludes_id)
    emails = words.count(audience.reached, "email")
    consequence = (
        f"{emails} that are scheduled will not go out."
        if scenario.state == "scheduled"
        else "It is a draft: nothing was going to go out."
    )
    return render_template(
        "confirm.html",
        question=f"Delete “{scenario.name}”?",
        consequences=[consequence, "The message is deleted for good; no contact is."],
        action=f"/scenarios/{scenario_id}/delete",
        verb="Delete",
        back=f"/scenarios/{scenario_id}",
    )


@bp.post(id_in("/scenarios/{scenario_id}/delete"))
def delete(scenario_id: int) -> WerkzeugResponse:
    scenario = scenarios.find_open(db.session(), scenario_id)
    name, campaign_id = scenario.name, scenario.campaign_id
    scenarios.delete(db.session(), clock.now(), queue(), scenario_id, by=current_user.id)
    flash(f"“{name}” is deleted.")
    return redirect(f"/campaigns/{campaign_id}/scenarios/", 303)
