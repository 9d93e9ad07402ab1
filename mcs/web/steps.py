"""The pages of one step of a sequence: writing it, what an edit would do, moving, removing."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from flask import Blueprint, abort, current_app, flash, redirect, render_template, request
from flask_login import current_user
from markupsafe import Markup
from werkzeug.wrappers import Response
from wtforms import HiddenField, IntegerField, PasswordField, RadioField, SelectMultipleField
from wtforms.fields.choices import SelectChoice, SelectField
from wtforms.validators import InputRequired, Length

from mcs.core import intervals, timing, words
from mcs.core import sequences as core
from mcs.core.content import Problem
from mcs.core.language import SOURCE_LIMIT
from mcs.core.message import BadTemplate, CannotCompose
from mcs.core.sequences import BadDefinition
from mcs.extensions import db
from mcs.gateways import clock, mailer
from mcs.models import Campaign, Scenario
from mcs.services import attributes, definitions, editing, messages, previews
from mcs.services.callbacks import NOTIFY, WEBHOOK, usual_attempts
from mcs.services.definitions import MOST_ATTEMPTS, SEND_EMAIL, Step
from mcs.services.editing import StillNeeded
from mcs.services.scenarios import Fields, Refused
from mcs.services.tallies import Effect
from mcs.services.unknown import find_campaign
from mcs.web.forms import Form, complain, trimmed
from mcs.web.parts import by_htmx, id_in, line, lines, settings
from mcs.web.sequences import (
    HERE,
    KINDS,
    SHOWN,
    effects,
    moments_of,
    names,
    periods,
    title,
    titles,
    told_apart,
    upcoming,
)

bp = Blueprint("steps", __name__)

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
ON_FAILURE = (
    SelectChoice(core.WAIT, "wait until somebody tries it again"),
    SelectChoice(core.SKIP, "leave this step out"),
    SelectChoice(core.GO_ON, "go on with this step all the same"),
)
# The fields whose names differ from those of a definition's parts.
FIELDS = {"id": "key", "config.url": "url", "config.secret": "secret", "config.text": "text"}
# So many occurrences of a repeating step are offered to come after.
OFFERED = 12


class StepForm(Form):
    """When a step falls, whatever it does. The words for what cannot be are core's."""

    key = line("Id")
    offset = line("How long after joining", InputRequired("Say how long after, such as 2days."))
    time = line("Time of day")
    days = SelectMultipleField(
        "Weekdays",
        choices=[
            SelectChoice(day, label) for day, label in zip(intervals.DAYS, WEEKDAYS, strict=True)
        ],
        validate_choice=False,
    )
    excluded = line("Dates left out")
    repeat = line("Repeat")
    after = SelectField("Counts from", validate_choice=False, default="")
    on_failure = SelectField(
        "If that one fails", choices=list(ON_FAILURE), validate_choice=False, default=core.WAIT
    )
    attempts = IntegerField("Tries", default=1)

    def step(self, kind: str, known: Step | None) -> Step:
        """The step that was typed; what is not typed again is kept from the known one."""
        days = [day for day in self.days.data or [] if day]
        return Step(
            key=known.key if known else self.key.data,
            callback=kind,
            offset=self.offset.data,
            time=self.time.data,
            days="" if len(set(days)) == len(intervals.DAYS) else ",".join(days),
            excluded=self.excluded.data,
            repeat=self.repeat.data,
            after=self.after.data or "",
            on_failure=self.on_failure.data or core.WAIT,
            config=self.config(known.config if known else {}),
            max_attempts=self.attempts.data or 0,
        )

    def config(self, known: Mapping[str, Any]) -> dict[str, Any]:
        return dict(known)

    def message(self) -> Fields | None:
        """What an email step sends."""
        return None

    def offer(self, steps: Sequence[Step], key: str, called: Mapping[str, str]) -> None:
        """What the step may come after: the others, and some occurrences of those that repeat."""
        known = {
            action: timing.reference(one.key, occurrence, called)
            for one in steps
            if one.key != key
            for action, occurrence in occurrences(one)
        }
        if self.after.data:
            known.setdefault(self.after.data, self.after.data)
        self.after.choices = [
            SelectChoice("", "the moment somebody joins"),
            *(SelectChoice(action, f"{name} being done") for action, name in known.items()),
        ]


class EmailForm(StepForm):
    name = line(
        "Name",
        InputRequired("Give the message a name, to find it again."),
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
    reader = HiddenField()

    def message(self) -> Fields:
        kind = self.format.data if self.format.data in ("text", "markdown") else "text"
        return Fields(self.name.data, self.subject.data, self.content.data, kind)


class WebhookForm(StepForm):
    url = line(
        "Address",
        InputRequired("Enter the address that is told, such as https://shop.example/mcs."),
        Length(max=2000, message="An address has up to 2,000 characters."),
    )
    secret = line("Secret", Length(max=200, message="A secret has up to 200 characters."))

    def config(self, known: Mapping[str, Any]) -> dict[str, Any]:
        secret = self.secret.data or known.get("secret", "")
        return {**known, "url": self.url.data, "secret": secret}


class NotifyForm(StepForm):
    service = PasswordField("Address of the service", filters=[trimmed])
    text = lines("Text", InputRequired("Write what is posted."))

    def config(self, known: Mapping[str, Any]) -> dict[str, Any]:
        return {**known, "url": self.service.data or known.get("url", ""), "text": self.text.data}


FORMS: dict[str, type[StepForm]] = {
    SEND_EMAIL: EmailForm,
    WEBHOOK: WebhookForm,
    NOTIFY: NotifyForm,
}


def occurrences(step: Step) -> list[tuple[str, int]]:
    """The ids of a step's actions, each with its number: the first few, where it repeats."""
    if not step.repeat:
        return [(step.key, 0)]
    repeat = definitions.read([replace(step, after="")])[0].repeat
    most = OFFERED if repeat is None or repeat.times is None else min(repeat.times, OFFERED)
    return [(core.action_id(step.key, number, True), number) for number in range(1, most + 1)]


def _begin_new(campaign_id: int, kind: str) -> StepForm:
    """The form of a new step before anything is typed."""
    key = editing.free_key(db.session(), campaign_id)
    given: dict[str, Any] = {"key": key, "offset": "0days", "attempts": usual_attempts(kind)}
    if definitions.steps_of(db.session(), campaign_id):
        # People want email at an hour of the day; programs want their calls when the time has come.
        given |= {"offset": "2days", "time": "10:00" if kind == SEND_EMAIL else ""}
    if kind == WEBHOOK:
        given |= {"secret": secrets.token_urlsafe(24)}
    return FORMS.get(kind, StepForm)(formdata=None, data=given)


def _begin(known: Step, message: Scenario | None) -> StepForm:
    """The form of a step as it is."""
    (definition,) = definitions.read([replace(known, after="")])
    limited = definition.interval.days != intervals.EVERY_DAY
    given: dict[str, Any] = {
        name: getattr(known, name)
        for name in ("key", "offset", "time", "excluded", "repeat", "after", "on_failure")
    }
    given["days"] = [intervals.DAYS[day] for day in definition.interval.days] if limited else []
    given |= {"attempts": known.max_attempts}
    given |= {name: known.config.get(name, "") for name in ("url", "text")}
    if message is not None:
        given |= {name: getattr(message, name) for name in ("name", "subject", "content", "format")}
    return FORMS.get(known.callback, StepForm)(formdata=None, data=given)


@bp.route(id_in(f"{HERE}/steps/new"), methods=["GET", "POST"])
def new(campaign_id: int) -> Any:
    campaign = find_campaign(db.session(), campaign_id)
    kind = request.args.get("kind", SEND_EMAIL)
    if kind not in KINDS:
        abort(404)
    if request.method == "GET":
        return _form(campaign, kind, _begin_new(campaign_id, kind), None)
    return _save(campaign, kind, None)


@bp.route(id_in(f"{HERE}/steps/<key>"), methods=["GET", "POST"])
def edit(campaign_id: int, key: str) -> Any:
    campaign = find_campaign(db.session(), campaign_id)
    known = editing.find_step(db.session(), campaign_id, key)
    if request.method == "GET":
        message = messages.message_of(db.session(), campaign_id, known)
        return _form(campaign, known.callback, _begin(known, message), known)
    return _save(campaign, known.callback, known)


def _save(campaign: Campaign, kind: str, known: Step | None) -> Any:
    """Save what was typed, once its effect was confirmed where there is one; else the form."""
    form = FORMS.get(kind, StepForm)()
    if request.form.get("back"):
        return _form(campaign, kind, form, known)
    past = request.form.get("past", "")
    confirmed = past in core.PAST
    parsed = form.validate()
    step, message, new = form.step(kind, known), form.message(), known is None
    wrong = editing.complaints(
        db.session(), campaign.id, step, new=new, known=table(), message=message
    )
    problems = editing.problems(db.session(), campaign, message) if message else []
    if not parsed or wrong or any(problem.fatal for problem in problems):
        _complain(form, campaign.id, step.key, wrong)
        return _form(campaign, kind, form, known, problems), 422
    try:
        if not confirmed:
            effect = editing.preview_put(
                db.session(),
                clock.now(),
                campaign.id,
                step,
                new=new,
                known=table(),
                message=message,
            )
            if effect.any:
                return _ask(campaign, form, step, effect)
        tally = editing.put(
            db.session(),
            clock.now(),
            campaign.id,
            step,
            new=new,
            known=table(),
            message=message,
            past=past if confirmed else core.PAST_SKIP,
            by=current_user.id,
        )
    except BadDefinition as error:
        _complain(form, campaign.id, step.key, [error])
        return _form(campaign, kind, form, known), 422
    except Refused as refused:
        return _form(campaign, kind, form, known, refused.problems), 422
    flash(" ".join([f"The step {_name(campaign.id, step.key)} is saved.", *effects(tally)]))
    return redirect(f"/campaigns/{campaign.id}/sequence", 303)


def table() -> Mapping[str, Any]:
    """The callbacks that a step may use, by id."""
    return cast(Mapping[str, Any], current_app.extensions["callbacks"])


def _complain(form: StepForm, campaign_id: int, key: str, wrong: Sequence[BadDefinition]) -> None:
    """At the field, where it is this step's; else at the top, with the other step's name."""
    for error in wrong:
        if error.key not in (key, ""):
            complain(form, "", f"{_name(campaign_id, error.key)}: {error.reason}.")
            continue
        reason = error.reason[:1].upper() + error.reason[1:]
        field = FIELDS.get(error.part, error.part)
        field = "service" if field not in form and field == "url" else field
        # What could not be read at all has said so itself.
        if field not in form or not form[field].errors:
            complain(form, field, f"{reason}.")


def _name(campaign_id: int, key: str) -> str:
    """What a saved step is called, in a sentence; its id where somebody has just removed it."""
    called = names(campaign_id, definitions.steps_of(db.session(), campaign_id))
    return f"“{called.get(key, key)}”"


def _ask(campaign: Campaign, form: StepForm, step: Step, effect: Effect) -> str:
    steps = definitions.steps_of(db.session(), campaign.id)
    found = titles(campaign.id, steps) | {step.key: title(step, form.message())}
    return render_template(
        "steps/confirm.html",
        campaign=campaign,
        form=form,
        step=step,
        name=told_apart(found)[step.key],
        titles=found,
        zone=campaign.timezone,
        effect=effect,
        effects=effects,
        action=request.full_path.rstrip("?"),
    )


def _form(
    campaign: Campaign,
    kind: str,
    form: StepForm,
    known: Step | None,
    problems: Sequence[Problem] = (),
    notice: tuple[str, str] | None = None,
) -> str:
    session = db.session()
    steps = definitions.steps_of(session, campaign.id)
    called = names(campaign.id, steps)
    form.offer(steps, known.key if known else "", called)
    for problem in problems:
        if problem.fatal and problem.field in form:
            complain(form, problem.field, problem.text)
    given: dict[str, Any] = {}
    if kind == SEND_EMAIL:
        reader = form.reader.data or ""
        given = {
            "merge_fields": attributes.listed(session, campaign.id),
            "readers": previews.readers(session, campaign.id),
            "reader": reader,
            "view": request.form.get("view", "desktop"),
        }
    return render_template(
        "steps/form.html",
        campaign=campaign,
        kind=kind,
        kinds=KINDS,
        form=form,
        known=known,
        name=called.get(known.key, known.key) if known else "",
        notice=notice,
        message=messages.message_of(session, campaign.id, known) if known else None,
        most_attempts=MOST_ATTEMPTS,
        **given,
        **_checked(campaign, kind, form, known, steps, called, asked=request.method == "POST"),
    )


def _checked(
    campaign: Campaign,
    kind: str,
    form: StepForm,
    known: Step | None,
    steps: Sequence[Step],
    called: Mapping[str, str],
    *,
    asked: bool,
) -> dict[str, Any]:
    """What the part beside the form shows: the interval in words, dates, the message's problems."""
    session = db.session()
    step, message = form.step(kind, known), form.message()
    others = [one for one in steps if one.key != step.key]
    said, moments, wrong = "", [], ""
    waits = upcoming(campaign, clock.now())
    try:
        (alone,) = definitions.read([replace(step, after="", max_attempts=1)])
        said = timing.said(alone, upcoming=waits, names=called)
        together = [step if one.key == step.key else one for one in steps]
        together = together if step in together else [*others, step]
        moments = moments_of(campaign.id, together).get(step.key, [])
        read = definitions.read(together)
        (whole,) = (one for one in read if one.key == step.key)
        said = timing.said(whole, upcoming=waits, names=called)
    except BadDefinition as error:
        whose = "" if error.key in (step.key, "") else f"“{called.get(error.key, error.key)}”: "
        wrong = f"{whose}{error.reason}"
    found: list[Problem] = []
    preview = None
    if message is not None:
        found = editing.problems(session, campaign, message)
        if not asked:
            found = [p for p in found if not _only_unwritten(p, message)]
        reader = form["reader"].data or ""
        preview = previews.preview(session, settings(), campaign.id, message, reader)
    return {
        "said": said,
        "moments": moments,
        "wrong": wrong,
        "problems": found,
        "shown": preview,
        "most": SHOWN,
        "now": clock.now(),
        "from_now": words.from_now,
    }


def _only_unwritten(problem: Problem, message: Fields) -> bool:
    return (problem.field == "subject" and not message.subject) or (
        problem.field == "content" and not message.content
    )


@bp.post(id_in(f"{HERE}/check"))
def check(campaign_id: int) -> str:
    """The part beside the form, as one types."""
    campaign = find_campaign(db.session(), campaign_id)
    key, kind = request.args.get("step", ""), request.args.get("kind", SEND_EMAIL)
    known = editing.find_step(db.session(), campaign_id, key) if key else None
    kind = known.callback if known else kind
    form = FORMS.get(kind, StepForm)()
    form.validate()
    steps = definitions.steps_of(db.session(), campaign_id)
    called = names(campaign_id, steps)
    return render_template(
        "steps/check.html",
        campaign=campaign,
        kind=kind,
        **_checked(campaign, kind, form, known, steps, called, asked=False),
    )


@bp.post(id_in(f"{HERE}/test"))
def send_test(campaign_id: int) -> Any:
    """Send the message that is typed to the person who is signed in; the form comes back."""
    campaign = find_campaign(db.session(), campaign_id)
    key = request.args.get("step", "")
    known = editing.find_step(db.session(), campaign_id, key) if key else None
    if known is not None and known.callback != SEND_EMAIL:
        abort(404)
    form = EmailForm()
    form.validate()
    for field in form:
        field.errors = []
    saved = messages.message_of(db.session(), campaign_id, known) if known else None
    to = current_user.email
    try:
        previews.send_test(
            db.session(),
            clock.now(),
            settings(),
            campaign_id,
            form.message(),
            form.reader.data or "",
            to,
            scenario_id=saved.id if saved else None,
            by=current_user.id,
        )
        notice = ("good", f"A test is on its way to {to}.")
    except (mailer.NotSent, BadTemplate, CannotCompose) as error:
        notice = ("bad", f"The test was not sent. {error}")
    if by_htmx():
        return render_template("scenarios/notice.html", notice=notice)
    return _form(campaign, SEND_EMAIL, form, known, notice=notice)


@bp.get(id_in(f"{HERE}/steps/<key>/remove"))
def ask_remove(campaign_id: int, key: str) -> Any:
    known = editing.find_step(db.session(), campaign_id, key)
    try:
        effect = editing.preview_remove(db.session(), clock.now(), campaign_id, key)
    except StillNeeded as refusal:
        return _needed(campaign_id, refusal)
    lost = effect.skip
    period = periods(lost.period("vanish"), find_campaign(db.session(), campaign_id).timezone)
    kept = "What has been done stays in everybody’s history."
    if known.callback == SEND_EMAIL:
        kept += " Its message stays among the scenarios, as a draft."
    return render_template(
        "confirm.html",
        question=f"Remove the step {_name(campaign_id, key)}?",
        consequences=[
            Markup("{} of {} will not happen{}.").format(
                words.count(lost.vanish, "action"), words.count(lost.subjects, "subject"), period
            )
            if lost.vanish
            else "Nobody waits for it.",
            kept,
        ],
        action=f"/campaigns/{campaign_id}/sequence/steps/{key}/remove",
        verb="Remove",
        back=f"/campaigns/{campaign_id}/sequence",
    )


@bp.post(id_in(f"{HERE}/steps/<key>/remove"))
def remove(campaign_id: int, key: str) -> Response:
    editing.find_step(db.session(), campaign_id, key)
    name = _name(campaign_id, key)
    try:
        tally = editing.remove(db.session(), clock.now(), campaign_id, key, by=current_user.id)
    except StillNeeded as refusal:
        return _needed(campaign_id, refusal)
    flash(" ".join([f"The step {name} is removed.", *effects(tally)]))
    return redirect(f"/campaigns/{campaign_id}/sequence", 303)


def _needed(campaign_id: int, refusal: StillNeeded) -> Response:
    """Back to the list, where the step that comes after can be changed first."""
    by, name = (_name(campaign_id, key) for key in (refusal.by, refusal.key))
    flash(f"{by} comes after {name}: change or remove that one first.", "error")
    return redirect(f"/campaigns/{campaign_id}/sequence", 303)


@bp.post(id_in(f"{HERE}/steps/<key>/move"))
def move(campaign_id: int, key: str) -> Response:
    """``place`` is where it goes, counted from 0: pressed twice, it is there already."""
    place = request.form.get("place", type=int)
    if place is None or not 0 <= place < core.MOST_DEFINITIONS:
        abort(400)
    editing.move(db.session(), clock.now(), campaign_id, key, place)
    return redirect(f"/campaigns/{campaign_id}/sequence#step-{key}", 303)
