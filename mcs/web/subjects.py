"""The pages of who is in a sequence: subjects, one subject's timeline, actions, what failed."""

from typing import Any

from flask import Blueprint, abort, flash, redirect, render_template, request
from flask_login import current_user
from werkzeug.wrappers import Response

from mcs.core import words
from mcs.extensions import db
from mcs.gateways import clock
from mcs.services import definitions, failures, ledger, schedules, subjects
from mcs.services.schedules import Subject
from mcs.services.subjects import Enrolled
from mcs.services.unknown import find_campaign
from mcs.web.parts import LARGEST_BIG_ID, LARGEST_ID, id_in, place, searched, word
from mcs.web.sequences import HERE, names, titles

bp = Blueprint("subjects", __name__)

ONE = f"{HERE}/subjects/<int(max={LARGEST_ID}):schedule_id>"


@bp.get(id_in(f"{HERE}/subjects"))
def index(campaign_id: int) -> str:
    campaign = find_campaign(db.session(), campaign_id)
    steps = definitions.steps_of(db.session(), campaign_id)
    filters: dict[str, Any] = {
        "search": searched(),
        "state": word("state", subjects.STATES),
        "step": word("step", tuple(step.key for step in steps)),
    }
    return render_template(
        "subjects/index.html",
        campaign=campaign,
        page=subjects.listing(db.session(), campaign_id, **filters, at=place()),
        filters=filters,
        filtered=any(filters.values()),
        states=subjects.STATES,
        steps=steps,
        names=names(campaign_id, steps),
        summary=subjects.summary(db.session(), campaign_id),
    )


@bp.get(id_in(f"{HERE}/actions"))
def actions(campaign_id: int) -> str:
    campaign = find_campaign(db.session(), campaign_id)
    steps = definitions.steps_of(db.session(), campaign_id)
    filters: dict[str, Any] = {
        "search": searched(),
        "state": word("state", subjects.OUTCOMES),
        "step": word("step", tuple(step.key for step in steps)),
    }
    return render_template(
        "subjects/actions.html",
        campaign=campaign,
        page=subjects.actions(db.session(), campaign_id, **filters, at=place()),
        filters=filters,
        filtered=any(filters.values()),
        states=subjects.OUTCOMES,
        steps=steps,
        titles=titles(campaign_id, steps),
        names=names(campaign_id, steps),
        retriable=failures.retriable(db.session(), campaign_id, filters["step"]),
        now=clock.now(),
    )


@bp.get(id_in(ONE))
def show(campaign_id: int, schedule_id: int) -> str:
    session, now = db.session(), clock.now()
    campaign = find_campaign(session, campaign_id)
    enrolled = subjects.find(session, campaign_id, schedule_id)
    runs = subjects.runs(session, enrolled.schedule)
    page = subjects.actions(session, campaign_id, schedule_id=schedule_id, at=place(), limit=100)
    return render_template(
        "subjects/show.html",
        campaign=campaign,
        enrolled=enrolled,
        schedule=enrolled.schedule,
        page=page,
        sent=ledger.of_actions(session, [row.action.id for row in page.rows]),
        titles=titles(campaign_id, definitions.steps_of(session, campaign_id)),
        runs=runs,
        latest=runs[0].id == schedule_id,
        now=now,
        from_now=words.from_now,
        name=name_of(enrolled),
    )


def name_of(enrolled: Enrolled) -> str:
    """Who it is: the contact, or the subject's kind and id."""
    schedule, contact = enrolled.schedule, enrolled.contact
    if contact is not None and schedule.subject == schedules.CONTACT:
        return "Deleted contact" if contact.deleted_at else contact.name or contact.email
    return f"{schedule.subject} {schedule.subject_id}"


@bp.get(id_in(f"{ONE}/withdraw"))
def ask_withdraw(campaign_id: int, schedule_id: int) -> Response | str:
    enrolled = subjects.find(db.session(), campaign_id, schedule_id)
    latest = _latest(enrolled)
    if latest != schedule_id:
        return _over(campaign_id, latest)
    pending = enrolled.counts.get("pending", 0)
    return _question(
        campaign_id,
        schedule_id,
        "withdraw",
        f"Withdraw {name_of(enrolled)}?",
        [
            f"{words.count(pending, 'action')} to come will not happen."
            if pending
            else "Nothing is to come.",
            "What was done stays. Resume it later, and it goes on, counted from the same start.",
        ],
        "Withdraw",
    )


@bp.post(id_in(f"{ONE}/withdraw"))
def withdraw(campaign_id: int, schedule_id: int) -> Response:
    enrolled = subjects.find(db.session(), campaign_id, schedule_id)
    latest = _latest(enrolled)
    if latest != schedule_id:
        return _over(campaign_id, latest)
    who = _subject(enrolled)
    schedules.unschedule(
        db.session(),
        clock.now(),
        campaign_id,
        who.subject,
        who.subject_id,
        by=current_user.id,
    )
    flash("Withdrawn: nothing more happens for them.")
    return _back(campaign_id, schedule_id)


@bp.post(id_in(f"{ONE}/resume"))
def resume(campaign_id: int, schedule_id: int) -> Response:
    enrolled = subjects.find(db.session(), campaign_id, schedule_id)
    latest = _latest(enrolled)
    if latest != schedule_id:
        return _over(campaign_id, latest)
    if _gone(enrolled):
        return _refuse_gone(campaign_id, schedule_id)
    who = _subject(enrolled)
    schedules.enrol(db.session(), clock.now(), campaign_id, who, by=current_user.id)
    flash("It goes on, counted from when they began.")
    return _back(campaign_id, schedule_id)


@bp.get(id_in(f"{ONE}/restart"))
def ask_restart(campaign_id: int, schedule_id: int) -> Response | str:
    enrolled = subjects.find(db.session(), campaign_id, schedule_id)
    if _gone(enrolled):
        return _refuse_gone(campaign_id, schedule_id)
    pending = enrolled.counts.get("pending", 0)
    steps = definitions.steps_of(db.session(), campaign_id)
    return _question(
        campaign_id,
        schedule_id,
        "restart",
        f"Restart {name_of(enrolled)} from the first step?",
        [
            f"A new run begins now, with {words.count(len(steps), 'step')}: what they had before,"
            " they get again.",
            f"{words.count(pending, 'action')} still to come of this run will not happen."
            if pending
            else "Of this run nothing is to come.",
        ],
        "Restart",
    )


@bp.post(id_in(f"{ONE}/restart"))
def restart(campaign_id: int, schedule_id: int) -> Response:
    """Only of the run that was seen: pressed twice, by two people too, it has begun anew once."""
    enrolled = subjects.find(db.session(), campaign_id, schedule_id)
    if _gone(enrolled):
        return _refuse_gone(campaign_id, schedule_id)
    done = schedules.enrol(
        db.session(),
        clock.now(),
        campaign_id,
        _subject(enrolled),
        restart=True,
        ends=enrolled.schedule.run,
        by=current_user.id,
    )
    if done.did == "began":
        flash("A new run has begun.")
    else:
        flash("A new run has begun already: this is it.")
    return _back(campaign_id, done.schedule_id)


@bp.post(id_in(f"{HERE}/actions/<int(max={LARGEST_BIG_ID}):action_id>/retry"))
def retry_one(campaign_id: int, action_id: int) -> Any:
    find_campaign(db.session(), campaign_id)
    again = failures.retry_one(
        db.session(), clock.now(), action_id, campaign_id=campaign_id, by=current_user.id
    )
    if again:
        flash("It is tried again, at once.")
    else:
        flash(
            "It is not tried again: it has not failed, or its subject, step or campaign is"
            " switched off.",
            "error",
        )
    schedule_id = request.form.get("subject", type=int)
    if schedule_id is not None and 0 < schedule_id <= LARGEST_ID:
        return _back(campaign_id, schedule_id)
    return redirect(f"/campaigns/{campaign_id}/sequence/actions?state=failed", 303)


@bp.get(id_in(f"{HERE}/retry"))
def ask_retry(campaign_id: int) -> str:
    campaign = find_campaign(db.session(), campaign_id)
    step = _step(campaign_id)
    number = failures.retriable(db.session(), campaign_id, step)
    steps = definitions.steps_of(db.session(), campaign_id)
    of_step = f" of the step “{names(campaign_id, steps).get(step, step)}”" if step else ""
    return render_template(
        "confirm.html",
        question=f"Try the failed actions{of_step} again?",
        consequences=[
            f"{words.count(number, 'action')} of {campaign.name} failed. Each is tried again, from"
            " now on.",
            "Those of withdrawn subjects, and of steps that were removed, are left out.",
        ],
        action=f"/campaigns/{campaign_id}/sequence/retry" + (f"?step={step}" if step else ""),
        verb="Try them again",
        back=f"/campaigns/{campaign_id}/sequence/actions?state=failed",
    )


@bp.post(id_in(f"{HERE}/retry"))
def retry(campaign_id: int) -> Response:
    find_campaign(db.session(), campaign_id)
    number = failures.retry(
        db.session(), clock.now(), campaign_id, _step(campaign_id), by=current_user.id
    )
    flash(f"{words.count(number, 'action is', 'actions are')} tried again.")
    return redirect(f"/campaigns/{campaign_id}/sequence/actions?state=failed", 303)


def _step(campaign_id: int) -> str:
    """The step that the address names, or nothing for all. A name that is none is not taken for
    "all": 404."""
    key = request.args.get("step", "")
    known = {step.key for step in definitions.steps_of(db.session(), campaign_id)}
    if key and key not in known:
        abort(404)
    return key


def _subject(enrolled: Enrolled) -> Subject:
    schedule = enrolled.schedule
    return Subject(schedule.subject, schedule.subject_id, schedule.contact_id)


def _latest(enrolled: Enrolled) -> int:
    """The latest run of a subject: those before it are not changed any more."""
    return subjects.runs(db.session(), enrolled.schedule)[0].id


def _gone(enrolled: Enrolled) -> bool:
    return enrolled.contact is not None and enrolled.contact.deleted_at is not None


def _refuse_gone(campaign_id: int, schedule_id: int) -> Response:
    flash("This contact was deleted: nobody is there to go on with.", "error")
    return _back(campaign_id, schedule_id)


def _over(campaign_id: int, latest: int) -> Response:
    """What is said to who still has the page of an earlier run: the way to the latest."""
    flash("That run was over already: they were restarted. This is their latest run.", "error")
    return _back(campaign_id, latest)


def _back(campaign_id: int, schedule_id: int) -> Response:
    return redirect(f"/campaigns/{campaign_id}/sequence/subjects/{schedule_id}", 303)


def _question(
    campaign_id: int,
    schedule_id: int,
    verb: str,
    question: str,
    consequences: list[str],
    button: str,
) -> str:
    here = f"/campaigns/{campaign_id}/sequence/subjects/{schedule_id}"
    return render_template(
        "confirm.html",
        question=question,
        consequences=consequences,
        action=f"{here}/{verb}",
        verb=button,
        back=here,
    )
