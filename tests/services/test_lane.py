"""The lane against a real SMTP server: whom it serves, what the ledger says afterwards."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from threading import Event
from time import monotonic, sleep
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from mcs.config import Settings
from mcs.core.tokens import Recipient
from mcs.gateways import smtp
from mcs.gateways.jobqueue import JOBS, JobQueue
from mcs.models import Campaign, Contact, Delivery, Emailer, Scenario, Slice, Suppression
from mcs.services import deliveries, emailers, feeds, lane, planning, suppressions
from mcs.services.feeds import Letter
from mcs.services.steps import Outcome
from mcs.services.talk import Talk
from tests.conftest import wait_until
from tests.mail import MailServer
from tests.people import add_campaign, add_contact, add_contacts, add_scenario

LATE_LIMIT = timedelta(minutes=120)
Run = Callable[[], None]


@pytest.fixture
def campaign(session: Session) -> Campaign:
    return add_campaign(session)


@pytest.fixture
def scenario(session: Session, campaign: Campaign) -> Scenario:
    return add_scenario(session, campaign)


@pytest.fixture
def given(
    sessions: sessionmaker[Session], settings: Settings, mail_server: MailServer, now: datetime
) -> lane.Surroundings:
    settings = replace(settings, mail_server="127.0.0.1", mail_port=mail_server.port)
    return lane.Surroundings(
        sessions=sessions,
        settings=settings,
        server=smtp.server(settings),
        now=lambda: now,
        dice=lambda: 0.5,
        stopping=lambda: False,
        start_due=lambda session: None,
        others_wait=lambda: False,
    )


def start(session: Session, now: datetime, queue: JobQueue) -> int:
    """Plan the day and start its one emailer; its id."""
    (emailer_id,) = planning.plan_day(session, now, queue)
    emailers.send(session, now, queue, emailer_id, LATE_LIMIT)
    return emailer_id


def deliver(given: lane.Surroundings, emailer_id: int) -> None:
    with given.sessions() as session:
        slice_ids = session.scalars(select(Slice.id).where(Slice.emailer_id == emailer_id)).all()
    for slice_id in slice_ids:
        lane.deliver(given, slice_id)


def states(session: Session, emailer_id: int) -> dict[str, str]:
    """Each contact's name and what became of it."""
    session.rollback()  # a new look, not the old snapshot
    rows = session.execute(
        select(Contact.name, Delivery.state)
        .join(Contact, Contact.id == Delivery.contact_id)
        .where(Delivery.emailer_id == emailer_id)
    )
    return dict(rows.all())


def counted(session: Session, emailer_id: int) -> dict[str, int]:
    """The slices' counts, which pages show; they must equal the ledger's at every moment."""
    session.rollback()  # a new look, not the old snapshot
    progress = emailers.progress(session, emailer_id)
    counts = {
        state: getattr(progress, state)
        for state in ("pending", "sending", "sent", "failed", "in_doubt", "skipped")
    }
    ledger = dict.fromkeys(counts, 0)
    for state in states_of_all(session, emailer_id):
        ledger[state] += 1
    assert counts == ledger
    assert sum(counts.values()) == progress.recipients
    return {state: number for state, number in counts.items() if number}


def states_of_all(session: Session, emailer_id: int) -> list[str]:
    return list(
        session.scalars(select(Delivery.state).where(Delivery.emailer_id == emailer_id)).all()
    )


def test_ann_and_bob_are_served_and_charlie_who_unsubscribed_is_not(
    session: Session,
    now: datetime,
    queue: JobQueue,
    given: lane.Surroundings,
    mail_server: MailServer,
    campaign: Campaign,
    scenario: Scenario,
) -> None:
    for name in ("Ann", "Bob"):
        add_contact(session, campaign, name)
    charlie = add_contact(session, campaign, "Charlie")
    suppressions.unsubscribe(session, now, Recipient(charlie.uid, campaign.uid))

    emailer_id = start(session, now, queue)
    deliver(given, emailer_id)

    assert mail_server.mailbox.recipients == ["ann@people.example", "bob@people.example"]
    assert states(session, emailer_id) == {"Ann": "sent", "Bob": "sent", "Charlie": "skipped"}
    assert counted(session, emailer_id) == {"sent": 2, "skipped": 1}
    emailer = session.get_one(Emailer, emailer_id)
    assert (emailer.state, emailer.recipients) == ("sent", 3)
    assert session.get_one(Scenario, scenario.id).contacts_served == 2
    ann = next(m for m in mail_server.mailbox.caught if m.recipient.startswith("ann"))
    delivery = session.scalars(
        select(Delivery)
        .join(Contact, Contact.id == Delivery.contact_id)
        .where(Contact.name == "Ann")
    ).one()
    assert ann.delivery == delivery.message_id
    assert ann.message["Subject"] == "Hello Ann"
    assert (delivery.reply_code, delivery.attempts) == (250, 1)


def test_every_job_twice_is_harmless(
    session: Session,
    now: datetime,
    queue: JobQueue,
    given: lane.Surroundings,
    mail_server: MailServer,
    campaign: Campaign,
    scenario: Scenario,
) -> None:
    add_contact(session, campaign, "Ann")
    emailer_id = start(session, now, queue)
    assert planning.plan_day(session, now, queue) == []
    emailers.send(session, now, queue, emailer_id, LATE_LIMIT)
    deliver(given, emailer_id)
    deliver(given, emailer_id)
    emailers.finish(session, now, emailer_id)
    assert mail_server.mailbox.recipients == ["ann@people.example"]
    assert counted(session, emailer_id) == {"sent": 1}


@pytest.mark.parametrize("connections", [1, 3, 40])
def test_each_of_five_hundred_gets_one(
    session: Session,
    now: datetime,
    queue: JobQueue,
    given: lane.Surroundings,
    mail_server: MailServer,
    campaign: Campaign,
    scenario: Scenario,
    connections: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(emailers, "SLICE_SIZE", 90)
    contacts = [contact.email for contact in add_contacts(session, campaign, 500)]
    emailer_id = start(session, now, queue)
    given = replace(given, settings=replace(given.settings, smtp_connections=connections))
    deliver(given, emailer_id)
    assert mail_server.mailbox.recipients == sorted(contacts)
    assert counted(session, emailer_id) == {"sent": 500}


@pytest.mark.parametrize(
    ("at", "reply", "state", "reason"),
    [
        ("rcpt", "550 5.1.1 No such user", "failed", "there is no such address"),
        ("rcpt", "552 5.2.2 Mailbox full", "failed", "the mailbox does not take mail"),
        ("rcpt", "450 4.2.0 Greylisted", "pending", "the mail server asks to try later"),
        ("dot", "554 5.6.0 Not like this", "failed", "the message was refused"),
        ("dot", "451 4.3.0 Try later", "pending", "the mail server asks to try later"),
        ("dot", "452 4.3.1 No room", "pending", "the mail server asks to slow down"),
    ],
)
def test_a_refusal_of_bob_is_bobs_alone(
    session: Session,
    now: datetime,
    queue: JobQueue,
    given: lane.Surroundings,
    mail_server: MailServer,
    campaign: Campaign,
    scenario: Scenario,
    at: str,
    reply: str,
    state: str,
    reason: str,
) -> None:
    for name in ("Ann", "Bob", "Cleo"):
        add_contact(session, campaign, name)

    def answer(recipient: str) -> str:
        return reply if recipient.startswith("bob") else ""

    setattr(mail_server.mailbox, f"at_{at}", answer)
    given = replace(given, settings=replace(given.settings, smtp_connections=1))
    emailer_id = start(session, now, queue)
    deliver(given, emailer_id)
    if "slow down" in reason:
        # The server wants no more for now: the others go a little later.
        given = replace(given, now=lambda: now + timedelta(seconds=25))
        deliver(given, emailer_id)
    assert states(session, emailer_id) == {"Ann": "sent", "Bob": state, "Cleo": "sent"}
    counted(session, emailer_id)
    bob = session.scalars(select(Delivery).where(Delivery.state == state)).one()
    assert (bob.reason, bob.reply_code, bob.attempts) == (reason, int(reply[:3]), 1)
    bounced = session.scalars(select(Suppression.reason)).all()
    assert bounced == (["bounced"] if "5.1.1" in reply else [])

    if state == "pending":
        setattr(mail_server.mailbox, f"at_{at}", lambda recipient: "")
        later = now + timedelta(minutes=2)
        deliver(replace(given, now=lambda: later), emailer_id)
        assert states(session, emailer_id)["Bob"] == "sent"
        assert session.get_one(Emailer, emailer_id).state == "sent"
        ids = [caught.delivery for caught in mail_server.mailbox.caught]
        assert len(set(ids)) == 3


def test_a_server_that_is_away_loses_nobody(
    session: Session,
    now: datetime,
    queue: JobQueue,
    given: lane.Surroundings,
    mail_server: MailServer,
    campaign: Campaign,
    scenario: Scenario,
) -> None:
    add_contact(session, campaign, "Ann")
    emailer_id = start(session, now, queue)
    deliver(replace(given, server=replace(given.server, port=1)), emailer_id)
    assert counted(session, emailer_id) == {"pending": 1}
    assert "cannot be reached" in emailers.progress(session, emailer_id).notice
    deliver(replace(given, now=lambda: now + timedelta(seconds=30)), emailer_id)
    assert counted(session, emailer_id) == {"sent": 1}
    assert emailers.progress(session, emailer_id).notice == ""


def test_a_server_that_takes_five_a_connection_gets_five_a_connection(
    session: Session,
    now: datetime,
    queue: JobQueue,
    given: lane.Surroundings,
    mail_server: MailServer,
    campaign: Campaign,
    scenario: Scenario,
) -> None:
    """As MailerSend does, Amazon SES says, and Exim can be told to."""
    mail_server.mailbox.share = 5
    contacts = [contact.email for contact in add_contacts(session, campaign, 43)]
    emailer_id = start(session, now, queue)
    deliver(given, emailer_id)
    assert counted(session, emailer_id) == {"sent": 43}
    assert mail_server.mailbox.recipients == sorted(contacts)
    assert set(session.scalars(select(Delivery.attempts))) == {1}
    assert emailers.progress(session, emailer_id).notice == ""


def test_the_last_letter_too_goes_over_a_new_connection(
    session: Session,
    now: datetime,
    queue: JobQueue,
    given: lane.Surroundings,
    mail_server: MailServer,
    campaign: Campaign,
    scenario: Scenario,
) -> None:
    """Nothing seems to be left while the server thinks about Ann and the connection has Bob."""

    def slowly(_recipient: str) -> str:
        sleep(2 * lane.KEEPER_SECONDS)
        return ""

    mail_server.mailbox.share, mail_server.mailbox.at_dot = 1, slowly
    for name in ("Ann", "Bob"):
        add_contact(session, campaign, name)
    emailer_id = start(session, now, queue)
    deliver(replace(given, settings=replace(given.settings, smtp_connections=1)), emailer_id)
    assert counted(session, emailer_id) == {"sent": 2}


def test_pause_stops_and_resume_goes_on(
    session: Session,
    now: datetime,
    queue: JobQueue,
    given: lane.Surroundings,
    mail_server: MailServer,
    campaign: Campaign,
    scenario: Scenario,
) -> None:
    add_contacts(session, campaign, 20)
    emailer_id = start(session, now, queue)

    def pause_at_the_fifth(_recipient: str) -> str:
        if len(mail_server.mailbox.caught) == 4:
            with given.sessions() as other:
                emailers.pause(other, now, emailer_id)
        return ""

    mail_server.mailbox.at_dot = pause_at_the_fifth
    given = replace(given, settings=replace(given.settings, smtp_connections=1))
    deliver(given, emailer_id)
    assert counted(session, emailer_id) == {"sent": 5, "pending": 15}
    assert session.get_one(Emailer, emailer_id).state == "paused"
    mail_server.mailbox.at_dot = lambda recipient: ""
    emailers.resume(session, now, queue, emailer_id, LATE_LIMIT)
    deliver(given, emailer_id)
    assert counted(session, emailer_id) == {"sent": 20}


def test_cancel_half_way_skips_the_rest(
    session: Session,
    now: datetime,
    queue: JobQueue,
    given: lane.Surroundings,
    mail_server: MailServer,
    campaign: Campaign,
    scenario: Scenario,
) -> None:
    add_contacts(session, campaign, 10)
    emailer_id = start(session, now, queue)

    def cancel_at_the_third(_recipient: str) -> str:
        if len(mail_server.mailbox.caught) == 2:
            with given.sessions() as other:
                emailers.cancel(other, now, emailer_id)
        return ""

    mail_server.mailbox.at_dot = cancel_at_the_third
    given = replace(given, settings=replace(given.settings, smtp_connections=1))
    deliver(given, emailer_id)
    assert counted(session, emailer_id) == {"sent": 3, "skipped": 7}
    assert session.get_one(Emailer, emailer_id).state == "cancelled"
    assert session.get_one(Scenario, scenario.id).contacts_served == 3


def test_a_dead_workers_slice_is_rescued_with_its_doubt(
    session: Session,
    now: datetime,
    queue: JobQueue,
    given: lane.Surroundings,
    mail_server: MailServer,
    campaign: Campaign,
    scenario: Scenario,
) -> None:
    for name in ("Ann", "Bob", "Cleo"):
        add_contact(session, campaign, name)
    emailer_id = start(session, now, queue)
    lease = timedelta(seconds=45)
    claim = deliveries.claim(session, now, lease)
    assert claim is not None
    ann, *_rest = deliveries.load(session, now, claim)
    step = deliveries.Step(claim, starts=[ann.id])
    assert deliveries.advance(session, now, lease, [step]) == ({ann.id}, [])

    # Nobody touches it while the lease lasts; then it is rescued, once.
    deliver(given, emailer_id)
    assert counted(session, emailer_id) == {"sending": 1, "pending": 2}
    later = now + timedelta(seconds=46)
    assert deliveries.rescue(session, later, "hold") == {deliveries.Parent(emailer_id)}
    assert deliveries.rescue(session, later, "hold") == set()
    deliver(replace(given, now=lambda: later), emailer_id)
    assert counted(session, emailer_id) == {"sent": 2, "in_doubt": 1}
    assert mail_server.mailbox.recipients == ["bob@people.example", "cleo@people.example"]

    # The frozen worker wakes: it starts nothing, but what it knows to be accepted counts.
    stale = deliveries.Step(claim, starts=[ann.id])
    assert deliveries.advance(session, later, lease, [stale]) == (set(), [stale])
    accepted = Outcome(ann.id, "sent", later, reply_code=250)
    deliveries.settle_late(session, later, claim, [accepted])
    assert counted(session, emailer_id) == {"sent": 3}


def test_resend_sends_the_doubtful_again_with_its_message_id(
    session: Session,
    now: datetime,
    queue: JobQueue,
    given: lane.Surroundings,
    mail_server: MailServer,
    campaign: Campaign,
    scenario: Scenario,
) -> None:
    add_contact(session, campaign, "Ann")
    emailer_id = start(session, now, queue)
    lease = timedelta(seconds=45)
    claim = deliveries.claim(session, now, lease)
    assert claim is not None
    (ann,) = deliveries.load(session, now, claim)
    deliveries.advance(session, now, lease, [deliveries.Step(claim, starts=[ann.id])])
    later = now + timedelta(seconds=46)
    deliveries.rescue(session, later, "resend")
    deliver(replace(given, now=lambda: later), emailer_id)
    assert counted(session, emailer_id) == {"sent": 1}
    (caught,) = mail_server.mailbox.caught
    assert caught.delivery == ann.opaque


def test_unsubscribing_takes_back_what_is_pending(
    session: Session,
    now: datetime,
    queue: JobQueue,
    given: lane.Surroundings,
    mail_server: MailServer,
    campaign: Campaign,
    scenario: Scenario,
) -> None:
    ann = add_contact(session, campaign, "Ann")
    add_contact(session, campaign, "Bob")
    emailer_id = start(session, now, queue)
    link = Recipient(ann.uid, campaign.uid)
    assert suppressions.unsubscribe(session, now, link)
    assert suppressions.unsubscribe(session, now, link)
    assert counted(session, emailer_id) == {"pending": 1, "skipped": 1}
    deliver(given, emailer_id)
    assert mail_server.mailbox.recipients == ["bob@people.example"]
    assert emailers.progress(session, emailer_id).skipped_by_reason == {"unsubscribed": 1}


def test_who_holds_the_emailer_does_not_hold_up_the_lane(
    sessions: sessionmaker[Session],
    session: Session,
    now: datetime,
    queue: JobQueue,
    campaign: Campaign,
    scenario: Scenario,
) -> None:
    """A cancel holds the emailer and waits for slices: a lane must not wait for the emailer."""
    for name in ("Ann", "Bob"):
        add_contact(session, campaign, name)
    emailer_id = start(session, now, queue)
    if session.get_bind().dialect.name == "sqlite":
        return  # It has one lock, for all writers.
    lease = timedelta(seconds=45)
    claim = deliveries.claim(session, now, lease)
    assert claim is not None
    ann, bob = deliveries.load(session, now, claim)
    failed = Outcome(ann.id, "failed", now, reason="the mailbox does not take mail")
    step = deliveries.Step(claim, refusals=[failed], starts=[bob.id])
    with sessions() as canceller, sessions() as lane_session:
        emailers.locked(canceller, emailer_id)
        lane_session.connection().exec_driver_sql("SET lock_timeout = '3s'")
        lane_session.commit()
        started, _lost = deliveries.advance(lane_session, now, lease, [step])
    assert started == {bob.id}


def test_a_lane_that_began_with_one_letter_opens_more_connections_for_more(
    session: Session,
    now: datetime,
    queue: JobQueue,
    given: lane.Surroundings,
    mail_server: MailServer,
    campaign: Campaign,
    scenario: Scenario,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = []
    connect = smtp.connect

    async def count(server: smtp.Server) -> smtp.Connection:
        opened.append(server)
        return await connect(server)

    monkeypatch.setattr(smtp, "connect", count)
    monkeypatch.setattr(emailers, "SLICE_SIZE", 90)
    add_contacts(session, campaign, 181)
    emailer_id = start(session, now, queue)
    *_full, last = session.scalars(select(Slice.id).order_by(Slice.id)).all()
    session.rollback()
    lane.deliver(replace(given, settings=replace(given.settings, smtp_connections=3)), last)
    assert counted(session, emailer_id) == {"sent": 181}
    # How many more depends on how fast a busy machine connects.
    assert len(opened) > 1


def test_a_talk_with_a_defect_ends_the_lane_and_loses_nobody(
    session: Session,
    now: datetime,
    queue: JobQueue,
    given: lane.Surroundings,
    mail_server: MailServer,
    campaign: Campaign,
    scenario: Scenario,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_contacts(session, campaign, 30)
    emailer_id = start(session, now, queue)

    class Defective(Talk):
        async def converse(self, first: Letter) -> None:
            if first.due.email == "p0@people.example":
                raise ArithmeticError
            await super().converse(first)

    monkeypatch.setattr(lane, "Talk", Defective)
    with pytest.raises(ArithmeticError):
        deliver(given, emailer_id)
    assert "in_doubt" not in counted(session, emailer_id)
    monkeypatch.setattr(lane, "Talk", Talk)
    deliver(given, emailer_id)
    assert counted(session, emailer_id) == {"sent": 30}
    assert len(set(mail_server.mailbox.recipients)) == len(mail_server.mailbox.recipients) == 30


@dataclass
class TurnStory:
    """Ann and nine others, and a turn that ends while the server thinks of Ann."""

    session: Session
    now: datetime
    queue: JobQueue
    given: lane.Surroundings
    mail_server: MailServer
    campaign: Campaign
    passed: timedelta = timedelta()
    answers: Event = field(default_factory=Event)

    def play(
        self,
        others_wait: bool,
        goes_by: timedelta,
        meanwhile: Callable[[str], None] = lambda recipient: None,
        connections: int = 1,
    ) -> int:
        add_contact(self.session, self.campaign, "Ann")
        add_contacts(self.session, self.campaign, 9)
        emailer_id = start(self.session, self.now, self.queue)
        asked = Event()

        def ask() -> bool:
            asked.set()
            self.answers.wait(10)
            return others_wait

        def think(recipient: str) -> str:
            meanwhile(recipient)
            if recipient.startswith("ann"):
                self.passed = goes_by
                assert asked.wait(10)
            return ""

        self.mail_server.mailbox.at_dot = think
        given = replace(
            self.given,
            settings=replace(self.given.settings, smtp_connections=connections),
            now=lambda: self.now + self.passed,
            others_wait=ask,
        )
        deliver(given, emailer_id)
        return emailer_id


A_TURN = lane.TURN + timedelta(seconds=1)


@pytest.fixture
def turn(
    session: Session,
    now: datetime,
    queue: JobQueue,
    given: lane.Surroundings,
    mail_server: MailServer,
    campaign: Campaign,
    scenario: Scenario,
) -> TurnStory:
    story = TurnStory(session, now, queue, given, mail_server, campaign)
    story.answers.set()
    return story


def test_at_the_end_of_its_turn_a_lane_goes_on_if_nobody_else_waits(turn: TurnStory) -> None:
    emailer_id = turn.play(others_wait=False, goes_by=A_TURN)
    assert counted(turn.session, emailer_id) == {"sent": 10}


def test_at_the_end_of_its_turn_a_lane_gives_way_to_other_jobs(turn: TurnStory) -> None:
    emailer_id = turn.play(others_wait=True, goes_by=A_TURN)
    counts = counted(turn.session, emailer_id)
    assert counts == {"sent": 10 - counts["pending"], "pending": counts["pending"]}
    assert turn.session.scalars(select(Slice.claim_token)).all() == [None]


def test_a_redis_that_hangs_ends_no_lane(turn: TurnStory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "ASKING_SECONDS", 0.01)
    turn.answers.clear()

    def answer_at_last(_recipient: str) -> None:
        if len(turn.mail_server.mailbox.caught) == 9:
            turn.answers.set()

    emailer_id = turn.play(others_wait=True, goes_by=A_TURN, meanwhile=answer_at_last)
    assert counted(turn.session, emailer_id) == {"sent": 10}


def test_a_lane_ends_before_its_worker_takes_it_for_stuck(turn: TurnStory) -> None:
    turn.given = replace(turn.given, settings=replace(turn.given.settings, lease_seconds=3600))
    emailer_id = turn.play(others_wait=False, goes_by=lane.LONGEST + timedelta(seconds=1))
    assert counted(turn.session, emailer_id)["pending"]
    assert timedelta(seconds=JOBS["mcs.jobs.deliver_slice"].stuck_after) > lane.LONGEST


def test_what_people_change_meanwhile_counts_from_the_next_turn_on(
    turn: TurnStory, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_by, anew = feeds.Feed.go_by, Event()

    def noted(feed: feeds.Feed, prepared: feeds.Issue) -> None:
        go_by(feed, prepared)
        anew.set()

    def rename(recipient: str) -> None:
        if recipient.startswith("ann"):
            with turn.given.sessions() as other:
                other.get_one(Campaign, turn.campaign.id).from_name = "Ada's New Shop"
                other.commit()
        else:
            assert anew.wait(10)

    monkeypatch.setattr(feeds.Feed, "go_by", noted)
    emailer_id = turn.play(others_wait=False, goes_by=A_TURN, meanwhile=rename)
    assert counted(turn.session, emailer_id) == {"sent": 10}
    caught = turn.mail_server.mailbox.caught
    assert "New Shop" not in str(caught[0].message["From"])
    assert "New Shop" in str(caught[-1].message["From"])


def test_an_emailer_does_not_run_dry_beside_one_that_waits_for_its_rate(
    session: Session,
    now: datetime,
    queue: JobQueue,
    given: lane.Surroundings,
    mail_server: MailServer,
    campaign: Campaign,
    scenario: Scenario,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(emailers, "SLICE_SIZE", 5)
    monkeypatch.setattr(lane, "LETTERS_AHEAD", 2)
    slow = add_campaign(session, uid="slow", send_rate=0.01)
    add_scenario(session, slow)
    for name in ("Ann", "Bob", "Cleo", "Dora"):
        add_contact(session, slow, name)
    add_contacts(session, campaign, 15)
    for emailer_id in planning.plan_day(session, now, queue):
        emailers.send(session, now, queue, emailer_id, LATE_LIMIT)
    claimed = select(Slice.id).where(Slice.claim_token.is_not(None))

    def its_next_slice_is_claimed() -> bool:
        with given.sessions() as other:
            return len(other.scalars(claimed).all()) == 3

    def think_of_the_last_but_one(recipient: str) -> str:
        if recipient.startswith("p3@"):
            wait_until(its_next_slice_is_claimed)
        return ""

    mail_server.mailbox.at_dot = think_of_the_last_but_one
    gives_up = monotonic() + 30
    lane.deliver(
        replace(
            given,
            settings=replace(given.settings, smtp_connections=1),
            stopping=lambda: len(mail_server.mailbox.caught) == 16 or monotonic() > gives_up,
        ),
        0,
    )
    assert len(mail_server.mailbox.caught) == 16


def test_one_of_many_small_slices_leaves_room_for_the_others(
    session: Session,
    now: datetime,
    queue: JobQueue,
    given: lane.Surroundings,
    campaign: Campaign,
    scenario: Scenario,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the steps of a sequence that was held for a day have, and all of them older."""
    add_contacts(session, campaign, 30)
    add_scenario(session, campaign, name="Another")
    many, other = planning.plan_day(session, now, queue)
    for emailer_id, size in ((many, 1), (other, 10)):
        monkeypatch.setattr(emailers, "SLICE_SIZE", size)
        emailers.send(session, now, queue, emailer_id, LATE_LIMIT)
    claim, claimed = deliveries.claim, []

    def noted(*asked: Any) -> deliveries.Claim | None:
        found = claim(*asked)
        if found is not None:
            claimed.append(found.parent.emailer_id)
        return found

    monkeypatch.setattr(deliveries, "claim", noted)
    lane.deliver(given, 0)
    assert claimed[:6] == [many, other] * 3
    assert counted(session, many) == counted(session, other) == {"sent": 30}


def test_a_lane_does_not_end_while_there_is_more_to_claim(
    session: Session,
    now: datetime,
    queue: JobQueue,
    given: lane.Surroundings,
    campaign: Campaign,
    scenario: Scenario,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though all that one look may claim is sent before the look is over."""
    monkeypatch.setattr(emailers, "SLICE_SIZE", 1)
    add_contacts(session, campaign, lane.CLAIMS_AT_ONCE + 5)
    emailer_id = start(session, now, queue)
    claim = lane.Lane._claim

    async def claim_and_see_it_sent(self: lane.Lane, *asked: Any) -> feeds.Feed | None:
        feed = await claim(self, *asked)
        while feed is not None and not feed.done and self._talks:
            await asyncio.sleep(0.01)
        return feed

    monkeypatch.setattr(lane.Lane, "_claim", claim_and_see_it_sent)
    lane.deliver(given, 0)
    assert counted(session, emailer_id) == {"sent": lane.CLAIMS_AT_ONCE + 5}


def test_who_waited_for_a_rate_that_is_taken_away_waits_no_longer(
    session: Session,
    now: datetime,
    queue: JobQueue,
    given: lane.Surroundings,
    mail_server: MailServer,
    campaign: Campaign,
    scenario: Scenario,
) -> None:
    campaign.send_rate = 0.01
    add_contacts(session, campaign, 5)
    emailer_id = start(session, now, queue)
    passed, gives_up = [timedelta()], monotonic() + 10

    def take_the_rate_away() -> None:
        wait_until(lambda: "sent" in states(session, emailer_id).values())
        campaign.send_rate = None
        session.commit()
        passed.append(A_TURN)

    with ThreadPoolExecutor(1) as person:
        doing = person.submit(take_the_rate_away)
        moved = replace(
            given, now=lambda: now + passed[-1], stopping=lambda: monotonic() > gives_up
        )
        lane.deliver(moved, 0)
        doing.result()
    assert counted(session, emailer_id) == {"sent": 5}


def test_a_connection_that_the_server_did_not_want_is_tried_again_the_next_turn(
    turn: TurnStory, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, connect = [], smtp.connect

    async def one_at_a_time(server: smtp.Server) -> smtp.Connection:
        opened.append(server)
        if len(opened) == 2:
            raise smtp.Unreachable("too many connections")
        return await connect(server)

    def wait_for_the_second(recipient: str) -> None:
        wait_until(lambda: len(opened) > (1 if recipient.startswith("ann") else 2))

    monkeypatch.setattr(smtp, "connect", one_at_a_time)
    emailer_id = turn.play(False, A_TURN, meanwhile=wait_for_the_second, connections=2)
    assert counted(turn.session, emailer_id) == {"sent": 10}
    assert len(opened) == 3


def test_a_ring_for_what_was_served_long_ago_serves_what_is_due(
    session: Session,
    now: datetime,
    queue: JobQueue,
    given: lane.Surroundings,
    campaign: Campaign,
    scenario: Scenario,
) -> None:
    """Else fifty of them, that a lane left behind, keep a worker from the slices for seconds."""
    add_contact(session, campaign, "Ann")
    emailer_id = start(session, now, queue)
    nobodys_slice = 0
    lane.deliver(given, nobodys_slice)
    assert counted(session, emailer_id) == {"sent": 1}


def test_emailers_take_turns_by_the_letter_and_the_slices_of_one_by_the_slice(
    session: Session,
    now: datetime,
    queue: JobQueue,
    given: lane.Surroundings,
    mail_server: MailServer,
    campaign: Campaign,
    scenario: Scenario,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(emailers, "SLICE_SIZE", 5)
    monkeypatch.setattr(lane, "LETTERS_AHEAD", 40)
    add_contacts(session, campaign, 20)
    add_scenario(session, campaign, name="Another")
    for emailer_id in planning.plan_day(session, now, queue):
        emailers.send(session, now, queue, emailer_id, LATE_LIMIT)

    unclaimed = select(Slice.id).where(Slice.claim_token.is_(None), Slice.pending > 0)

    def all_are_claimed() -> bool:
        with given.sessions() as other:
            return not other.scalars(unclaimed).all()

    def think_until_all_are_claimed(_recipient: str) -> str:
        wait_until(all_are_claimed)
        mail_server.mailbox.at_dot = lambda recipient: ""
        return ""

    mail_server.mailbox.at_dot = think_until_all_are_claimed
    one_by_one = replace(given, settings=replace(given.settings, smtp_connections=1))
    lane.deliver(one_by_one, 0)

    deliveries_of = {each.message_id: each for each in session.scalars(select(Delivery))}
    sent = [deliveries_of[caught.delivery] for caught in mail_server.mailbox.caught]
    assert len(sent) == 40
    # Two were taken before the other emailer was there.
    middle = [delivery.emailer_id for delivery in sent[2:38]]
    assert all(one != other for one, other in pairwise(middle))
    for emailer_id in set(middle):
        ids = [delivery.id for delivery in sent if delivery.emailer_id == emailer_id]
        assert ids == sorted(ids)
