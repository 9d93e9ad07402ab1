"""Campaigns: made, edited, switched on and off, archived; and what their pages say of them."""

import re
import secrets
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import date, datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, case, func, literal, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from mcs.core import timelines, zones
from mcs.core.addresses import BadAddress, parse_address
from mcs.core.sequences import PAST_RUN, PAST_SKIP
from mcs.gateways import clock
from mcs.gateways.jobqueue import JobQueue
from mcs.models import Batch, BatchContact, Campaign
from mcs.services import (
    audiences,
    audit,
    outlook,
    planning,
    reach,
    scenarios,
    sequences,
    subjects,
)
from mcs.services.audiences import Audience
from mcs.services.outlook import Upcoming
from mcs.services.paging import At, Order, Page, read_number, turn
from mcs.services.reach import Reach
from mcs.services.tallies import Effect, Period, Tally
from mcs.services.transactions import writing
from mcs.services.unknown import Unknown, find_campaign

PAGE_LENGTH = 25
SORTS = ("name", "start")
DAYS_AND_ZONE = ("start_date", "end_date", "timezone")
SLOWEST, FASTEST = 0.01, 100_000  # Messages a second.
# What a sequence is planned by.
_PLANNED_BY = {*DAYS_AND_ZONE, "active"}
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
LONGEST = {"name": 200, "description": 5000, "from_name": 200, "postal_address": 500}


class RefusedCampaign(Exception):
    """What cannot be: a sentence for each field of the form; "" stands for the whole."""

    def __init__(self, reasons: dict[str, str]) -> None:
        super().__init__("; ".join(reasons.values()))
        self.reasons = reasons


class TakenKey(Exception):
    """Another campaign has the key; the text says so."""


@dataclass(frozen=True)
class Name:
    """What a campaign is called by: its id, and the key that programs gave it."""

    id: int
    key: str | None


@dataclass(frozen=True)
class Fields:
    """What a marketer says of a campaign. The sender and postal address may follow later."""

    name: str
    description: str
    start_date: date | None
    end_date: date | None
    timezone: str
    from_name: str = ""
    from_email: str = ""
    reply_to: str = ""
    postal_address: str = ""
    send_rate: float | None = None


@dataclass(frozen=True)
class Listed:
    """A campaign as the list shows it."""

    campaign: Campaign
    state: str
    contacts: int
    next_at: datetime | None


@dataclass(frozen=True)
class Overview:
    """Everything the campaign's own page says. ``sender_gaps``: what is still to be filled in;
    ``reached``: how far the runs' sendings have got, by the emailer's id."""

    campaign: Campaign
    state: str
    audience: Audience
    sender_gaps: Sequence[str]
    runs: Sequence[scenarios.Listed]
    reached: dict[int, Reach]
    next_up: Upcoming | None
    sequence: subjects.Summary


@dataclass(frozen=True)
class Withdrawal:
    """What switching off takes back, and what it does not: messages that are being sent.

    ``actions`` of ``subjects`` are those of its sequence, due in the ``period``.
    """

    sends: int
    recipients: int
    sending: int
    actions: int
    subjects: int
    period: Period


def create(
    session: Session,
    now: datetime,
    given: Fields,
    by: int | None,
    *,
    key: str | None = None,
    active: bool = True,
    uid: str | None = None,
) -> int:
    """Make a campaign and its empty batch; its id. ``key`` is what programs call it by.

    Who may ask twice for the same gives it a ``uid`` of 22 characters: the second time it is the
    campaign that was made the first time. Raises RefusedCampaign, and TakenKey where another
    campaign has the key.
    """
    checked = check(given)
    if key is not None:
        check_key(key)
    try:
        return _create(session, now, checked, by, key, active, uid or secrets.token_urlsafe(16))
    except IntegrityError:
        made = session.scalar(select(Campaign.id).where(Campaign.uid == uid)) if uid else None
        if made is not None:
            return made
        raise TakenKey(f"There is a campaign of the key {key} already.") from None


def _create(
    session: Session,
    now: datetime,
    checked: Fields,
    by: int | None,
    key: str | None,
    active: bool,
    uid: str,
) -> int:
    with writing(session):
        campaign = Campaign(
            key=key,
            uid=uid,
            active=active,
            created_at=now,
            updated_at=now,
            **asdict(checked),
        )
        campaign.batch = Batch()
        session.add(campaign)
        session.flush()
        audit.note(session, now, by, "created", "campaign", campaign.id, name=checked.name)
        return campaign.id


def edit(
    session: Session,
    now: datetime,
    queue: JobQueue,
    campaign_id: int,
    given: Fields,
    by: int | None,
    past: str = PAST_SKIP,
) -> Tally:
    """Write the campaign anew, and move what is planned, and its sequence; what of that moved.

    ``past`` says whether an action whose moment has passed by then is skipped or run at once.
    Raises RefusedCampaign, Unknown.
    """
    return change(session, now, queue, campaign_id, asdict(given), None, by, past)


def effect(session: Session, now: datetime, campaign_id: int, given: Fields) -> Effect:
    """What ``edit`` would move in the campaign's sequence. Raises RefusedCampaign, Unknown."""
    before = fields_of(find_campaign(session, campaign_id))
    after = check(given)
    same = all(getattr(before, name) == getattr(after, name) for name in DAYS_AND_ZONE)
    if same or after.start_date is None or after.end_date is None:
        return Effect()
    return sequences.effect_of_days(
        session, now, campaign_id, after.start_date, after.end_date, after.timezone
    )


def change(
    session: Session,
    now: datetime,
    queue: JobQueue,
    campaign_id: int,
    given: Mapping[str, Any],
    active: bool | None,
    by: int | None,
    past: str = PAST_RUN,
) -> Tally:
    """Change some fields of a campaign, and switch it on or off; what is None stays as it is.

    What moved of its sequence; ``past`` as for ``edit``. Raises RefusedCampaign, Unknown.
    """
    tally = Tally()
    with writing(session):
        campaign = find_campaign(session, campaign_id)
        checked = asdict(check(replace(fields_of(campaign), **given)))
        changed = [name for name, value in checked.items() if _differs(campaign, name, value)]
        for name in changed:
            setattr(campaign, name, checked[name])
        campaign.updated_at = now
        if changed:
            audit.note(session, now, by, "edited", "campaign", campaign_id, changed=changed)
        if active is not None and active != campaign.active:
            campaign.active = active
            verb = "activated" if active else "deactivated"
            audit.note(session, now, by, verb, "campaign", campaign_id, name=campaign.name)
            changed.append("active")
        if _PLANNED_BY.intersection(changed):
            tally = sequences.realign_within(session, now, campaign_id, past)
    planning.plan_campaign(session, now, queue, campaign_id)
    return tally


def activate(
    session: Session, now: datetime, queue: JobQueue, campaign_id: int, by: int | None
) -> Tally:
    """Have its scheduled scenarios planned again; what of its sequence that brought back."""
    return _switch(session, now, queue, campaign_id, by, "activated", active=True)


def deactivate(
    session: Session, now: datetime, queue: JobQueue, campaign_id: int, by: int | None
) -> None:
    """Withdraw what is planned. What is being sent goes on."""
    _switch(session, now, queue, campaign_id, by, "deactivated", active=False)


def archive(
    session: Session, now: datetime, queue: JobQueue, campaign_id: int, by: int | None
) -> None:
    """Withdraw what is planned, and put the campaign out of sight; its ledger stays.

    Raises RefusedCampaign while one of its emails is being sent, or is paused.
    """
    if withdrawal(session, now, campaign_id).sending:
        raise RefusedCampaign(
            {"": "An email of this campaign is being sent or is paused. Let it end, or cancel it."}
        )
    _switch(session, now, queue, campaign_id, by, "archived", active=False, archived_at=now)


def unarchive(
    session: Session, now: datetime, queue: JobQueue, campaign_id: int, by: int | None
) -> None:
    """Bring the campaign back, inactive: nothing goes out before somebody says so."""
    _switch(session, now, queue, campaign_id, by, "unarchived", archived_at=None)


def named(session: Session, text: str) -> Campaign:
    """The campaign of that id, or of that key where it is no number. Raises Unknown."""
    return find_campaign(session, known_as(session, text).id)


def known_as(session: Session, text: str) -> Name:
    """Only the id and the key of what ``named`` finds. Raises Unknown."""
    found = None
    if text.isascii() and text.isdigit():
        # Longer ones are beyond what the databases can hold.
        if len(text) < 10:
            found = session.connection().execute(_BY_ID, {"id": int(text)}).first()
    elif "\0" not in text:
        found = session.connection().execute(_BY_KEY, {"key": text}).first()
    if found is None:
        raise Unknown(f"campaign {text[:100]}")
    return Name(found.id, found.key)


_BY_ID: Any = select(Campaign.id, Campaign.key).where(Campaign.id == bindparam("id"))
_BY_KEY: Any = select(Campaign.id, Campaign.key).where(Campaign.key == bindparam("key"))


def check_key(key: str) -> None:
    """Whether a campaign can be called by this key. Raises RefusedCampaign."""
    if not _KEY.fullmatch(key) or key.isdigit():
        raise RefusedCampaign(
            {
                "key": "A key has letters, digits, dots, - and _, up to 100 of them, and begins"
                " with a letter or a digit; digits alone are an id."
            }
        )


def fields_of(campaign: Campaign) -> Fields:
    """What a form begins with when the campaign is edited."""
    return Fields(**{field.name: getattr(campaign, field.name) for field in fields(Fields)})


def state_of(campaign: Campaign, now: datetime) -> str:
    """One of timelines.CAMPAIGN_STATES."""
    return timelines.state(
        campaign.start_date,
        campaign.end_date,
        timelines.today(now, campaign.timezone),
        campaign.active,
        campaign.archived_at is not None,
    )


def sender_gaps(campaign: Campaign) -> list[str]:
    """What the law and mail providers ask of a sender, and is not filled in yet."""
    needed = (
        ("a From address", campaign.from_email),
        ("a postal address", campaign.postal_address),
    )
    return [name for name, value in needed if not value.strip()]


def listing(
    session: Session,
    now: datetime,
    *,
    search: str = "",
    state: str = "",
    sort: str = "-start",
    at: At = At(),  # noqa: B008 - frozen
) -> Page[Listed]:
    """A page of campaigns. Without a state: all but the archived ones.

    ``sort`` is one of SORTS, with a minus in front for the other way round; anything else means
    the latest start first.
    """
    contacts = (
        select(func.count())
        .select_from(BatchContact)
        .join(Batch, Batch.id == BatchContact.batch_id)
        .where(Batch.campaign_id == Campaign.id)
        .correlate(Campaign)
        .scalar_subquery()
    )
    query = select(Campaign, contacts).where(_in_state(session, now, state))
    if search:
        query = query.where(
            or_(
                Campaign.name.icontains(search, autoescape=True),
                Campaign.description.icontains(search, autoescape=True),
            )
        )

    def listed(campaign: Campaign, count: int) -> Listed:
        return Listed(campaign, state_of(campaign, now), count, None)

    order, key = _order(sort)
    page = turn(session, query, order, at, PAGE_LENGTH, listed, lambda row: key(row.campaign))
    soon = outlook.next_by_campaign(session, now, [row.campaign.id for row in page.rows])
    rows = [replace(row, next_at=soon.get(row.campaign.id)) for row in page.rows]
    return replace(page, rows=rows)


def overview(session: Session, now: datetime, campaign_id: int) -> Overview:
    """The campaign's page. Raises Unknown."""
    campaign = find_campaign(session, campaign_id)
    coming = outlook.upcoming(session, now, campaign_id=campaign_id)
    runs = scenarios.of_campaign(session, campaign_id)
    return Overview(
        campaign,
        state_of(campaign, now),
        audiences.count(session, campaign_id),
        sender_gaps(campaign),
        runs,
        reach.of_emailers(session, [run.emailer.id for run in runs if run.emailer]),
        coming[0] if coming else None,
        subjects.summary(session, campaign_id),
    )


def withdrawal(session: Session, now: datetime, campaign_id: int) -> Withdrawal:
    """What deactivating the campaign now would take back."""
    coming = outlook.upcoming(session, now, campaign_id=campaign_id)
    pending, enrolled, period = subjects.affected(session, campaign_id)
    return Withdrawal(
        sends=len(coming),
        recipients=sum(one.recipients for one in coming),
        sending=len(outlook.being_sent(session, campaign_id)),
        actions=pending,
        subjects=enrolled,
        period=period,
    )


def any_campaign(session: Session) -> bool:
    """Whether there is one at all, archived ones included."""
    return session.scalar(select(Campaign.id).limit(1)) is not None


def _switch(
    session: Session,
    now: datetime,
    queue: JobQueue,
    campaign_id: int,
    by: int | None,
    verb: str,
    **changes: Any,
) -> Tally:
    with writing(session):
        campaign = find_campaign(session, campaign_id)
        for name, value in changes.items():
            setattr(campaign, name, value)
        campaign.updated_at = now
        audit.note(session, now, by, verb, "campaign", campaign_id, name=campaign.name)
        tally = sequences.realign_within(session, now, campaign_id)
    planning.plan_campaign(session, now, queue, campaign_id)
    return tally


def check(given: Fields) -> Fields:
    """The fields in the form in which they are kept. Raises RefusedCampaign."""
    reasons: dict[str, str] = {}
    one_line = replace(
        given,
        name=_one_line(given.name),
        from_name=_one_line(given.from_name),
        from_email=_address("from_email", given.from_email, reasons),
        reply_to=_address("reply_to", given.reply_to, reasons),
        timezone=zones.named(given.timezone, clock.zones()) or "",
    )
    if not one_line.name:
        reasons["name"] = "Give the campaign a name."
    for name, longest in LONGEST.items():
        if len(getattr(one_line, name)) > longest:
            reasons[name] = f"Use at most {longest:,} characters."
    _check_timeline(given, reasons)
    if not one_line.timezone:
        reasons["timezone"] = "Choose a time zone from the list, such as Europe/Berlin."
    if given.send_rate is not None and not SLOWEST <= given.send_rate <= FASTEST:
        reasons["send_rate"] = f"Use a number from {SLOWEST} to {FASTEST:,}, or leave it empty."
    if reasons:
        raise RefusedCampaign(reasons)
    return one_line


def _check_timeline(given: Fields, reasons: dict[str, str]) -> None:
    for name, which in (("start_date", "first"), ("end_date", "last")):
        day: date | None = getattr(given, name)
        if day is None:
            reasons[name] = f"Enter the {which} day."
        elif not 2000 <= day.year <= 2200:
            reasons[name] = "Check the year."
    if given.start_date and given.end_date and given.end_date < given.start_date:
        reasons.setdefault("end_date", "The last day is before the first.")


def _address(name: str, text: str, reasons: dict[str, str]) -> str:
    if not text.strip():
        return ""
    try:
        return parse_address(text).email
    except BadAddress as error:
        reasons[name] = f"This is not an email address: {error.reason}."
        return text


def _one_line(text: str) -> str:
    """Without line breaks and other control characters, which could become mail headers."""
    kept = (
        " " if unicodedata.category(letter)[:2] in ("Cc", "Zl", "Zp") else letter for letter in text
    )
    return " ".join("".join(kept).split())


def _differs(campaign: Campaign, name: str, value: object) -> bool:
    return bool(getattr(campaign, name) != value)


def _in_state(session: Session, now: datetime, state: str) -> ColumnElement[bool]:
    here = Campaign.archived_at.is_(None)
    if state == "archived":
        return ~here
    if state == "inactive":
        return and_(here, ~Campaign.active)
    today = _today(session, now)
    timeline = {
        "upcoming": Campaign.start_date > today,
        "running": and_(Campaign.start_date <= today, Campaign.end_date >= today),
        "over": Campaign.end_date < today,
    }
    return and_(here, Campaign.active, timeline[state]) if state in timeline else here


def _today(session: Session, now: datetime) -> ColumnElement[date]:
    """Each campaign's own date: at any instant, the zones of the world show at most three."""
    zones = session.scalars(select(Campaign.timezone).distinct()).all()
    dates = {zone: timelines.today(now, zone) for zone in zones}
    days = [(Campaign.timezone == zone, literal(day)) for zone, day in dates.items()]
    return case(*days, else_=literal(now.date())) if days else literal(now.date())


def _order(sort: str) -> tuple[Order, Any]:
    name = sort.removeprefix("-")
    descending = sort.startswith("-")
    if name not in SORTS:
        name, descending = "start", True
    if name == "name":
        column: Any = func.lower(Campaign.name)
        return (
            Order((column, Campaign.id), descending, _read_name_key),
            lambda campaign: campaign.id,
        )
    return (
        Order((Campaign.start_date, Campaign.id), descending, _read_date_key),
        lambda campaign: f"{campaign.start_date.isoformat()}_{campaign.id}",
    )


def _read_name_key(text: str) -> tuple[Any, int]:
    # The database's own lower case: SQLite's knows ASCII only, so Python's would skip rows.
    campaign_id = read_number(text)
    name = select(func.lower(Campaign.name)).where(Campaign.id == campaign_id).scalar_subquery()
    return name, campaign_id


def _read_date_key(text: str) -> tuple[date, int]:
    day, number = text.split("_")
    return date.fromisoformat(day), read_number(number)
