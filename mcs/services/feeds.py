"""Feeds: a claimed slice as a stream of composed letters."""

import logging
from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from mcs.config import Settings
from mcs.core.breaker import Breaker
from mcs.core.message import CannotCompose, Composer, Message
from mcs.models import Emailer
from mcs.services import deliveries, emailers, letters, pacer
from mcs.services.deliveries import Claim, Due
from mcs.services.pacer import Limit
from mcs.services.steps import Outcome

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Issue:
    """What the letters of one emailer share: made once a lane, used by all its slices."""

    composer: Composer
    links: letters.Unsubscribing
    give_up_at: datetime
    limits: tuple[Limit, ...]
    breaker: Breaker


@dataclass(eq=False)
class Feed:
    """The letters of one claimed slice. ``out`` of them are taken and not yet recorded."""

    claim: Claim
    issue: Issue
    waiting: deque[Due]
    lease_until: datetime
    out: int = 0
    lost: bool = False

    @property
    def done(self) -> bool:
        return not self.out and not self.waiting


@dataclass(slots=True, eq=False)
class Letter:
    """A message on its way to one contact; ``cuts`` is the breaker's count when it was taken."""

    feed: Feed
    due: Due
    message: Message
    cuts: int


def issue(session: Session, settings: Settings, emailer_id: int) -> Issue:
    """Prepare the letters of an emailer. Raises BadTemplate when none can be made."""
    emailer = session.get_one(Emailer, emailer_id)
    scenario = emailer.scenario
    campaign = scenario.campaign
    prepared = Issue(
        composer=Composer(letters.template(settings, campaign, scenario)),
        links=letters.Unsubscribing(settings, campaign.uid),
        give_up_at=emailers.give_up_at(emailer),
        limits=pacer.limits(settings, campaign),
        breaker=Breaker(emailer.cuts),
    )
    session.commit()
    return prepared


def feed(session: Session, now: datetime, claim: Claim, prepared: Issue, lease: timedelta) -> Feed:
    """The due letters of a slice claimed at ``now``."""
    return Feed(claim, prepared, deque(deliveries.load(session, now, claim)), now + lease)


def compose(feed: Feed, due: Due, now: datetime) -> Letter | Outcome:
    """The letter for one delivery; or, for a contact that none can be made for, its failure."""
    try:
        # By the second, which is all a Date says: so the composer writes it once a second.
        message = feed.issue.composer.compose(
            letters.person(due, feed.issue.links), now.replace(microsecond=0)
        )
    except CannotCompose as error:
        return Outcome(due.id, "failed", now, reason=f"no message could be made: {error.reason}")
    except Exception:
        # Whatever it is about this contact that nobody thought of: it must not stop the others.
        log.exception("no message could be made for delivery %d", due.id)
        return Outcome(due.id, "failed", now, reason="no message could be made: see the log")
    return Letter(feed, due, message, feed.issue.breaker.cuts)
