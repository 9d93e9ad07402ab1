"""Scenarios: find, write, schedule, duplicate, delete messages; say in time what is wrong."""

import datetime as dt
import re
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import delete as delete_rows
from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session, aliased, contains_eager

from mcs.core import walltime, words
from mcs.core.content import Problem
from mcs.gateways.jobqueue import JobQueue
from mcs.models import Campaign, Emailer, Scenario, Slice
from mcs.services import audiences, audit, callbacks, messages, planning
from mcs.services.audiences import Audience
from mcs.services.paging import At, Order, Page, Rows, read_number, turn
from mcs.services.transactions import writing
from mcs.services.unknown import Unknown, find_campaign

STATES = ("draft", "scheduled", "sending", "paused", "sent", "missed", "cancelled")
WHEN = ("upcoming", "past")
# Filling in a form takes time: a moment that has only just passed still counts as now.
GRACE = timedelta(minutes=1)
LONGEST_NAME = 200
_COPY = re.compile(r" \(copy(?: \d+)?\)$")
_UNDATED = date(9999, 12, 31)
_UNTIMED = time(0, 0)


class Frozen(Exception):
    """The message is not changed here: sending has begun, or a sequence sends it; the text says
    which."""


class Refused(Exception):
    """The scenario cannot be scheduled as it is; ``problems`` says why, the fatal ones among it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(" ".join(problem.text for problem in problems if problem.fatal))
        self.problems = problems


@dataclass(frozen=True)
class Fields:
    """What a person writes. ``date`` and ``time`` are wall time in the campaign's zone."""

    name: str = ""
    subject: str = ""
    content: str = ""
    format: str = "text"
    date: dt.date | None = None
    time: dt.time | None = None


@dataclass(frozen=True)
class Listed:
    """A scenario with its latest emailer, as lists show it."""

    scenario: Scenario
    emailer: Emailer | None

    @property
    def state(self) -> str:
        """One of STATES: the emailer's word once there is something to say of it."""
        if self.emailer is None or self.scenario.state == "draft":
            return self.scenario.state
        return "scheduled" if self.emailer.state == "planned" else self.emailer.state


def listing(
    session: Session,
    now: datetime,
    *,
    search: str = "",
    campaign_id: int | None = None,
    state: str = "",
    when: str = "",
    at: At = At(),  # noqa: B008 - frozen
    limit: int = 50,
) -> Page[Listed]:
    """Scenarios by date, the latest first; ``when="upcoming"`` turns that round. The messages of
    sequences are not among them.

    ``search`` looks in name, subject and the campaign's name. Past and upcoming are by the UTC day.
    """
    latest = aliased(Emailer)
    query: Rows = (
        select(Scenario, latest)
        .join(Scenario.campaign)
        .outerjoin(latest, latest.id == _latest_emailer_id())
        .where(~messages.of_a_step())
        .options(contains_eager(Scenario.campaign))
    )
    query = _filtered(query, latest, search, campaign_id, state)
    on = func.coalesce(Scenario.date, _UNDATED)
    if when == "upcoming":
        query = query.where(on >= now.date())
    elif when == "past":
        query = query.where(on < now.date())
    columns = (on, func.coalesce(Scenario.time, _UNTIMED), Scenario.id)
    order = Order(columns, when != "upcoming", _read_key)
    return turn(session, query, order, at, limit, Listed, lambda row: _key_of(row.scenario))


def of_campaign(session: Session, campaign_id: int) -> list[Listed]:
    """All scenarios of a campaign in the order in which they go out, those without a time last."""
    latest = aliased(Emailer)
    query = (
        select(Scenario, latest)
        .outerjoin(latest, latest.id == _latest_emailer_id())
        .where(Scenario.campaign_id == campaign_id, ~messages.of_a_step())
        .order_by(Scenario.date.is_(None), Scenario.date, Scenario.time, Scenario.id)
    )
    return [Listed(scenario, emailer) for scenario, emailer in session.execute(query)]


def _latest_emailer_id() -> Any:
    return (
        select(func.max(Emailer.id))
        .where(
            Emailer.scenario_id == Scenario.id,
            planning.stands(),
        )
        .correlate(Scenario)
        .scalar_subquery()
    )


def _filtered(query: Rows, latest: Any, search: str, campaign_id: int | None, state: str) -> Rows:
    if campaign_id is not None:
        query = query.where(Scenario.campaign_id == campaign_id)
    if search:
        query = query.where(
            or_(
                Scenario.name.icontains(search, autoescape=True),
                Scenario.subject.icontains(search, autoescape=True),
                Campaign.name.icontains(search, autoescape=True),
            )
        )
    if state == "draft":
        query = query.where(Scenario.state == "draft")
    elif state == "scheduled":
        query = query.where(
            Scenario.state == "scheduled", or_(latest.id.is_(None), latest.state == "planned")
        )
    elif state:
        query = query.where(Scenario.state == "scheduled", latest.state == state)
    return query


def _key_of(scenario: Scenario) -> str:
    on, at = scenario.date or _UNDATED, scenario.time or _UNTIMED
    return f"{on.isoformat()}_{at.isoformat()}_{scenario.id}"


def _read_key(text: str) -> tuple[date, time, int]:
    on, at, number = text.split("_")
    moment = time.fromisoformat(at)
    if moment.tzinfo is not None:
        raise ValueError(text)
    return date.fromisoformat(on), moment, read_number(number)


def find(session: Session, scenario_id: int) -> Listed:
    """The scenario and its latest emailer. Raises Unknown."""
    scenario = session.get(Scenario, scenario_id)
    if scenario is None:
        raise Unknown(f"scenario {scenario_id}")
    said = [
        emailer
        for emailer in emailers(session, scenario_id)
        if emailer.state != "cancelled" or emailer.recipients is not None
    ]
    return Listed(scenario, next(iter(said), None))


def find_open(session: Session, scenario_id: int) -> Scenario:
    """A scenario that may still be changed. Raises Frozen, Unknown."""
    scenario = find(session, scenario_id).scenario
    _refuse_begun(session, scenario_id)
    _refuse_message(session, scenario)
    return scenario


def campaigns(session: Session) -> list[tuple[int, str]]:
    """The campaigns to filter by, by id and name: the latest two hundred that are not archived."""
    query = (
        select(Campaign.id, Campaign.name)
        .where(Campaign.archived_at.is_(None))
        .order_by(Campaign.id.desc())
        .limit(200)
    )
    return sorted(((row.id, row.name) for row in session.execute(query)), key=lambda row: row[1])


def emailers(session: Session, scenario_id: int) -> list[Emailer]:
    """Every sending of the scenario, the latest first."""
    query = select(Emailer).where(Emailer.scenario_id == scenario_id).order_by(Emailer.id.desc())
    return list(session.scalars(query))


def fields_of(scenario: Scenario) -> Fields:
    """The scenario as a person would write it."""
    return Fields(
        scenario.name,
        scenario.subject,
        scenario.content,
        scenario.format,
        scenario.date,
        scenario.time,
    )


def added_since(session: Session, scenario: Scenario) -> int:
    """How many in the batch are in no ledger of this scenario: they joined after it went out."""
    return audiences.size(session, scenario.campaign_id, scenario.id)


def follow_up(session: Session, scenario_id: int) -> Scenario | None:
    """The scenario that already goes to those added since, if somebody made it."""
    query = select(Scenario).where(Scenario.excludes_id == scenario_id).order_by(Scenario.id.desc())
    return session.scalars(query.limit(1)).first()


def instant(campaign: Campaign, fields: Fields) -> datetime | None:
    """When it goes out, or None while date or time is missing."""
    if fields.date is None or fields.time is None:
        return None
    return walltime.instant(fields.date, fields.time, ZoneInfo(campaign.timezone))


def instant_of(scenario: Scenario) -> datetime | None:
    """When the scenario goes out, or None while its date or time is missing."""
    return instant(scenario.campaign, fields_of(scenario))


def problems(
    session: Session,
    now: datetime,
    campaign: Campaign,
    fields: Fields,
    excludes_id: int | None = None,
) -> list[Problem]:
    """Everything that stands in the way, the fatal first: nothing is found out by sending."""
    found = [
        *message_problems(session, campaign, fields),
        *_time_problems(now, campaign, fields),
        *_campaign_problems(campaign),
        *_audience_problems(audiences.count(session, campaign.id, excludes_id)),
    ]
    return sorted(found, key=lambda problem: not problem.fatal)


def message_problems(session: Session, campaign: Campaign, fields: Fields) -> list[Problem]:
    """What is wrong with the words of a message, whenever it goes out."""
    return callbacks.content_problems(
        session, campaign.id, fields.subject, fields.content, fields.format
    )


def _time_problems(now: datetime, campaign: Campaign, fields: Fields) -> list[Problem]:
    if fields.date is None or fields.time is None:
        missing = "date" if fields.date is None else "time"
        return [Problem(missing, f"The {missing} at which it goes out is missing.", fatal=True)]
    zone = ZoneInfo(campaign.timezone)
    at = walltime.instant(fields.date, fields.time, zone)
    found = []
    if at < now - GRACE:
        found.append(
            Problem(
                "date" if fields.date < walltime.local(now, zone).date() else "time",
                f"{words.moment(at, zone, now.year)} has passed:"
                f" it is {words.moment(now, zone, now.year)} now.",
                fatal=True,
            )
        )
    found += _timeline_problems(campaign, fields.date)
    found += _clock_change_problems(fields.date, fields.time, at, zone)
    return found


def _timeline_problems(campaign: Campaign, on: date) -> list[Problem]:
    first, last = campaign.start_date, campaign.end_date
    if first <= on <= last:
        return []
    where = (
        f"before the campaign's first day, {words.day(first)}"
        if on < first
        else f"after the campaign's last day, {words.day(last)}"
    )
    return [Problem("date", f"{words.day(on)} is {where}.", fatal=True)]


def _clock_change_problems(on: date, at: time, instant: datetime, zone: ZoneInfo) -> list[Problem]:
    shown = walltime.local(instant, zone)
    where = words.city(zone.key)
    if not walltime.exists(on, at, zone):
        return [
            Problem(
                "time",
                f"{at:%H:%M} does not exist that day in {where}, the clocks change:"
                f" it goes out at {shown:%H:%M}.",
                fatal=False,
            )
        ]
    if shown.replace(fold=0).utcoffset() != shown.replace(fold=1).utcoffset():
        return [
            Problem(
                "time",
                f"{at:%H:%M} happens twice that day in {where}, the clocks change:"
                " it goes out once, at the first.",
                fatal=False,
            )
        ]
    return []


def _campaign_problems(campaign: Campaign) -> list[Problem]:
    found = []
    if not campaign.from_email:
        found.append(Problem("sender", "The campaign has no sender address.", fatal=True))
    if not campaign.postal_address.strip():
        found.append(
            Problem(
                "sender",
                "The campaign has no postal address: the law asks for one in every email.",
                fatal=True,
            )
        )
    if campaign.archived_at is not None:
        found.append(Problem("campaign", "The campaign is archived.", fatal=True))
    elif not campaign.active:
        found.append(
            Problem(
                "campaign",
                "The campaign is switched off: nothing goes out until it is activated.",
                fatal=False,
            )
        )
    return found


def _audience_problems(audience: Audience) -> list[Problem]:
    if audience.contacts == 0:
        text = "The campaign has no contacts yet: as it stands, it goes to nobody."
    elif audience.reached == 0:
        text = "Every contact of this campaign is suppressed: as it stands, it goes to nobody."
    else:
        return []
    return [Problem("contacts", text, fatal=False)]


def create(
    session: Session,
    now: datetime,
    queue: JobQueue,
    campaign_id: int,
    fields: Fields,
    *,
    draft: bool,
    excludes_id: int | None = None,
    by: int | None = None,
) -> int:
    """Write a new scenario; its id. Not a draft: scheduled, and planned at once.

    Raises Refused when it cannot be scheduled, Unknown for a campaign that is not there.
    """
    campaign = find_campaign(session, campaign_id)
    if not draft:
        _refuse_fatal(problems(session, now, campaign, fields, excludes_id))
    with writing(session):
        scenario = Scenario(
            campaign_id=campaign_id,
            state="draft" if draft else "scheduled",
            excludes_id=excludes_id,
            created_at=now,
            updated_at=now,
            **asdict(fields),
        )
        session.add(scenario)
        session.flush()
        scenario_id = scenario.id
        detail = {"name": fields.name, "state": scenario.state}
        audit.note(session, now, by, "created", "scenario", scenario_id, **detail)
    planning.plan_campaign(session, now, queue, campaign_id)
    return scenario_id


def edit(
    session: Session,
    now: datetime,
    queue: JobQueue,
    scenario_id: int,
    fields: Fields,
    *,
    draft: bool,
    by: int | None = None,
) -> None:
    """Write the scenario anew, as a draft or scheduled. Raises Frozen, Refused, Unknown."""
    before = find_open(session, scenario_id)
    if not draft:
        _refuse_fatal(problems(session, now, before.campaign, fields, before.excludes_id))
    with writing(session):
        scenario = _claim_unbegun(session, scenario_id)
        for name, value in asdict(fields).items():
            setattr(scenario, name, value)
        was, scenario.state = scenario.state, "draft" if draft else "scheduled"
        scenario.updated_at = now
        verb = _EDITS.get((was, scenario.state), "edited")
        audit.note(session, now, by, verb, "scenario", scenario_id, name=fields.name)
        campaign_id = scenario.campaign_id
    planning.plan_campaign(session, now, queue, campaign_id)


_EDITS = {("draft", "scheduled"): "scheduled", ("scheduled", "draft"): "unscheduled"}


def schedule(
    session: Session, now: datetime, queue: JobQueue, scenario_id: int, *, by: int | None = None
) -> None:
    """Schedule a draft as it is. Raises Frozen, Refused, Unknown."""
    scenario = find(session, scenario_id).scenario
    edit(session, now, queue, scenario_id, fields_of(scenario), draft=False, by=by)


def unschedule(
    session: Session, now: datetime, queue: JobQueue, scenario_id: int, *, by: int | None = None
) -> None:
    """Make it a draft again; what was planned is withdrawn. Raises Frozen, Unknown."""
    scenario = find(session, scenario_id).scenario
    edit(session, now, queue, scenario_id, fields_of(scenario), draft=True, by=by)


def duplicate(session: Session, now: datetime, scenario_id: int, *, by: int | None = None) -> int:
    """A draft with the same words and no time of its own; its id. Raises Unknown."""
    original = find(session, scenario_id).scenario
    return _copy(session, now, original, _copys_name(session, original), None, by)


def _copys_name(session: Session, original: Scenario) -> str:
    """``Hello (copy)``, ``Hello (copy 2)``: the first that no scenario of the campaign has."""
    of_campaign = select(Scenario.name).where(Scenario.campaign_id == original.campaign_id)
    taken = set(session.scalars(of_campaign))
    stem = _COPY.sub("", original.name)
    endings = (" (copy)", *(f" (copy {number})" for number in range(2, len(taken) + 2)))
    names = (stem[: LONGEST_NAME - len(ending)] + ending for ending in endings)
    return next(name for name in names if name not in taken)


def send_to_added(
    session: Session, now: datetime, scenario_id: int, *, by: int | None = None
) -> int:
    """A draft with the same words for those who joined since it went out; its id.

    There is one such draft at a time: asked twice, the first is found again. Raises Unknown.
    """
    original = find(session, scenario_id).scenario
    made = follow_up(session, scenario_id)
    if made is not None:
        return made.id
    return _copy(session, now, original, f"{original.name} (added since)", original.id, by)


def _copy(
    session: Session,
    now: datetime,
    original: Scenario,
    name: str,
    excludes_id: int | None,
    by: int | None,
) -> int:
    fields = replace(fields_of(original), name=name[:LONGEST_NAME], date=None, time=None)
    with writing(session):
        scenario = Scenario(
            campaign_id=original.campaign_id,
            state="draft",
            excludes_id=excludes_id,
            created_at=now,
            updated_at=now,
            **asdict(fields),
        )
        session.add(scenario)
        session.flush()
        detail = {"name": scenario.name, "copy_of": original.id}
        audit.note(session, now, by, "created", "scenario", scenario.id, **detail)
        return scenario.id


def delete(
    session: Session, now: datetime, queue: JobQueue, scenario_id: int, *, by: int | None = None
) -> None:
    """Delete a scenario that has not begun, and what is planned of it. Raises Frozen, Unknown."""
    with writing(session):
        scenario = _claim_unbegun(session, scenario_id)
        _refuse_sent_by_sequence(session, scenario_id)
        campaign_id = scenario.campaign_id
        session.execute(delete_rows(Emailer).where(Emailer.scenario_id == scenario_id))
        # Nobody got it, so one that leaves its recipients out leaves out those before it.
        session.execute(
            update(Scenario)
            .where(Scenario.excludes_id == scenario_id)
            .values(excludes_id=scenario.excludes_id)
        )
        audit.note(session, now, by, "deleted", "scenario", scenario_id, name=scenario.name)
        session.delete(scenario)
    planning.plan_campaign(session, now, queue, campaign_id)


def begun(session: Session, scenario_id: int) -> bool:
    """Whether sending has begun: from then on the scenario is frozen."""
    return _refusal(emailers(session, scenario_id)) is not None


def _refuse_fatal(found: list[Problem]) -> None:
    if any(problem.fatal for problem in found):
        raise Refused(found)


def _refuse_begun(session: Session, scenario_id: int) -> None:
    refusal = _refusal(emailers(session, scenario_id))
    if refusal is not None:
        raise Frozen(refusal)


def _refuse_message(session: Session, scenario: Scenario) -> None:
    key = messages.step_of(session, scenario)
    if key is not None:
        raise Frozen(f"This is the message of the step {key}: it is written with its sequence.")


def _refuse_sent_by_sequence(session: Session, scenario_id: int) -> None:
    of_steps = select(Slice.id).where(Slice.scenario_id == scenario_id).limit(1)
    if session.scalar(of_steps) is not None:
        raise Frozen(
            "A sequence has sent this message, and the ledger refers to it: it is not deleted."
        )


def _refusal(sendings: list[Emailer]) -> str | None:
    for emailer in sendings:
        if emailer.recipients is not None:
            return (
                "This scenario has begun to go out, so it is not changed any more."
                " Duplicate it to write another one."
            )
    return None


def _claim_unbegun(session: Session, scenario_id: int) -> Scenario:
    """The scenario, locked against an alarm that would begin it in this very moment."""
    scenario = session.scalars(
        select(Scenario).where(Scenario.id == scenario_id).with_for_update(key_share=True)
    ).one_or_none()
    if scenario is None:
        raise Unknown(f"scenario {scenario_id}")
    locked = (
        select(Emailer).where(Emailer.scenario_id == scenario_id).with_for_update(key_share=True)
    )
    refusal = _refusal(list(session.scalars(locked.execution_options(populate_existing=True))))
    if refusal is not None:
        raise Frozen(refusal)
    _refuse_message(session, scenario)
    return scenario
