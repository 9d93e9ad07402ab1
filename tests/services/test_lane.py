"""The lane against a real SMTP server: whom it serves, what the ledger says afterwards."""

from dataclasses import replace
from datetime import timedelta
from threading import Event
from time import sleep
from typing import Any

import pytest
from sqlalchemy import select, text

from mcs.core.breaker import LONGEST_NOTICE
from mcs.core.tokens import Recipient
from mcs.models import Campaign, Contact, Delivery, Emailer, Suppression
from mcs.services import deliveries, emailers, lane, rescues, settling, slice_claims, suppressions
from mcs.services.feeds import Letter
from mcs.services.pacer import Pacer
from mcs.services.steps import Outcome
from mcs.services.talk import Talk
from tests.services.conftest import LEASE, Scene


def test_ann_and_bob_are_served_and_charlie_who_unsubscribed_is_not(scene: Scene) -> None:
    _ann, _bob, charlie = scene.add("Ann", "Bob", "Charlie")
    link = Recipient(charlie.uid, scene.campaign.uid)
    suppressions.unsubscribe(scene.session, scene.now, link)

    scene.start()
    scene.deliver()

    assert scene.mailbox.recipients == ["ann@people.example", "bob@people.example"]
    assert scene.states() == {"Ann": "sent", "Bob": "sent", "Charlie": "skipped"}
    assert scene.counted() == {"sent": 2, "skipped": 1}
    assert (scene.emailer.state, scene.emailer.recipients) == ("sent", 3)
    assert scene.scenario.contacts_served == 2
    ann = next(m for m in scene.mailbox.caught if m.recipient.startswith("ann"))
    delivery = scene.session.scalars(
        select(Delivery)
        .join(Contact, Contact.id == Delivery.contact_id)
        .where(Contact.name == "Ann")
    ).one()
    assert ann.delivery == delivery.message_id
    assert ann.message["Subject"] == "Hello Ann"
    assert (delivery.reply_code, delivery.attempts) == (250, 1)


def test_every_job_twice_is_harmless(scene: Scene) -> None:
    scene.add("Ann")
    scene.start()
    assert scene.plan() == []
    scene.send(scene.emailer_id)
    scene.deliver()
    scene.deliver()
    emailers.finish(scene.session, scene.now, scene.emailer_id)
    assert scene.mailbox.recipients == ["ann@people.example"]
    assert scene.counted() == {"sent": 1}


@pytest.mark.parametrize("connections", [1, 3, 40])
def test_each_of_five_hundred_gets_one(scene: Scene, connections: int) -> None:
    scene.set(smtp_connections=connections)
    scene.slices_of(90)
    addresses = scene.add_many(500)
    scene.start()
    scene.deliver()
    assert scene.mailbox.recipients == sorted(addresses)
    assert scene.counted() == {"sent": 500}


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
    scene: Scene, at: str, reply: str, state: str, reason: str
) -> None:
    def answer(recipient: str) -> str:
        return reply if recipient.startswith("bob") else ""

    setattr(scene.mailbox, f"at_{at}", answer)
    scene.set(smtp_connections=1)
    scene.add("Ann", "Bob", "Cleo")
    scene.start()
    scene.deliver()
    if "slow down" in reason:
        # The server wants no more for now: the others go a little later.
        scene.passed = timedelta(seconds=25)
        scene.deliver()
    assert scene.states() == {"Ann": "sent", "Bob": state, "Cleo": "sent"}
    scene.counted()
    bob = scene.session.scalars(select(Delivery).where(Delivery.state == state)).one()
    assert (bob.reason, bob.reply_code, bob.attempts) == (reason, int(reply[:3]), 1)
    bounced = scene.session.scalars(select(Suppression.reason)).all()
    assert bounced == (["bounced"] if "5.1.1" in reply else [])

    if state == "pending":
        setattr(scene.mailbox, f"at_{at}", lambda recipient: "")
        scene.passed = timedelta(minutes=2)
        scene.deliver()
        assert scene.states()["Bob"] == "sent"
        assert scene.emailer.state == "sent"
        ids = [caught.delivery for caught in scene.mailbox.caught]
        assert len(set(ids)) == 3


def test_deliveries_are_numbered_beyond_two_thousand_million(scene: Scene) -> None:
    if scene.session.get_bind().dialect.name != "postgresql":
        pytest.skip("an integer holds any of them")
    scene.session.execute(text("SELECT setval('deliveries_id_seq', 2147483646)"))
    scene.session.commit()
    _ann, bob, *_rest = scene.add("Ann", "Bob", "Cleo", "Dora")
    scene.mailbox.at_rcpt = lambda recipient: "450 Later" if recipient.startswith("cleo") else ""
    scene.start()
    suppressions.suppress(scene.session, scene.now, bob.email_key, "unsubscribed")
    scene.deliver()
    assert scene.counted() == {"sent": 2, "pending": 1, "skipped": 1}
    scene.passed = timedelta(minutes=10)
    claim, _ = scene.claim()
    rescues.rescue(scene.session, scene.now + 2 * LEASE, "hold")
    emailers.cancel(scene.session, scene.now, scene.emailer_id)
    assert claim.high_id > 2**31
    assert scene.counted() == {"sent": 2, "skipped": 2}


def test_a_server_that_is_away_loses_nobody(scene: Scene) -> None:
    scene.add("Ann")
    scene.start()
    there = scene.given.server
    scene.given = replace(scene.given, server=replace(there, port=1))
    scene.deliver()
    assert scene.counted() == {"pending": 1}
    assert "cannot be reached" in scene.progress().notice

    scene.given = replace(scene.given, server=there)
    scene.passed = timedelta(seconds=30)
    scene.deliver()
    assert scene.counted() == {"sent": 1}
    assert scene.progress().notice == ""


def test_a_refused_sender_marks_nobody_and_the_notice_says_what_to_do(scene: Scene) -> None:
    scene.mailbox.at_dot = lambda _recipient: "550 5.7.26 Not from you. " + "Read our terms. " * 100
    scene.add("Ann", "Bob")
    scene.start()
    scene.deliver()
    notice = scene.progress().notice
    assert "refuses this sender: 550 5.7.26 Not from you." in notice
    assert "Nobody was marked failed" in notice
    assert notice.endswith("then resume.")
    assert scene.counted() == {"pending": 2}

    scene.mailbox.at_dot = lambda _recipient: ""
    scene.resume()
    scene.deliver()
    assert scene.counted() == {"sent": 2}
    assert scene.progress().notice == ""


def test_who_was_refused_before_the_breaker_tripped_is_failed_until_retried(scene: Scene) -> None:
    """As by a blocklist that says 5.7.1 to each recipient."""
    scene.mailbox.at_rcpt = lambda _recipient: "550 5.7.1 Your network is blocked"
    scene.set(smtp_connections=3)
    scene.add_many(40)
    scene.start()
    scene.deliver()
    assert scene.emailer.state == "paused"
    notice = scene.progress().notice
    assert "10 times in a row, at last: 550 5.7.1 Your network is blocked." in notice
    assert "“Retry the failed” sends them again" in notice
    assert 10 <= scene.counted()["failed"] < 20

    scene.mailbox.at_rcpt = lambda _recipient: ""
    scene.resume()
    settling.retry_failed(scene.session, scene.now, scene.queue, scene.emailer_id)
    scene.deliver()
    assert scene.counted() == {"sent": 40}


def test_a_notice_fits_its_columns() -> None:
    lengths = {parent.__table__.c.notice.type.length for parent in (Emailer, Campaign)}
    assert lengths == {LONGEST_NOTICE}


def test_a_server_that_takes_five_a_connection_gets_five_a_connection(scene: Scene) -> None:
    """As MailerSend does, Amazon SES says, and Exim can be told to."""
    scene.mailbox.share = 5
    addresses = scene.add_many(43)
    scene.start()
    scene.deliver()
    assert scene.counted() == {"sent": 43}
    assert scene.mailbox.recipients == sorted(addresses)
    assert set(scene.session.scalars(select(Delivery.attempts))) == {1}
    assert scene.progress().notice == ""


def test_the_last_letter_too_goes_over_a_new_connection(scene: Scene) -> None:
    """Nothing seems to be left while the server thinks about Ann and the connection has Bob."""

    def slowly(_recipient: str) -> str:
        sleep(2 * lane.KEEPER_SECONDS)
        return ""

    scene.mailbox.share, scene.mailbox.at_dot = 1, slowly
    scene.set(smtp_connections=1)
    scene.add("Ann", "Bob")
    scene.start()
    scene.deliver()
    assert scene.counted() == {"sent": 2}


def test_pause_stops_and_resume_goes_on(scene: Scene) -> None:
    def pause_at_the_fifth(_recipient: str) -> str:
        if len(scene.mailbox.caught) == 4:
            with scene.given.sessions() as other:
                emailers.pause(other, scene.now, scene.emailer_id)
        return ""

    scene.mailbox.at_dot = pause_at_the_fifth
    scene.set(smtp_connections=1)
    scene.add_many(20)
    scene.start()
    scene.deliver()
    assert scene.counted() == {"sent": 5, "pending": 15}
    assert scene.emailer.state == "paused"

    scene.mailbox.at_dot = lambda recipient: ""
    scene.resume()
    scene.deliver()
    assert scene.counted() == {"sent": 20}


def test_cancel_half_way_skips_the_rest(scene: Scene) -> None:
    def cancel_at_the_third(_recipient: str) -> str:
        if len(scene.mailbox.caught) == 2:
            with scene.given.sessions() as other:
                emailers.cancel(other, scene.now, scene.emailer_id)
        return ""

    scene.mailbox.at_dot = cancel_at_the_third
    scene.set(smtp_connections=1)
    scene.add_many(10)
    scene.start()
    scene.deliver()
    assert scene.counted() == {"sent": 3, "skipped": 7}
    assert scene.emailer.state == "cancelled"
    assert scene.scenario.contacts_served == 3


def test_a_dead_workers_slice_is_rescued_with_its_doubt(scene: Scene) -> None:
    scene.add("Ann", "Bob", "Cleo")
    scene.start()
    claim, (ann, _bob, _cleo) = scene.claim()
    step = deliveries.Step(claim, starts=[ann.id])
    standings = deliveries.advance(scene.session, scene.now, LEASE, [step])
    assert standings[step].started == {ann.id}

    # Nobody touches it while the lease lasts; then it is rescued, once.
    scene.deliver()
    assert scene.counted() == {"sending": 1, "pending": 2}
    scene.passed = timedelta(seconds=46)
    rescued = {slice_claims.Parent(scene.emailer_id)}
    assert rescues.rescue(scene.session, scene.now, "hold") == rescued
    assert rescues.rescue(scene.session, scene.now, "hold") == set()
    scene.deliver()
    assert scene.counted() == {"sent": 2, "in_doubt": 1}
    assert scene.mailbox.recipients == ["bob@people.example", "cleo@people.example"]

    # The frozen worker wakes: it starts nothing, but what it knows to be accepted counts.
    stale = deliveries.Step(claim, starts=[ann.id])
    assert deliveries.advance(scene.session, scene.now, LEASE, [stale]) == {}
    accepted = Outcome(ann.id, "sent", scene.now, reply_code=250)
    rescues.settle_late(scene.session, scene.now, claim, [accepted])
    assert scene.counted() == {"sent": 3}


def test_resend_sends_the_doubtful_again_with_its_message_id(scene: Scene) -> None:
    scene.add("Ann")
    scene.start()
    claim, (ann,) = scene.claim()
    step = deliveries.Step(claim, starts=[ann.id])
    deliveries.advance(scene.session, scene.now, LEASE, [step])
    scene.passed = timedelta(seconds=46)
    rescues.rescue(scene.session, scene.now, "resend")
    scene.deliver()
    assert scene.counted() == {"sent": 1}
    (caught,) = scene.mailbox.caught
    assert caught.delivery == ann.opaque


def test_unsubscribing_takes_back_what_is_pending(scene: Scene) -> None:
    ann, _bob = scene.add("Ann", "Bob")
    scene.start()
    link = Recipient(ann.uid, scene.campaign.uid)
    assert suppressions.unsubscribe(scene.session, scene.now, link)
    assert suppressions.unsubscribe(scene.session, scene.now, link)
    assert scene.counted() == {"pending": 1, "skipped": 1}
    scene.deliver()
    assert scene.mailbox.recipients == ["bob@people.example"]
    assert scene.progress().skipped_by_reason == {"unsubscribed": 1}


def test_who_holds_the_emailer_does_not_hold_up_the_lane(scene: Scene) -> None:
    """A cancel holds the emailer and waits for slices: a lane must not wait for the emailer."""
    scene.add("Ann", "Bob")
    scene.start()
    if scene.session.get_bind().dialect.name == "sqlite":
        return  # It has one lock, for all writers.
    claim, (ann, bob) = scene.claim()
    failed = Outcome(ann.id, "failed", scene.now, reason="the mailbox does not take mail")
    step = deliveries.Step(claim, refusals=[failed], starts=[bob.id])
    with scene.given.sessions() as canceller, scene.given.sessions() as lane_session:
        emailers.locked(canceller, scene.emailer_id)
        lane_session.connection().exec_driver_sql("SET lock_timeout = '3s'")
        lane_session.commit()
        standings = deliveries.advance(lane_session, scene.now, LEASE, [step])
    assert standings[step].started == {bob.id}


def test_a_talk_with_a_defect_ends_the_lane_and_loses_nobody(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Defective(Talk):
        async def converse(self, first: Letter) -> None:
            if first.due.email == "p0@people.example":
                raise ArithmeticError
            await super().converse(first)

    scene.add_many(30)
    scene.start()
    monkeypatch.setattr(lane, "Talk", Defective)
    with pytest.raises(ArithmeticError):
        scene.deliver()
    assert "in_doubt" not in scene.counted()

    monkeypatch.setattr(lane, "Talk", Talk)
    scene.deliver()
    assert scene.counted() == {"sent": 30}
    assert len(set(scene.mailbox.recipients)) == len(scene.mailbox.recipients) == 30


def test_a_pacer_with_a_defect_ends_the_lane_and_loses_nobody(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it Bob and Cleo would wait for a slot of their rate for as long as the lane goes."""
    reservations, thinks, dead = Pacer.reservations, Event(), Event()

    def think(_recipient: str) -> str:
        thinks.set()
        assert dead.wait(10)
        return ""

    def die_while_the_server_thinks(self: Pacer, *wanted: Any) -> Any:
        if thinks.is_set():
            dead.set()
            raise ArithmeticError
        return reservations(self, *wanted)

    scene.mailbox.at_dot = think
    scene.campaign.send_rate = 0.01
    scene.add("Ann", "Bob", "Cleo")
    scene.start()
    monkeypatch.setattr(Pacer, "reservations", die_while_the_server_thinks)
    with pytest.raises(ArithmeticError):
        scene.deliver_due(seconds=10)
    assert scene.states() == {"Ann": "sent", "Bob": "pending", "Cleo": "pending"}
    assert scene.counted() == {"sent": 1, "pending": 2}
    assert scene.claimed() == []

    monkeypatch.setattr(Pacer, "reservations", reservations)
    scene.campaign.send_rate = None
    scene.session.commit()
    scene.deliver_due()
    assert scene.counted() == {"sent": 3}
    assert len(set(scene.mailbox.recipients)) == len(scene.mailbox.recipients) == 3
