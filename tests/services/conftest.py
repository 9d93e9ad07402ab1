"""The scene of the lane's stories: a campaign that sends this morning, and a lane that sends it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from mcs.config import Settings
from mcs.gateways import smtp
from mcs.gateways.jobqueue import JobQueue
from mcs.models import Campaign, Contact, Delivery, Emailer, Scenario, Slice
from mcs.services import emailers, headway, lane, planning, slice_claims, snapshots
from tests.mail import Mailbox, MailServer
from tests.people import add_campaign, add_contact, add_contacts, add_scenario

LATE_LIMIT = timedelta(minutes=120)
LEASE = timedelta(seconds=45)
NOBODYS_SLICE = 0


@dataclass
class Scene:
    """One campaign with one scenario, whose emailer is what the verbs are about when not told of
    another. The time is ``passed`` after that at which the story begins."""

    session: Session
    queue: JobQueue
    mailbox: Mailbox
    begins: datetime
    given: lane.Surroundings
    campaign: Campaign
    scenario: Scenario
    patch: pytest.MonkeyPatch
    passed: timedelta = timedelta()
    emailer_id: int = 0

    @property
    def now(self) -> datetime:
        return self.begins + self.passed

    @property
    def emailer(self) -> Emailer:
        return self.session.get_one(Emailer, self.emailer_id)

    # Before anything is sent.

    def add(self, *names: str) -> list[Contact]:
        """People of the campaign; Ann is ann@people.example."""
        return [add_contact(self.session, self.campaign, name) for name in names]

    def add_many(self, number: int) -> list[str]:
        """P0 to P<number-1>; their addresses."""
        return [one.email for one in add_contacts(self.session, self.campaign, number)]

    def set(self, **settings: Any) -> None:
        """Change what the lane is set to."""
        self.given = replace(self.given, settings=replace(self.given.settings, **settings))

    def slices_of(self, size: int) -> None:
        """Part what is started from now on into slices of so many."""
        self.patch.setattr(snapshots, "LARGEST_SLICE", size)

    def plan(self) -> list[int]:
        """Plan the day; the new emailers."""
        return planning.plan_day(self.session, self.now, self.queue)

    def send(self, emailer_id: int) -> None:
        emailers.send(self.session, self.now, self.queue, emailer_id, LATE_LIMIT)

    def start(self) -> None:
        """Plan the day and start its one emailer."""
        (self.emailer_id,) = self.plan()
        self.send(self.emailer_id)

    def start_all(self) -> None:
        """Plan the day and start all its emailers."""
        for emailer_id in self.plan():
            self.send(emailer_id)

    def resume(self) -> None:
        emailers.resume(self.session, self.now, self.queue, self.emailer_id, LATE_LIMIT)

    # Sending.

    def deliver(self) -> None:
        """Ring for each slice of the emailer."""
        for slice_id in self.slice_ids():
            lane.deliver(self.given, slice_id)

    def deliver_due(self, until: Callable[[], bool] = lambda: False, seconds: float = 30) -> None:
        """Ring once, for nobody's slice, which serves what is due. The worker is told to end when
        ``until`` is so, and after so many seconds: a story fails rather than hangs."""
        gives_up = monotonic() + seconds

        def stopping() -> bool:
            return until() or monotonic() > gives_up

        lane.deliver(replace(self.given, stopping=stopping), NOBODYS_SLICE)

    def claim(self) -> tuple[slice_claims.Claim, list[slice_claims.Due]]:
        """Claim as another worker does; the slice, and who is due of it."""
        claim = slice_claims.claim(self.session, self.now, LEASE)
        assert claim is not None
        return claim, slice_claims.load(self.session, self.now, claim)

    # What the ledger says: each time a new look, not the old snapshot.

    def slice_ids(self) -> Sequence[int]:
        ids = select(Slice.id).where(Slice.emailer_id == self.emailer_id).order_by(Slice.id)
        with self.given.sessions() as session:
            return session.scalars(ids).all()

    def claimed(self) -> list[int]:
        """The slices that a lane holds."""
        held = select(Slice.id).where(Slice.claim_token.is_not(None))
        with self.given.sessions() as session:
            return list(session.scalars(held))

    def states(self) -> dict[str, str]:
        """Each contact's name and what became of it."""
        self.session.rollback()
        rows = self.session.execute(
            select(Contact.name, Delivery.state)
            .join(Contact, Contact.id == Delivery.contact_id)
            .where(Delivery.emailer_id == self.emailer_id)
        )
        return dict(rows.all())

    def progress(self, emailer_id: int | None = None) -> headway.Progress:
        self.session.rollback()
        return headway.progress(self.session, emailer_id or self.emailer_id)

    def counted(self, emailer_id: int | None = None) -> dict[str, int]:
        """The slices' counts, which pages show; they must equal the ledger's at every moment."""
        progress = self.progress(emailer_id)
        counts = {
            state: getattr(progress, state)
            for state in ("pending", "sending", "sent", "failed", "in_doubt", "skipped")
        }
        its_own = Delivery.emailer_id == (emailer_id or self.emailer_id)
        ledger = dict.fromkeys(counts, 0)
        for state in self.session.scalars(select(Delivery.state).where(its_own)):
            ledger[state] += 1
        assert counts == ledger
        assert sum(counts.values()) == progress.recipients
        return {state: number for state, number in counts.items() if number}


@pytest.fixture
def scene(
    sessions: sessionmaker[Session],
    session: Session,
    now: datetime,
    queue: JobQueue,
    settings: Settings,
    mail_server: MailServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Scene:
    settings = replace(settings, mail_server="127.0.0.1", mail_port=mail_server.port)
    given = lane.Surroundings(
        sessions=sessions,
        settings=settings,
        server=smtp.server(settings),
        now=lambda: scene.now,
        dice=lambda: 0.5,
        stopping=lambda: False,
        start_due=lambda session: None,
        others_wait=lambda: False,
    )
    campaign = add_campaign(session)
    scenario = add_scenario(session, campaign)
    mailbox = mail_server.mailbox
    scene = Scene(session, queue, mailbox, now, given, campaign, scenario, monkeypatch)
    return scene
