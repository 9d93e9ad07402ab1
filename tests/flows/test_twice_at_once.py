"""Every job run by several at the same time, on threads that begin together: nobody gets two."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from mcs.config import Settings
from mcs.gateways import smtp
from mcs.gateways.jobqueue import JobQueue
from mcs.models import Campaign, Delivery, Emailer, Scenario, Slice
from mcs.services import due, emailers, lane, parents, planning, snapshots
from tests.mail import MailServer
from tests.people import add_campaign, add_contacts, add_scenario

AT_ONCE = 4
PEOPLE = 60
LATE_LIMIT = timedelta(minutes=120)


@pytest.fixture
def campaign(session: Session) -> Campaign:
    """With 60 people and three scenarios that are due at once."""
    campaign = add_campaign(session)
    add_contacts(session, campaign, PEOPLE)
    for _ in range(3):
        add_scenario(session, campaign)
    return campaign


def at_once(work: Callable[[], object], times: int = AT_ONCE) -> None:
    """Run it on so many threads, that all begin at the same moment; any failure fails the story."""
    gate = threading.Barrier(times)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            gate.wait(10)
            work()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_the_planner_plans_each_once(
    session: Session,
    sessions: sessionmaker[Session],
    campaign: Campaign,
    now: datetime,
    queue: JobQueue,
) -> None:
    campaign_id = campaign.id
    session.commit()

    def plan() -> None:
        with sessions() as own:
            planning.plan_day(own, now, queue)
            planning.plan_campaign(own, now, queue, campaign_id)
            due.tick(own, now, queue, "hold")

    at_once(plan)
    planned = session.scalars(select(Emailer.scenario_id)).all()
    assert sorted(planned) == sorted(session.scalars(select(Scenario.id)))


def test_an_emailer_begins_once(
    session: Session,
    sessions: sessionmaker[Session],
    campaign: Campaign,
    now: datetime,
    queue: JobQueue,
) -> None:
    planned = planning.plan_day(session, now, queue)

    def send() -> None:
        with sessions() as own:
            for emailer_id in planned:
                emailers.send(own, now, queue, emailer_id, LATE_LIMIT)

    at_once(send)
    rows = session.execute(select(Delivery.emailer_id, Delivery.contact_id)).all()
    assert len(rows) == len(set(rows)) == PEOPLE * len(planned)
    for emailer in session.scalars(select(Emailer)):
        assert (emailer.state, emailer.recipients) == ("sending", PEOPLE)


def test_each_slice_is_sent_once(
    session: Session,
    sessions: sessionmaker[Session],
    settings: Settings,
    campaign: Campaign,
    mail_server: MailServer,
    now: datetime,
    queue: JobQueue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshots, "LARGEST_SLICE", 25)
    planned = planning.plan_day(session, now, queue)
    for emailer_id in planned:
        emailers.send(session, now, queue, emailer_id, LATE_LIMIT)
    slices = session.scalars(select(Slice.id)).all()
    session.commit()
    assert len(slices) == 9
    mine = replace(settings, mail_port=mail_server.port, smtp_connections=2)
    given = lane.Surroundings(
        sessions,
        mine,
        smtp.server(mine),
        lambda: now,
        lambda: 0.5,
        lambda: False,
        lambda own: due.start_due(own, now, queue, LATE_LIMIT),
        lambda: False,
    )

    def deliver() -> None:
        for slice_id in slices:
            for parent in lane.deliver(given, slice_id):
                with sessions() as own:
                    parents.ring(own, now, queue, parent)
                    parents.finish(own, now, parent)

    at_once(deliver)
    # What was claimed by another is left to it; whoever comes last finds nothing more to do.
    deliver()
    caught = mail_server.mailbox.caught
    assert len({message.delivery for message in caught}) == len(caught)
    assert Counter(message.recipient for message in caught) == {
        f"p{number}@people.example": len(planned) for number in range(PEOPLE)
    }
    assert set(session.scalars(select(Delivery.state))) == {"sent"}
    assert set(session.scalars(select(Emailer.state))) == {"sent"}
    assert set(session.scalars(select(Scenario.contacts_served))) == {PEOPLE}


def test_everything_at_once(
    session: Session,
    sessions: sessionmaker[Session],
    settings: Settings,
    campaign: Campaign,
    mail_server: MailServer,
    now: datetime,
    queue: JobQueue,
) -> None:
    """Two clocks and two workers, none of which waits for another."""
    mine = replace(settings, mail_port=mail_server.port, smtp_connections=2)
    given = lane.Surroundings(
        sessions,
        mine,
        smtp.server(mine),
        lambda: now,
        lambda: 0.5,
        lambda: False,
        lambda own: due.start_due(own, now, queue, LATE_LIMIT),
        lambda: False,
    )

    def whole_day() -> None:
        with sessions() as own:
            due.tick(own, now, queue, "hold")
            for emailer_id in due.due_emailers(own, now):
                emailers.send(own, now, queue, emailer_id, LATE_LIMIT)
            slices = own.scalars(select(Slice.id)).all()
            own.commit()
            for slice_id in slices:
                lane.deliver(given, slice_id)
            due.tick(own, now, queue, "hold")

    at_once(whole_day)
    whole_day()
    assert len(mail_server.mailbox.caught) == 3 * PEOPLE
    assert len({message.delivery for message in mail_server.mailbox.caught}) == 3 * PEOPLE
    session.rollback()
    assert set(session.scalars(select(Emailer.state))) == {"sent"}
