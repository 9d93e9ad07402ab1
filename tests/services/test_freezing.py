"""Scenarios between two sessions, and those who joined later: Ann first, then Bob, then Dora."""

from datetime import date, datetime, time, timedelta

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from mcs.gateways.jobqueue import JobQueue
from mcs.models import Campaign, Contact, Delivery, Emailer, Scenario
from mcs.services import attributes, audiences, emailers, planning, scenarios
from mcs.services.scenarios import Fields, Frozen
from tests.people import add_campaign, add_contact, add_scenario

LIMIT = timedelta(hours=2)


@pytest.fixture
def queue(redis_url: str) -> JobQueue:
    return JobQueue(redis_url)


@pytest.fixture
def autumn(session: Session) -> Campaign:
    return add_campaign(session)


def send(session: Session, now: datetime, queue: JobQueue, scenario_id: int) -> int:
    scenario = session.get_one(Scenario, scenario_id)
    scenario.state, scenario.date, scenario.time = "scheduled", date(2026, 11, 23), time(10, 0)
    session.commit()
    planning.plan_campaign(session, now, queue, scenario.campaign_id)
    emailer_id = session.scalars(select(Emailer.id).where(Emailer.scenario_id == scenario_id)).one()
    emailers.send(session, now, queue, emailer_id, LIMIT)
    return emailer_id


def names(session: Session, emailer_id: int) -> list[str]:
    query = select(Contact.name).join(Delivery, Delivery.contact_id == Contact.id)
    return sorted(session.scalars(query.where(Delivery.emailer_id == emailer_id)))


def test_nobody_gets_the_same_words_twice_however_often_some_are_added(
    session: Session, now: datetime, queue: JobQueue, autumn: Campaign
) -> None:
    add_contact(session, autumn, "Ann")
    first = add_scenario(session, autumn)
    assert names(session, send(session, now, queue, first.id)) == ["Ann"]
    add_contact(session, autumn, "Bob")
    second = scenarios.send_to_added(session, now, first.id)
    assert audiences.count(session, autumn.id, first.id).reached == 1
    assert names(session, send(session, now, queue, second)) == ["Bob"]
    add_contact(session, autumn, "Dora")
    third = scenarios.send_to_added(session, now, second)
    assert scenarios.added_since(session, session.get_one(Scenario, second)) == 1
    assert names(session, send(session, now, queue, third)) == ["Dora"]


def test_an_edit_that_comes_after_the_bell_changes_nothing(
    sessions: sessionmaker[Session],
    session: Session,
    now: datetime,
    queue: JobQueue,
    autumn: Campaign,
) -> None:
    add_contact(session, autumn, "Ann")
    scenario = add_scenario(session, autumn)
    fields = scenarios.fields_of(scenario)
    with sessions() as worker:
        send(worker, now, queue, scenario.id)
    for act in (
        lambda: scenarios.edit(
            session, now, queue, scenario.id, Fields("New", "New", "New"), draft=True
        ),
        lambda: scenarios.delete(session, now, queue, scenario.id),
        lambda: scenarios.unschedule(session, now, queue, scenario.id),
    ):
        with pytest.raises(Frozen):
            act()
    assert scenarios.fields_of(scenario) == fields


def test_deleting_takes_the_planned_emailer_along(
    session: Session, now: datetime, queue: JobQueue, autumn: Campaign
) -> None:
    scenario = add_scenario(session, autumn, date=date(2026, 11, 24))
    planning.plan_campaign(session, now, queue, autumn.id)
    scenarios.delete(session, now, queue, scenario.id)
    assert session.scalar(select(func.count()).select_from(Emailer)) == 0


def test_a_rare_attribute_is_known_and_a_missing_one_is_not(
    session: Session, now: datetime, autumn: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attributes, "_SAMPLE", 1)
    add_contact(session, autumn, "Ann", company="Acme")
    add_contact(session, autumn, "Bob", **{"favourite soup": "Borscht"})
    add_contact(session, autumn, "Charlie", company="Acme")
    assert attributes.listed(session, autumn.id) == ["company"]
    known, doubtful = attributes.known_among(session, autumn.id, {"favourite soup", "salad"})
    assert "favourite soup" in known and "salad" not in known
    assert doubtful == set()
    empty = add_campaign(session)
    assert attributes.known_among(session, empty.id, {"name", "salad"}) == ({"name"}, {"salad"})
