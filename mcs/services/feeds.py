"""Feeds: a claimed slice as a stream of composed letters."""

import logging
from collections import deque
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import NamedTuple

from sqlalchemy.orm import Session

from mcs.config import Settings
from mcs.core import retries
from mcs.core.breaker import Breaker
from mcs.core.message import CannotCompose, Composer, Message
from mcs.models import Campaign, Emailer, Scenario
from mcs.services import email_actions, emailers, letters, pacer, slice_claims
from mcs.services.deliveries import Standing
from mcs.services.pacer import Limit
from mcs.services.slice_claims import Claim, Due, Parent
from mcs.services.steps import Outcome

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Issue:
    """What the letters of one parent share: made once a turn, used by all its slices.

    ``give_up_at`` is an emailer's; ``ends_at`` is when a sequence's letters must have started.
    """

    composer: Composer
    links: letters.Unsubscribing
    give_up_at: datetime | None
    ends_at: datetime | None
    limits: tuple[Limit, ...]
    breaker: Breaker


@dataclass(eq=False)
class Feed:
    """The letters of one claimed slice. ``out`` of them are taken and not yet recorded.

    ``drafts`` are the messages that were composed ahead, by the ids of their deliveries.
    """

    claim: Claim
    issue: Issue
    waiting: deque[Due]
    lease_until: datetime
    out: int = 0
    lost: bool = False
    drafts: dict[int, "_Draft"] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        return not self.out and not self.waiting

    @property
    def give_up_at(self) -> datetime:
        """When trying its letters ends: a day after it began, never past the last day."""
        if self.issue.give_up_at is not None:
            return self.issue.give_up_at
        assert self.claim.begun_at is not None
        assert self.issue.ends_at is not None
        return retries.give_up_at(self.claim.begun_at, self.issue.ends_at)

    def stand(self, standing: Standing | None, lease_until: datetime) -> None:
        """How its slice stood at the last commit; None when another worker has taken it over. What
        it has lost at its end is left to the worker that took it."""
        self.lease_until = lease_until
        if standing is None:
            self.lost = True
            log.warning("slice %d was taken over: this worker stops it", self.claim.slice_id)
        elif standing.high_id < self.claim.high_id:
            self.claim = replace(self.claim, high_id=standing.high_id)
            while self.waiting and self.waiting[-1].id > standing.high_id:
                self.waiting.pop()

    def go_by(self, prepared: Issue) -> None:
        """Compose those that wait by this issue, prepared later."""
        self.issue = prepared
        self.drafts.clear()

    def keep_to(self, limits: tuple[Limit, ...]) -> None:
        """Hold those that wait to other limits."""
        self.issue = replace(self.issue, limits=limits)

    def over(self, now: datetime) -> bool:
        """Whether none of its letters may start any more: the campaign has ended."""
        return self.issue.ends_at is not None and now >= self.issue.ends_at


class _Draft(NamedTuple):
    """What was composed ahead for a delivery: its message, or why there is none."""

    date: datetime
    message: Message | str


@dataclass(slots=True, eq=False)
class Letter:
    """A message on its way to one contact; ``cuts`` is the breaker's count when it was taken."""

    feed: Feed
    due: Due
    message: Message
    cuts: int


def issue(session: Session, settings: Settings, parent: Parent) -> Issue:
    """Prepare the letters of a parent. Raises BadTemplate when none can be made."""
    prepared = (
        _of_sequence(session, settings, parent)
        if parent.emailer_id is None
        else _of_emailer(session, settings, parent.emailer_id)
    )
    session.commit()
    return prepared


def _of_emailer(session: Session, settings: Settings, emailer_id: int) -> Issue:
    emailer = session.get_one(Emailer, emailer_id)
    scenario = emailer.scenario
    give_up_at = emailers.give_up_at(emailer)
    return _issue(settings, scenario.campaign, scenario, emailer.cuts, give_up_at, None)


def _of_sequence(session: Session, settings: Settings, parent: Parent) -> Issue:
    scenario = session.get_one(Scenario, parent.scenario_id)
    campaign = scenario.campaign
    ends_at = email_actions.ends(campaign.end_date, campaign.timezone)
    return _issue(settings, campaign, scenario, campaign.cuts, None, ends_at)


def _issue(
    settings: Settings,
    campaign: Campaign,
    scenario: Scenario,
    cuts: int,
    give_up_at: datetime | None,
    ends_at: datetime | None,
) -> Issue:
    return Issue(
        composer=Composer(letters.template(settings, campaign, scenario)),
        links=letters.Unsubscribing(settings, campaign.uid),
        give_up_at=give_up_at,
        ends_at=ends_at,
        limits=pacer.limits(settings, campaign.id, campaign.send_rate),
        breaker=Breaker(cuts),
    )


def feed(session: Session, now: datetime, claim: Claim, prepared: Issue, lease: timedelta) -> Feed:
    """The due letters of a slice claimed at ``now``."""
    return Feed(claim, prepared, deque(slice_claims.load(session, now, claim)), now + lease)


def compose_ahead(feed: Feed, number: int, now: datetime) -> None:
    """Have the messages of the next letters ready before they are asked for."""
    date = _date(now)
    for due in islice(feed.waiting, number):
        if due.id not in feed.drafts:
            feed.drafts[due.id] = _Draft(date, _composed(feed, due, date))


def compose(feed: Feed, due: Due, now: datetime) -> Letter | Outcome:
    """The letter for one delivery; or, for a contact that none can be made for, its failure."""
    date = _date(now)
    draft = feed.drafts.pop(due.id, None)
    message = draft.message if draft and draft.date == date else _composed(feed, due, date)
    if isinstance(message, str):
        return Outcome(due.id, "failed", now, reason=f"no message could be made: {message}")
    return Letter(feed, due, message, feed.issue.breaker.cuts)


def _composed(feed: Feed, due: Due, date: datetime) -> Message | str:
    """The message, or why none could be made."""
    try:
        return feed.issue.composer.compose(letters.person(due, feed.issue.links), date)
    except CannotCompose as error:
        return error.reason
    except Exception:
        # Whatever it is about this contact that nobody thought of: it must not stop the others.
        log.exception("no message could be made for delivery %d", due.id)
        return "see the log"


def _date(now: datetime) -> datetime:
    """By the second, which is all that a Date says: so the composer writes it once a second."""
    return now.replace(microsecond=0)
