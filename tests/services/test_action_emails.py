"""The emails of sequences against a real SMTP server: whom they reach, when, and how often."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from mcs.config import Settings
from mcs.core.calls import Call
from mcs.core.tokens import Recipient
from mcs.gateways import smtp
from mcs.gateways.jobqueue import JobQueue
from mcs.models import (
    Action,
    ActionDefinition,
    Campaign,
    Contact,
    Delivery,
    Scenario,
    Schedule,
    Slice,
)
from mcs.services import (
    bulk,
    campaigns,
    contacts,
    deliveries,
    email_actions,
    email_starts,
    endings,
    failures,
    lane,
    rescues,
    runners,
    schedules,
    sequences,
    settling,
    slice_claims,
    suppressions,
)
from mcs.services.definitions import SEND_EMAIL, Step
from mcs.services.emailers import NotPossible
from mcs.services.schedules import subject_of
from tests.mail import Caught, MailServer
from tests.people import add_campaign, add_contact, add_contacts, add_scenario

LEASE = timedelta(seconds=45)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
STATES = ("pending", "sending", "sent", "failed", "in_doubt", "skipped")


@dataclass
class Office:
    """An installation at work, whose clock the story sets."""

    sessions: sessionmaker[Session]
    settings: Settings
    queue: JobQueue
    now: datetime
    noted: list[str] = field(default_factory=list)

    def start(self) -> None:
        """What the job start_emails does."""
        with self.sessions() as session:
            while email_starts.start(session, self.now):
                pass

    def send(self) -> None:
        """What the jobs deliver_slice do."""
        with self.sessions() as session:
            due = slice_claims.due_slices(session, self.now, 100)
        for slice_id in due:
            lane.deliver(self._lane, slice_id)

    def call(self) -> None:
        """What the job run_actions does."""
        callbacks = {"note": lambda call: self.noted.append(_said(call))}
        runners.run_due(runners.Surroundings(self.sessions, callbacks, lambda: self.now, 45.0))

    def work(self, at: datetime | None = None) -> None:
        """Do all that is due at a moment."""
        self.now = at or self.now
        with self.sessions() as session:
            email_actions.close_over(session, self.now)
        self.start()
        self.send()
        self.call()

    def work_until(self, end: datetime, step: timedelta = HOUR) -> None:
        while self.now < end:
            self.work(self.now + step)

    @property
    def _lane(self) -> lane.Surroundings:
        return lane.Surroundings(
            sessions=self.sessions,
            settings=self.settings,
            server=smtp.server(self.settings),
            now=lambda: self.now,
            dice=lambda: 0.5,
            stopping=lambda: False,
            start_due=lambda session: None,
            others_wait=lambda: False,
        )


def _said(call: Call) -> str:
    return f"{call.subject_id} {call.key}"


@pytest.fixture
def office(
    sessions: sessionmaker[Session],
    settings: Settings,
    mail_server: MailServer,
    queue: JobQueue,
    now: datetime,
) -> Office:
    settings = replace(settings, mail_server="127.0.0.1", mail_port=mail_server.port)
    return Office(sessions, settings, queue, now)


@pytest.fixture
def campaign(session: Session) -> Campaign:
    return add_campaign(session)


def message(session: Session, campaign: Campaign, name: str = "Hello") -> Scenario:
    """A scenario for a step: without a date."""
    given = {"name": name, "subject": f"{name} {{{{ name }}}}", "state": "draft"}
    return add_scenario(session, campaign, date=None, time=None, **given)


def email_step(key: str, scenario: Scenario, offset: str = "0days", **given: str) -> Step:
    return Step(key, SEND_EMAIL, offset, config={"scenario": scenario.id}, **given)  # type: ignore[arg-type]


@pytest.fixture
def hello(session: Session, now: datetime, campaign: Campaign) -> Scenario:
    """What the only step of the campaign sends, at once."""
    scenario = message(session, campaign)
    sequences.define(session, now, campaign.id, [email_step("hello", scenario)])
    return scenario


def enrol(session: Session, at: datetime, campaign: Campaign, name: str) -> Contact:
    contact = add_contact(session, campaign, name)
    schedules.enrol(session, at, campaign.id, subject_of(contact.id))
    return contact


def mails(server: MailServer) -> list[str]:
    """Who got what, in order."""
    return [_told(one) for one in server.mailbox.caught]


def _told(one: Caught) -> str:
    return f"{one.recipient.partition('@')[0]}: {one.message['Subject']}"


def standing(session: Session, contact: Contact) -> list[str]:
    """Each action of a contact, and what became of its delivery."""
    session.rollback()
    audit(session)
    rows = session.execute(
        select(Action.key, Action.state, Action.reason, Delivery.state)
        .join(Schedule, Schedule.id == Action.schedule_id)
        .outerjoin(Delivery, Delivery.action_id == Action.id)
        .where(Schedule.contact_id == contact.id)
        .order_by(Schedule.run, Action.id)
    ).all()
    return [
        " ".join(filter(None, (key, state, f"({reason})" if reason else "", delivery)))
        for key, state, reason, delivery in rows
    ]


def audit(session: Session) -> None:
    """The slices' counts equal the ledger's, and no action is under way without a delivery."""
    for piece in session.scalars(select(Slice).execution_options(populate_existing=True)):
        ledger = dict(
            session.execute(
                select(Delivery.state, func.count())
                .where(Delivery.slice_id == piece.id)
                .group_by(Delivery.state)
            ).all()
        )
        assert {state: getattr(piece, state) for state in STATES} == (
            dict.fromkeys(STATES, 0) | ledger
        )
    under_way = session.execute(
        select(Action.state, Delivery.state).outerjoin(Delivery, Delivery.action_id == Action.id)
        .where(Action.state == "processing", Action.lease_until.is_(None))
    )  # fmt: skip
    assert all(state in ("pending", "sending", "in_doubt") for _, state in under_way)


def test_ann_bob_and_charlie_through_a_whole_sequence(
    session: Session, now: datetime, office: Office, mail_server: MailServer, campaign: Campaign
) -> None:
    hello, tea, bye = (message(session, campaign, name) for name in ("Hello", "Tea", "Bye"))
    steps = [
        email_step("hello", hello),
        Step("note", "note", "1hour", after="hello"),
        email_step("tea", tea, "2days", time="10:00"),
        email_step("bye", bye, "1day", after="tea"),
    ]
    sequences.define(session, now, campaign.id, steps)
    ann = enrol(session, now, campaign, "Ann")
    bob = enrol(session, now + HOUR, campaign, "Bob")
    charlie = enrol(session, now + HOUR, campaign, "Charlie")

    office.work(now + HOUR - MINUTE)
    assert mails(mail_server) == ["ann: Hello Ann"]
    office.work_until(now + DAY)
    suppressions.unsubscribe(session, office.now, Recipient(charlie.uid, campaign.uid))
    office.work_until(now + 5 * DAY)

    assert sorted(mails(mail_server)) == [
        "ann: Bye Ann", "ann: Hello Ann", "ann: Tea Ann",
        "bob: Bye Bob", "bob: Hello Bob", "bob: Tea Bob",
        "charlie: Hello Charlie",
    ]  # fmt: skip
    assert sorted(office.noted) == sorted(f"{one.id} note" for one in (ann, bob, charlie))
    for one in (ann, bob):
        assert standing(session, one) == [
            "hello completed sent", "note completed", "tea completed sent", "bye completed sent",
        ]  # fmt: skip
    assert standing(session, charlie) == [
        "hello completed sent",
        "note completed",
        "tea completed (unsubscribed) skipped",
        "bye completed (unsubscribed) skipped",
    ]
    served = dict(session.execute(select(Scenario.name, Scenario.contacts_served)).all())
    assert served == {"Hello": 3, "Tea": 2, "Bye": 2}


def test_a_step_after_an_email_gets_its_moment_when_that_is_sent(
    session: Session, now: datetime, office: Office, mail_server: MailServer, campaign: Campaign
) -> None:
    steps = [
        email_step("hello", message(session, campaign)),
        email_step("tea", message(session, campaign, "Tea"), "1day", after="hello"),
    ]
    sequences.define(session, now, campaign.id, steps)
    enrol(session, now, campaign, "Ann")
    office.now = now + HOUR
    office.start()
    assert moment(session, "tea") is None
    office.send()
    assert moment(session, "tea") == now + HOUR + DAY
    office.work(now + HOUR + DAY - timedelta(seconds=1))
    assert mails(mail_server) == ["ann: Hello Ann"], "nothing early"
    office.work(now + HOUR + DAY)
    assert mails(mail_server) == ["ann: Hello Ann", "ann: Tea Ann"]


def moment(session: Session, key: str) -> datetime | None:
    session.rollback()
    return session.scalars(select(Action.due_at).where(Action.key == key)).one()


@pytest.mark.usefixtures("hello")
def test_every_job_twice_at_once_writes_to_each_once(
    session: Session, now: datetime, office: Office, mail_server: MailServer, campaign: Campaign
) -> None:
    people = add_contacts(session, campaign, 100)
    bulk.enrol(session, now, campaign.id, [subject_of(one.id) for one in people])
    for job in (office.start, office.send):
        with ThreadPoolExecutor(2) as twice:
            for done in [twice.submit(job) for _ in range(2)]:
                done.result()
    office.work()
    assert mail_server.mailbox.recipients == sorted(one.email for one in people)
    assert states(session) == {"completed": 100}


def states(session: Session) -> dict[str, int]:
    session.rollback()
    audit(session)
    return dict(session.execute(select(Action.state, func.count()).group_by(Action.state)).all())


Verb = Callable[[Session, Office, Campaign, Contact], object]


def unschedule(session: Session, office: Office, campaign: Campaign, ann: Contact) -> None:
    assert schedules.unschedule(session, office.now, campaign.id, "contact", str(ann.id))


def deactivate(session: Session, office: Office, campaign: Campaign, _ann: Contact) -> None:
    campaigns.deactivate(session, office.now, office.queue, campaign.id, None)


def remove_the_step(session: Session, office: Office, campaign: Campaign, _ann: Contact) -> None:
    sequences.define(session, office.now, campaign.id, [])


def enrol_again(session: Session, office: Office, campaign: Campaign, ann: Contact) -> None:
    schedules.enrol(session, office.now, campaign.id, subject_of(ann.id))


def activate(session: Session, office: Office, campaign: Campaign, _ann: Contact) -> None:
    campaigns.activate(session, office.now, office.queue, campaign.id, None)


def restore_the_step(session: Session, office: Office, campaign: Campaign, _ann: Contact) -> None:
    (scenario,) = session.scalars(select(Scenario.id))
    step = Step("hello", SEND_EMAIL, "0days", config={"scenario": scenario})
    sequences.define(session, office.now, campaign.id, [step], "run")


@pytest.mark.usefixtures("hello")
@pytest.mark.parametrize(
    ("withdraw", "reason", "bring_back"),
    [
        (unschedule, "unscheduled", enrol_again),
        (deactivate, "the campaign was switched off", activate),
        (remove_the_step, "no longer in the sequence", restore_the_step),
    ],
)
def test_withdrawn_to_the_last_moment_and_brought_back(
    session: Session,
    now: datetime,
    office: Office,
    mail_server: MailServer,
    campaign: Campaign,
    withdraw: Verb,
    reason: str,
    bring_back: Verb,
) -> None:
    ann = enrol(session, now, campaign, "Ann")
    office.start()
    assert standing(session, ann) == ["hello processing pending"]
    opaque = session.scalars(select(Delivery.message_id)).one()
    withdraw(session, office, campaign, ann)
    assert standing(session, ann) == [f"hello cancelled ({reason}) skipped"]
    office.work(now + MINUTE)
    assert mails(mail_server) == []

    office.now = now + HOUR
    bring_back(session, office, campaign, ann)
    office.work()
    assert standing(session, ann) == ["hello completed sent"]
    (caught,) = mail_server.mailbox.caught
    assert caught.delivery == opaque, "one delivery, whatever happened to it"
    withdraw(session, office, campaign, ann)
    bring_back(session, office, campaign, ann)
    office.work(now + 2 * HOUR)
    assert len(mail_server.mailbox.caught) == 1, "what is done stays done"


@pytest.mark.usefixtures("hello")
def test_refused_for_now_then_sent(
    session: Session, now: datetime, office: Office, mail_server: MailServer, campaign: Campaign
) -> None:
    mail_server.mailbox.at_rcpt = lambda _: "451 4.7.1 try again later"
    ann = enrol(session, now, campaign, "Ann")
    office.work()
    assert standing(session, ann) == ["hello processing pending"]
    mail_server.mailbox.at_rcpt = lambda _: ""
    office.work(now + timedelta(seconds=30))
    assert mails(mail_server) == []
    office.work(now + 2 * MINUTE)
    assert standing(session, ann) == ["hello completed sent"]
    assert mails(mail_server) == ["ann: Hello Ann"]
    session.rollback()
    assert session.scalars(select(Delivery.attempts)).one() == 2


@pytest.mark.usefixtures("hello")
def test_withdrawn_between_two_tries_it_does_not_go_again(
    session: Session, now: datetime, office: Office, mail_server: MailServer, campaign: Campaign
) -> None:
    ann = enrol(session, now, campaign, "Ann")

    def refuse_while_somebody_withdraws(_recipient: str) -> str:
        # The answer of the start that is under way: she is withdrawn before it is recorded.
        with office.sessions() as other:
            schedules.unschedule(other, now, campaign.id, "contact", str(ann.id))
        return "451 4.7.1 try again later"

    mail_server.mailbox.at_dot = refuse_while_somebody_withdraws
    office.work()
    assert standing(session, ann) == ["hello cancelled (unscheduled) skipped"]
    mail_server.mailbox.at_dot = lambda _: ""
    office.work(now + HOUR)
    assert mails(mail_server) == []


@pytest.mark.usefixtures("hello")
def test_refused_for_good_fails_the_action_and_can_be_tried_again(
    session: Session, now: datetime, office: Office, mail_server: MailServer, campaign: Campaign
) -> None:
    mail_server.mailbox.at_dot = lambda _: "554 5.6.0 not like this"
    ann = enrol(session, now, campaign, "Ann")
    office.work()
    assert standing(session, ann) == ["hello failed failed"]
    error = session.scalars(select(Action.error)).one()
    assert error is not None
    assert "554 5.6.0 not like this" in error
    opaque = session.scalars(select(Delivery.message_id)).one()
    office.work(now + DAY)
    assert mails(mail_server) == []

    mail_server.mailbox.at_dot = lambda _: ""
    assert failures.retry(session, office.now, campaign.id) == 1
    office.work(now + DAY + MINUTE)
    assert standing(session, ann) == ["hello completed sent"]
    assert [one.delivery for one in mail_server.mailbox.caught] == [opaque]


@pytest.mark.usefixtures("hello")
def test_a_mailbox_that_is_not_there_is_not_written_to_by_the_next_step(
    session: Session, now: datetime, office: Office, mail_server: MailServer, campaign: Campaign
) -> None:
    mail_server.mailbox.at_rcpt = lambda _: "550 5.1.1 no such user"
    ann = enrol(session, now, campaign, "Ann")
    office.work()
    assert standing(session, ann) == ["hello failed failed"]
    mail_server.mailbox.at_rcpt = lambda _: ""
    failures.retry(session, office.now, campaign.id)
    office.work()
    assert standing(session, ann) == ["hello completed (bounced) skipped"]
    assert mails(mail_server) == []


@pytest.mark.usefixtures("hello")
def test_a_refused_sender_holds_the_sequence_until_somebody_resumes_it(
    session: Session, now: datetime, office: Office, mail_server: MailServer, campaign: Campaign
) -> None:
    mail_server.mailbox.at_rcpt = lambda _: "554 5.7.1 Relay access denied"
    people = [enrol(session, now, campaign, name) for name in ("Ann", "Bob")]
    office.work()
    session.refresh(campaign)
    assert campaign.held_at == now
    assert "refuses this sender" in campaign.notice
    for one in people:
        assert "processing" in standing(session, one)[0], "nobody is marked"
    mail_server.mailbox.at_rcpt = lambda _: ""
    office.work(now + HOUR)
    assert mails(mail_server) == []

    email_actions.resume(session, office.now, office.queue, campaign.id)
    office.work(now + HOUR + 10 * MINUTE)
    assert sorted(mails(mail_server)) == ["ann: Hello Ann", "bob: Hello Bob"]
    session.refresh(campaign)
    assert (campaign.held_at, campaign.notice) == (None, "")
    with pytest.raises(email_actions.NotHeld):
        email_actions.resume(session, office.now, office.queue, campaign.id)


@pytest.mark.usefixtures("hello")
def test_without_a_postal_address_it_is_held_and_nobody_begins(
    session: Session, now: datetime, office: Office, mail_server: MailServer, campaign: Campaign
) -> None:
    campaign.postal_address = " "
    session.commit()
    ann = enrol(session, now, campaign, "Ann")
    office.work()
    assert standing(session, ann) == ["hello pending"]
    session.refresh(campaign)
    assert "postal address" in campaign.notice
    campaign.postal_address = "1 Main Street"
    session.commit()
    email_actions.resume(session, now, office.queue, campaign.id)
    office.work()
    assert mails(mail_server) == ["ann: Hello Ann"]


@pytest.mark.usefixtures("hello")
def test_what_is_left_after_the_last_day_is_not_sent(
    session: Session, now: datetime, office: Office, mail_server: MailServer, campaign: Campaign
) -> None:
    late = datetime(2026, 11, 30, 22, 55, tzinfo=UTC)
    mail_server.mailbox.at_rcpt = lambda _: "451 4.7.1 try again later"
    ann = enrol(session, now, campaign, "Ann")
    office.work(late)
    mail_server.mailbox.at_rcpt = lambda _: ""
    bob = enrol(session, late, campaign, "Bob")
    office.work(late + 10 * MINUTE)
    why = "after the campaign's last day"
    (anns,) = standing(session, ann)
    assert anns in (f"hello cancelled ({why}) skipped", "hello failed failed")
    assert standing(session, bob) == [f"hello cancelled ({why})"]
    assert mails(mail_server) == []


@pytest.fixture
def doubtful(
    session: Session, now: datetime, office: Office, campaign: Campaign
) -> dict[str, Contact]:
    """Ann's and Bob's first emails were in flight when their worker died; Cleo's was pending."""
    scenario = message(session, campaign)
    tea = message(session, campaign, "Tea")
    steps = [email_step("hello", scenario), email_step("tea", tea, "1day", after="hello")]
    sequences.define(session, now, campaign.id, steps)
    people = {name: enrol(session, now, campaign, name) for name in ("Ann", "Bob", "Cleo")}
    office.start()
    claim = slice_claims.claim(session, now, LEASE)
    assert claim is not None
    ann, bob, _cleo = (due.id for due in slice_claims.load(session, now, claim))
    deliveries.advance(session, now, LEASE, [deliveries.Step(claim, starts=[ann, bob])])
    office.now = now + MINUTE
    with office.sessions() as clock:
        rescues.rescue(clock, office.now, "hold")
    return people


@pytest.mark.parametrize(
    ("answer", "became"),
    [("sent", "completed sent"), ("failed", "failed failed"), ("again", "completed sent")],
)
def test_what_a_dead_worker_left_is_in_doubt_until_a_person_settles_it(
    session: Session,
    now: datetime,
    office: Office,
    mail_server: MailServer,
    campaign: Campaign,
    doubtful: dict[str, Contact],
    answer: str,
    became: str,
) -> None:
    office.work()
    assert mails(mail_server) == ["cleo: Hello Cleo"], "nobody is written to twice by itself"
    ann = doubtful["Ann"]
    assert standing(session, ann) == ["hello processing in_doubt", "tea pending"]
    opaque = delivery_of(session, ann).message_id
    with office.sessions() as clock:
        endings.rescue(clock, now + DAY)
    office.work(now + HOUR)
    assert standing(session, ann)[0] == "hello processing in_doubt", "it waits for a person"

    def settle(delivery_id: int | None) -> int:
        return settling.settle_of_sequence(
            session, office.now, office.queue, campaign.id, answer, delivery_id
        )

    assert settle(delivery_of(session, ann).id) == 1
    office.work()
    assert standing(session, ann)[0] == f"hello {became}"
    assert delivery_of(session, ann).message_id == opaque
    assert standing(session, doubtful["Bob"])[0] == "hello processing in_doubt"
    assert settle(None) == 1, "the rest of them"
    with pytest.raises(NotPossible, match="settled already"):
        settle(None)
    office.work()
    assert standing(session, doubtful["Bob"])[0] == f"hello {became}"
    office.work_until(now + 2 * DAY)
    assert mails(mail_server).count("cleo: Tea Cleo") == 1
    assert mails(mail_server).count("ann: Tea Ann") == (0 if answer == "failed" else 1)


def delivery_of(session: Session, contact: Contact) -> Delivery:
    session.rollback()
    return session.scalars(
        select(Delivery)
        .where(Delivery.contact_id == contact.id)
        .execution_options(populate_existing=True)
    ).one()


def test_who_left_meanwhile_is_not_sent_the_doubtful_again(
    session: Session,
    office: Office,
    mail_server: MailServer,
    campaign: Campaign,
    doubtful: dict[str, Contact],
) -> None:
    ann, bob = doubtful["Ann"], doubtful["Bob"]
    schedules.unschedule(session, office.now, campaign.id, "contact", str(ann.id))
    suppressions.unsubscribe(session, office.now, Recipient(bob.uid, campaign.uid))
    settle = settling.settle_of_sequence
    assert settle(session, office.now, office.queue, campaign.id, "again") == 2
    office.work(office.now + HOUR)
    assert standing(session, ann)[0] == "hello cancelled (unscheduled) skipped"
    assert standing(session, bob)[0] == "hello completed (unsubscribed) skipped"
    assert mails(mail_server) == ["cleo: Hello Cleo"]


@pytest.mark.usefixtures("doubtful")
def test_nothing_of_a_campaign_that_is_switched_off_is_sent_again(
    session: Session, office: Office, campaign: Campaign
) -> None:
    campaigns.deactivate(session, office.now, office.queue, campaign.id, None)
    with pytest.raises(NotPossible, match="switched off"):
        settling.settle_of_sequence(session, office.now, office.queue, campaign.id, "again")
    settle = settling.settle_of_sequence
    assert settle(session, office.now, office.queue, campaign.id, "sent") == 2


def test_a_contact_that_is_removed_or_deleted_gets_no_more_of_it(
    session: Session, now: datetime, office: Office, mail_server: MailServer, campaign: Campaign
) -> None:
    hello, tea = message(session, campaign), message(session, campaign, "Tea")
    steps = [email_step("hello", hello), email_step("tea", tea, "1day")]
    sequences.define(session, now, campaign.id, steps)
    ann, bob = (enrol(session, now, campaign, name) for name in ("Ann", "Bob"))
    office.start()
    contacts.remove(session, now, ann.id, campaign.id)
    contacts.delete(session, now, "a secret", bob.id)
    office.work_until(now + 2 * DAY)
    assert mails(mail_server) == []
    assert standing(session, ann) == [
        "hello completed (removed) skipped",
        "tea cancelled (unscheduled)",
    ]
    assert standing(session, bob) == [
        "hello completed (deleted) skipped",
        "tea cancelled (unscheduled)",
    ]


def test_a_step_that_has_lost_its_message_fails_with_a_sentence(
    session: Session, now: datetime, office: Office, campaign: Campaign, hello: Scenario
) -> None:
    ann = enrol(session, now, campaign, "Ann")
    step = session.scalars(select(ActionDefinition)).one()
    step.config = {"scenario": hello.id + 1}
    session.commit()
    office.work()
    assert standing(session, ann) == ["hello failed"]
    assert session.scalars(select(Action.error)).one() == email_starts.NO_MESSAGE
