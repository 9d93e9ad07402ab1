"""The outlook: what will go out, what is going out, and what needs a person."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import Session, aliased, contains_eager

from mcs.core import words
from mcs.models import Campaign, Delivery, Emailer, Import, Scenario, Slice
from mcs.services import audiences, reach, subjects
from mcs.services.planning import intended, stands
from mcs.services.reach import NOBODY_YET, Reach

# Local dates and UTC ones differ by less than a day either way.
A_DAY = timedelta(days=1)
# Further on the home page names the rest by its number only.
MOST_NEEDS = 20


@dataclass(frozen=True)
class Upcoming:
    """A scenario that will go out at ``at`` (UTC), to ``recipients`` contacts as of now."""

    scenario: Scenario
    campaign: Campaign
    at: datetime
    recipients: int


@dataclass(frozen=True)
class Going:
    """An emailer under way, and how far it has got."""

    emailer: Emailer
    scenario: Scenario
    reach: Reach


@dataclass(frozen=True)
class Need:
    """Something that waits for a person: where it is (``href``), and a sentence.

    ``kind``: missed, paused (a sending, or the emails of a sequence), in_doubt, overdue (actions of
    a sequence), unready (a campaign), or failed (an upload, or actions).
    """

    kind: str
    name: str
    sentence: str
    href: str


def upcoming(
    session: Session, now: datetime, days: int | None = None, campaign_id: int | None = None
) -> list[Upcoming]:
    """What will go out by itself, in order: of one campaign or all, in the next days or ever.

    A scheduled scenario on the timeline of an active campaign, none of whose sendings has begun.
    """
    rows = []
    reached: dict[tuple[int, int | None], int] = {}
    for scenario, at in coming(session, now, None if campaign_id is None else [campaign_id]):
        if days is not None and at >= now + timedelta(days=days):
            continue
        audience = (scenario.campaign_id, scenario.excludes_id)
        if audience not in reached:
            reached[audience] = audiences.count(session, *audience).reached
        rows.append(Upcoming(scenario, scenario.campaign, at, reached[audience]))
    return rows


def next_by_campaign(
    session: Session, now: datetime, campaign_ids: Sequence[int]
) -> dict[int, datetime]:
    """When each campaign sends next; those that do not are left out."""
    soon: dict[int, datetime] = {}
    for scenario, at in coming(session, now, campaign_ids):
        soon.setdefault(scenario.campaign_id, at)
    return soon


def being_sent(session: Session, campaign_id: int | None = None) -> list[Going]:
    """Emailers that have begun and not ended, paused ones included."""
    query = (
        select(Emailer, Scenario)
        .join(Scenario, Scenario.id == Emailer.scenario_id)
        .where(Emailer.state.in_(("sending", "paused")))
        .order_by(Emailer.scheduled_at)
    )
    if campaign_id is not None:
        query = query.where(Scenario.campaign_id == campaign_id)
    rows = session.execute(query).all()
    reached = reach.of_emailers(session, [emailer.id for emailer, _ in rows])
    return [
        Going(emailer, scenario, reached.get(emailer.id, NOBODY_YET)) for emailer, scenario in rows
    ]


def needs(session: Session, now: datetime) -> list[Need]:
    """What waits for a person, the most pressing first."""
    return [
        *_stopped_emailers(session),
        *_held_sequences(session),
        *_doubts(session),
        *_doubts_of_sequences(session),
        *_late_actions(session, now),
        *_failed_actions(session),
        *_unready_campaigns(session, now),
        *_failed_imports(session, now),
    ]


def coming(
    session: Session, now: datetime, campaign_ids: Collection[int] | None
) -> list[tuple[Scenario, datetime]]:
    """The planner's own decision, of the scenarios none of whose sendings has begun: those of
    some campaigns, or all, in the order in which they go out."""
    begun = exists().where(
        Emailer.scenario_id == Scenario.id,
        Emailer.state != "planned",
        stands(),
    )
    query = (
        select(Scenario)
        .join(Scenario.campaign)
        .options(contains_eager(Scenario.campaign))
        .where(
            Scenario.state == "scheduled",
            Scenario.date >= (now - A_DAY).date(),
            Campaign.active,
            Campaign.archived_at.is_(None),
            ~begun,
        )
    )
    if campaign_ids is not None:
        query = query.where(Scenario.campaign_id.in_(campaign_ids))
    timed = [
        (scenario, at)
        for scenario in session.scalars(query)
        if (at := intended(scenario, scenario.campaign)) is not None and at > now
    ]
    return sorted(timed, key=lambda one: (one[1], one[0].id))


def _stopped_emailers(session: Session) -> list[Need]:
    rows = session.execute(
        select(Emailer, Scenario.name)
        .join(Scenario, Scenario.id == Emailer.scenario_id)
        .where(Emailer.state.in_(("missed", "paused")))
        .order_by(Emailer.scheduled_at.desc())
        .limit(MOST_NEEDS)
    )
    return [
        Need(emailer.state, name, _why_stopped(emailer), f"/emailers/{emailer.id}")
        for emailer, name in rows
    ]


def _why_stopped(emailer: Emailer) -> str:
    if emailer.state == "missed":
        return emailer.notice or "It did not go out at its time: send it now, move it, or skip it."
    return emailer.notice or "Somebody paused it: resume or cancel it."


def _doubts(session: Session) -> list[Need]:
    in_doubt = func.count(Delivery.id)
    rows = session.execute(
        select(Emailer.id, Scenario.name, in_doubt)
        .join(Scenario, Scenario.id == Emailer.scenario_id)
        .join(Delivery, Delivery.emailer_id == Emailer.id)
        .where(Delivery.exception == "in_doubt")
        .group_by(Emailer.id, Scenario.name)
        .order_by(Emailer.id.desc())
        .limit(MOST_NEEDS)
    )
    return [
        _doubt(name, count, f"/emailers/{emailer_id}/doubts") for emailer_id, name, count in rows
    ]


def _doubts_of_sequences(session: Session) -> list[Need]:
    # From the ledger, by its index: a sequence may have as many slices as moments.
    rows = session.execute(
        select(Campaign.id, Campaign.name, func.count(Delivery.id))
        .join(Scenario, Scenario.campaign_id == Campaign.id)
        .join(Slice, Slice.scenario_id == Scenario.id)
        .join(Delivery, Delivery.slice_id == Slice.id)
        .where(Delivery.exception == "in_doubt")
        .group_by(Campaign.id)
        .order_by(Campaign.id.desc())
        .limit(MOST_NEEDS)
    )
    return [
        _doubt(name, count, f"/campaigns/{campaign_id}/sequence/doubts")
        for campaign_id, name, count in rows
    ]


def _doubt(name: str, count: int, href: str) -> Need:
    it = "it" if count == 1 else "them"
    sentence = (
        f"For {words.count(count, 'message')} nobody knows whether the server took {it}:"
        f" settle {it}."
    )
    return Need("in_doubt", name, sentence, href)


def _held_sequences(session: Session) -> list[Need]:
    rows = session.execute(
        select(Campaign.id, Campaign.name, Campaign.notice)
        .where(Campaign.held_at.is_not(None), Campaign.active, Campaign.archived_at.is_(None))
        .order_by(Campaign.held_at.desc())
        .limit(MOST_NEEDS)
    )
    return [
        Need("paused", name, notice, f"/campaigns/{campaign_id}/sequence")
        for campaign_id, name, notice in rows
    ]


def _late_actions(session: Session, now: datetime) -> list[Need]:
    return [
        Need(
            "overdue",
            campaign.name,
            f"{words.count(number, 'action')} of its sequence should have run by now: look whether"
            " a worker runs.",
            f"/campaigns/{campaign.id}/sequence/actions?state=pending",
        )
        for campaign, number in subjects.overdue(session, now)[:MOST_NEEDS]
    ]


def _failed_actions(session: Session) -> list[Need]:
    return [
        Need(
            "failed",
            campaign.name,
            f"{words.count(number, 'action')} of its sequence failed: see why, and try again.",
            f"/campaigns/{campaign.id}/sequence/actions?state=failed",
        )
        for campaign, number in subjects.failed(session)[:MOST_NEEDS]
    ]


def _unready_campaigns(session: Session, now: datetime) -> list[Need]:
    """Active campaigns whose next email could not be sent as things are."""
    found: dict[int, Need] = {}
    for one in upcoming(session, now, days=7):
        gaps = []
        if not one.campaign.from_email or not one.campaign.postal_address.strip():
            gaps.append("the sender is not complete")
        if not one.recipients:
            gaps.append("there is nobody to write to")
        if gaps:
            sentence = f"It sends within a week, but {' and '.join(gaps)}."
            need = Need("unready", one.campaign.name, sentence, f"/campaigns/{one.campaign.id}")
            found.setdefault(one.campaign.id, need)
    return list(found.values())


def _failed_imports(session: Session, now: datetime) -> list[Need]:
    rows = session.execute(
        select(Import, Campaign.name)
        .join(Campaign, Campaign.id == Import.campaign_id)
        .where(Import.state == "failed", Import.created_at > now - timedelta(days=7))
        .where(~_uploaded_since())
        .order_by(Import.id.desc())
        .limit(MOST_NEEDS)
    )
    return [
        Need("failed", f"{one.filename} for {name}", one.error, f"/imports/{one.id}")
        for one, name in rows
    ]


def _uploaded_since() -> ColumnElement[bool]:
    later = aliased(Import)
    return exists().where(later.campaign_id == Import.campaign_id, later.id > Import.id)
