"""Sequences: define a campaign's steps, say what an edit will do, switch all of it on and off."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import select, true, update
from sqlalchemy.orm import Session

from mcs.core import sequences
from mcs.core.sequences import Enrolment, Planned
from mcs.models import Action, Schedule
from mcs.services import action_deliveries, audit, callbacks, definitions, schedules
from mcs.services.definitions import Plan, Step
from mcs.services.schedules import Subject
from mcs.services.tallies import Effect, Tally
from mcs.services.transactions import NO_SYNC, writing


@dataclass(frozen=True)
class Outlook:
    """What would be for a subject: its next run if it were enrolled now, and its actions."""

    run: int
    planned: Sequence[Planned]
    repeating: frozenset[str]

    def name(self, one: Planned) -> str:
        """The action's id, as people read it."""
        return sequences.action_id(one.key, one.occurrence, one.key in self.repeating)


def preview(
    session: Session,
    now: datetime,
    campaign_id: int,
    steps: Sequence[Step],
    past: str = sequences.PAST_SKIP,
    *,
    known: Mapping[str, Any] | None = None,
) -> Tally:
    """How many subjects and actions saving these steps would move, without saving them.

    ``known`` is the table of callbacks that the steps may use. Raises BadDefinition, Unknown.
    """
    callbacks.check(session, known, campaign_id, steps, hold=False)
    found = effect(session, now, campaign_id, steps)
    return found.run if past == sequences.PAST_RUN else found.skip


def effect(session: Session, now: datetime, campaign_id: int, steps: Sequence[Step]) -> Effect:
    """What saving these steps would move, whose messages may not be written yet."""
    read = definitions.read(steps)
    before = definitions.look(session, campaign_id)
    after = _with(before, read)
    found = Effect()
    if after.running:
        found = schedules.foretell(session, now, after, _changed(before, after))
    session.rollback()
    return found


def effect_of_days(
    session: Session, now: datetime, campaign_id: int, first: date, last: date, zone: str
) -> Effect:
    """What giving the campaign these days, both included, in this zone would move in its
    sequence. Raises Unknown."""
    days = sequences.calendar(first, last, ZoneInfo(zone))
    plan = replace(definitions.look(session, campaign_id), calendar=days)
    found = schedules.foretell(session, now, plan) if plan.running else Effect()
    session.rollback()
    return found


def define(
    session: Session,
    now: datetime,
    campaign_id: int,
    steps: Sequence[Step],
    past: str = sequences.PAST_SKIP,
    *,
    known: Mapping[str, Any] | None = None,
    by: int | None = None,
) -> Tally:
    """Save the steps of a campaign, and move what is pending of those that changed.

    What a subject has completed stays completed, whatever changes. ``past`` says whether a step
    whose moment has passed for a subject already is skipped or run at once. ``known`` is the table
    of callbacks that the steps may use. Raises BadDefinition, Unknown.
    """
    with writing(session):
        definitions.load(session, campaign_id, to_edit=True)
        before = definitions.steps_of(session, campaign_id)
        tally = define_within(session, now, campaign_id, steps, past, known=known)
        if list(steps) != before and audit.asked_for(session, by):
            said = {"steps": [step.key for step in steps]}
            audit.note(session, now, by, "edited the steps of", "campaign", campaign_id, **said)
        return tally


def define_within(
    session: Session,
    now: datetime,
    campaign_id: int,
    steps: Sequence[Step],
    past: str = sequences.PAST_SKIP,
    *,
    known: Mapping[str, Any] | None = None,
) -> Tally:
    """``define`` in the caller's transaction."""
    read = definitions.read(steps)
    if past not in sequences.PAST:
        raise ValueError(f"past: {past!r}: use skip or run")
    before = definitions.load(session, campaign_id, to_edit=True)
    callbacks.check(session, known, campaign_id, steps)
    after = _with(before, read)
    _withdraw_removed(session, now, before, after)
    definitions.write(session, now, campaign_id, steps)
    if not after.running:
        return Tally()
    return schedules.align(session, now, after, only=_changed(before, after), past=past)


def activation(session: Session, now: datetime, campaign_id: int) -> Tally:
    """How many subjects and actions switching the campaign on would bring back. Raises Unknown."""
    plan = replace(definitions.look(session, campaign_id), running=True)
    tally = schedules.align(session, now, plan, write=False)
    session.rollback()
    return tally


def realign(session: Session, now: datetime, campaign_id: int) -> Tally:
    """Bring a campaign's pending actions in line with it, after it was switched on or off, or its
    days or zone changed.

    Switched off, all that is pending is withdrawn; switched on, what was never run comes back, each
    counted from its subject's original start. What that moved; nothing is told of what switching
    off withdraws. Idempotent. Raises Unknown.
    """
    with writing(session):
        return realign_within(session, now, campaign_id)


def realign_within(
    session: Session, now: datetime, campaign_id: int, past: str = sequences.PAST_RUN
) -> Tally:
    """``realign`` in the caller's transaction. ``past`` says what becomes of moments that have
    passed."""
    # The campaign is read on the connection, which knows only what was sent to it.
    session.flush()
    plan = definitions.load(session, campaign_id, to_edit=True)
    if plan.running:
        return schedules.align(session, now, plan, past=past)
    if plan.writes:
        action_deliveries.withdraw(session, now, campaign_id, true(), sequences.SWITCHED_OFF)
    session.execute(
        update(Action)
        .where(
            Action.state == "pending",
            Action.schedule_id.in_(select(Schedule.id).where(Schedule.campaign_id == campaign_id)),
        )
        .values(state="cancelled", reason=sequences.SWITCHED_OFF, ended_at=now)
        .execution_options(**NO_SYNC)
    )
    return Tally()


def outlook(session: Session, now: datetime, campaign_id: int, who: Subject) -> Outlook:
    """What would be due when for a subject that is enrolled now, without enrolling it.

    One that is enrolled already, or was, is shown from its original start. Where the campaign is
    switched off, each action says so as its reason. Raises Unknown, Refused.
    """
    schedules.check(who)
    plan = definitions.look(session, campaign_id)
    begun = session.execute(
        select(Schedule.run, Schedule.started_at)
        .where(
            Schedule.campaign_id == campaign_id,
            Schedule.subject == who.subject,
            Schedule.subject_id == who.subject_id,
        )
        .order_by(Schedule.run.desc())
        .limit(1)
    ).first()
    run, start = (1, now) if begun is None else (begun.run, begun.started_at)
    enrolment = Enrolment(plan.name, who.subject, who.subject_id, run, start)
    planned = sequences.plan(plan.definitions, plan.calendar, enrolment)
    if not plan.running:
        off = sequences.SWITCHED_OFF
        planned = [replace(one, reason=one.reason or off) for one in planned]
    session.rollback()
    return Outlook(run, planned, repeating(plan))


def foresight(
    session: Session, now: datetime, campaign_id: int, steps: Sequence[Step] | None = None
) -> Outlook:
    """What would be due when for a contact that joins now, if each step were done at its moment.

    ``steps`` stand in for those that are saved. Raises BadDefinition, Unknown.
    """
    plan = definitions.look(session, campaign_id)
    if steps is not None:
        plan = _with(plan, definitions.read(steps))
    planned = sequences.foresee(
        plan.definitions, plan.calendar, Enrolment(plan.name, *_SOMEBODY, 1, now)
    )
    session.rollback()
    return Outlook(1, planned, repeating(plan))


# A subject that nobody enrols: its draws are an example, and the same each time.
_SOMEBODY = ("", "somebody")


def repeating(plan: Plan) -> frozenset[str]:
    """The steps whose actions are numbered."""
    return frozenset(one.key for one in plan.definitions if one.repeat)


def _withdraw_removed(session: Session, now: datetime, before: Plan, after: Plan) -> None:
    """Skip the emails that have not started of steps that send none any more."""
    removed = before.mailing - after.mailing
    if removed:
        these = Action.key.in_(removed)
        action_deliveries.withdraw(session, now, before.campaign_id, these, sequences.REMOVED)


def _with(plan: Plan, read: tuple[sequences.Definition, ...]) -> Plan:
    return replace(plan, definitions=read)


def _changed(before: Plan, after: Plan) -> set[str]:
    """The steps that are new, gone, or fall at other moments."""
    timing = [
        {one.key: (one.interval, one.repeat, one.after, one.on_failure) for one in plan.definitions}
        for plan in (before, after)
    ]
    keys = timing[0].keys() | timing[1].keys()
    return {key for key in keys if timing[0].get(key) != timing[1].get(key)}
