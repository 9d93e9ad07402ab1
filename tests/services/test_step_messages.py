"""A scenario that a step of a sequence sends is nobody else's: no broadcast, and not deleted."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from mcs.core.sequences import BadDefinition
from mcs.gateways.jobqueue import JobQueue
from mcs.models import ActionDefinition, Campaign, Emailer, Scenario
from mcs.services import email_starts, planning, scenarios, schedules, sequences
from mcs.services.definitions import SEND_EMAIL, Step
from mcs.services.scenarios import Frozen
from mcs.services.schedules import subject_of
from tests.people import add_campaign, add_contact, add_scenario


@pytest.fixture
def campaign(session: Session) -> Campaign:
    return add_campaign(session)


@pytest.fixture
def hello(session: Session, campaign: Campaign) -> Scenario:
    return add_scenario(session, campaign, date=None, time=None, state="draft")


def step(scenario: Scenario | int) -> Step:
    number = scenario if isinstance(scenario, int) else scenario.id
    return Step("hello", SEND_EMAIL, "0days", config={"scenario": number})


Door = Callable[[Session, datetime, JobQueue, Scenario], object]


def schedule(session: Session, now: datetime, queue: JobQueue, hello: Scenario) -> None:
    scenarios.schedule(session, now, queue, hello.id)


def write_badly(session: Session, now: datetime, queue: JobQueue, hello: Scenario) -> None:
    fields = replace(scenarios.fields_of(hello), content="{{ nonsense }}")
    scenarios.edit(session, now, queue, hello.id, fields, draft=True)


def delete(session: Session, now: datetime, queue: JobQueue, hello: Scenario) -> None:
    scenarios.delete(session, now, queue, hello.id)


@pytest.mark.parametrize("door", [schedule, write_badly, delete])
def test_its_own_pages_leave_it_alone(
    session: Session,
    now: datetime,
    queue: JobQueue,
    campaign: Campaign,
    hello: Scenario,
    door: Door,
) -> None:
    sequences.define(session, now, campaign.id, [step(hello)])
    with pytest.raises(Frozen, match="the message of the step hello"):
        door(session, now, queue, hello)
    assert planning.plan_day(session, now, queue) == []
    sequences.define(session, now, campaign.id, [])
    delete(session, now, queue, hello)
    assert session.scalars(select(Scenario)).all() == []


def test_what_has_been_sent_stays_with_its_ledger(
    session: Session, now: datetime, queue: JobQueue, campaign: Campaign, hello: Scenario
) -> None:
    sequences.define(session, now, campaign.id, [step(hello)])
    ann = add_contact(session, campaign, "Ann")
    schedules.enrol(session, now, campaign.id, subject_of(ann.id))
    assert email_starts.start(session, now)
    sequences.define(session, now, campaign.id, [])
    with pytest.raises(Frozen, match="the ledger refers to it"):
        delete(session, now, queue, hello)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "has a date or a time"),
        ({"date": None, "time": None, "state": "draft", "content": "{{ shoe }}"}, "cannot be sent"),
    ],
)
def test_a_step_takes_no_scenario_that_it_cannot_send(
    session: Session, now: datetime, campaign: Campaign, given: dict[str, object], reason: str
) -> None:
    add_contact(session, campaign, "Ann")
    scenario = add_scenario(session, campaign, **given)
    with pytest.raises(BadDefinition, match=reason):
        sequences.define(session, now, campaign.id, [step(scenario)])
    others = add_scenario(session, add_campaign(session), date=None, time=None, state="draft")
    for number in (others.id, 999):
        with pytest.raises(BadDefinition, match="has no scenario"):
            sequences.define(session, now, campaign.id, [step(number)])


def test_made_a_step_and_deleted_at_once_it_is_one_or_the_other(
    sessions: sessionmaker[Session], now: datetime, queue: JobQueue, campaign: Campaign
) -> None:
    for _ in range(5):
        with sessions() as session:
            hello = add_scenario(session, campaign, date=None, time=None, state="draft").id
            sequences.define(session, now, campaign.id, [])

        def define(number: int = hello) -> None:
            with sessions() as session:
                sequences.define(session, now, campaign.id, [step(number)])

        def remove(number: int = hello) -> None:
            with sessions() as session:
                scenarios.delete(session, now, queue, number)

        with ThreadPoolExecutor(2) as both:
            errors = [done.exception() for done in [both.submit(define), both.submit(remove)]]
        assert sum(error is not None for error in errors) == 1, errors
        assert all(isinstance(error, BadDefinition | Frozen | None) for error in errors), errors
        with sessions() as session:
            steps = session.scalars(select(ActionDefinition.config)).all()
            there = session.scalar(select(Scenario.id).where(Scenario.id == hello))
            assert [one["scenario"] for one in steps] == ([hello] if there else [])
            assert session.scalars(select(Emailer)).all() == []
