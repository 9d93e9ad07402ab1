"""Enrolling: the batch, and whoever is added to it, in the same commit as they are added."""

from datetime import date, datetime, timedelta

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from mcs import config
from mcs.gateways.jobqueue import JobQueue
from mcs.models import Action, AuditEntry, BatchContact, Campaign, Schedule
from mcs.services import (
    campaigns,
    contacts,
    definitions,
    editing,
    enrolling,
    imports,
    sequences,
    users,
)
from mcs.services.campaigns import Fields
from mcs.services.definitions import Step
from mcs.services.unknown import find_campaign
from tests.people import add_campaign, add_contact, add_contacts
from tests.services.test_imports import SECRET, Bell, many, upload

STEPS = [Step("hello", "note", "0days"), Step("how", "note", "1day-3days", "10:00-15:00")]


@pytest.fixture
def campaign(session: Session, now: datetime) -> Campaign:
    campaign = add_campaign(session, end_date=date(2026, 12, 31))
    sequences.define(session, now, campaign.id, STEPS)
    return campaign


def number(session: Session, column: object) -> int:
    session.rollback()
    return session.scalars(select(func.count()).select_from(column)).one()  # type: ignore[arg-type]


def standing(session: Session) -> list[tuple[str, str]]:
    session.rollback()
    rows = session.execute(select(Action.key, Action.state).order_by(Action.id))
    return [(key, state) for key, state in rows]


def test_an_upload_enrols_those_it_adds_and_nobody_twice(
    session: Session, now: datetime, campaign: Campaign
) -> None:
    add_contact(session, campaign, "Ann")
    enrolling.welcome(session, now, campaign.id, True)
    text = "email,name\nann@people.example,Ann\nbob@people.example,Bob\ncarol@people.example,\n"
    for _ in range(2):
        upload(session, now, campaign, text)
        session.rollback()
    assert number(session, Schedule) == 2
    assert standing(session) == [("hello", "pending")] * 2 + [("how", "pending")] * 2
    assert session.scalars(select(Schedule.started_at).distinct()).one() == now
    assert enrolling.not_enrolled(session, campaign.id) == 1


def test_who_is_in_the_batch_and_who_is_enrolled_are_the_same_at_every_commit(
    session: Session, sessions: sessionmaker[Session], now: datetime, campaign: Campaign
) -> None:
    """An import whose worker dies between two slices leaves nobody added but not enrolled."""
    enrolling.welcome(session, now, campaign.id, True)
    campaign_id = campaign.id
    file = many(imports.SLICE * 2 + 10, town="Berlin" * 12)
    session.rollback()
    ticks = 0

    def dying() -> datetime:
        nonlocal ticks
        ticks += 1
        if ticks == 3:
            raise KeyboardInterrupt
        return now

    import_id = imports.upload(
        session, now, Bell(), campaign_id, "people.csv", [file], False, secret=SECRET
    )
    session.rollback()
    with sessions() as worker, pytest.raises(KeyboardInterrupt):
        imports.run(worker, dying, import_id, secret=SECRET)
    assert number(session, BatchContact) == number(session, Schedule) == imports.SLICE
    later = now + timedelta(minutes=5)
    imports.run(session, lambda: later, import_id, secret=SECRET)
    assert number(session, BatchContact) == number(session, Schedule) == imports.SLICE * 2 + 10
    assert number(session, Action) == 2 * number(session, Schedule)


def test_without_steps_or_the_setting_nobody_begins(
    session: Session, now: datetime, campaign: Campaign
) -> None:
    contacts.add(session, now, SECRET, campaign.id, "bob@people.example")
    empty = add_campaign(session)
    enrolling.welcome(session, now, empty.id, True)
    contacts.add(session, now, SECRET, empty.id, "ann@people.example")
    assert number(session, Schedule) == 0


def test_who_comes_back_into_the_batch_goes_on(
    session: Session, now: datetime, campaign: Campaign
) -> None:
    enrolling.welcome(session, now, campaign.id, True)
    ann = contacts.add(session, now, SECRET, campaign.id, "ann@people.example")
    contacts.remove(session, now, ann, campaign.id)
    assert standing(session) == [("hello", "cancelled"), ("how", "cancelled")]
    contacts.add(session, now, SECRET, campaign.id, "ann@people.example")
    assert standing(session) == [("hello", "pending"), ("how", "pending")]
    assert number(session, Schedule) == 1


def test_asking_for_the_batch_is_remembered_until_it_is_done(
    session: Session, now: datetime, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolling, "CHUNK", 3)
    monkeypatch.setattr(enrolling, "AT_ONCE", 3)
    add_contacts(session, campaign, 8)
    bell = Bell()
    assert enrolling.ask_batch(session, now, bell, campaign.id) == 5
    assert bell.rung == [("mcs.jobs.enrol_batch", (campaign.id,), f"enrol-{campaign.id}")]
    assert enrolling.asked(session) == [campaign.id]
    assert session.scalars(select(AuditEntry.detail)).one() == {"contacts": 8}
    enrolling.enrol_batch(session, now, campaign.id)
    assert enrolling.asked(session) == []
    assert enrolling.not_enrolled(session, campaign.id) == 0
    enrolling.enrol_batch(session, now, campaign.id)
    assert number(session, Schedule) == 8


def test_a_campaign_switched_off_or_moved_takes_its_sequence_with_it(
    session: Session, now: datetime, campaign: Campaign, settings: config.Settings
) -> None:
    queue = JobQueue(settings.redis_url)
    by = users.create_user(session, now, "o@shop.example", "seven green kettles", users.OWNER).id
    add_contact(session, campaign, "Ann")
    enrolling.ask_batch(session, now, Bell(), campaign.id)
    campaigns.deactivate(session, now, queue, campaign.id, by)
    assert {state for _, state in standing(session)} == {"cancelled"}
    campaigns.activate(session, now, queue, campaign.id, by)
    assert {state for _, state in standing(session)} == {"pending"}
    fields = campaigns.fields_of(find_campaign(session, campaign.id))
    shorter = Fields(**(fields.__dict__ | {"end_date": date(2026, 11, 23)}))
    campaigns.edit(session, now, queue, campaign.id, shorter, by)
    assert standing(session) == [("hello", "pending"), ("how", "cancelled")]


def test_two_who_add_steps_at_once_both_find_theirs(
    session: Session, sessions: sessionmaker[Session], now: datetime, campaign: Campaign
) -> None:
    table = {"note": lambda call: None}
    with sessions() as olga, sessions() as marie:
        definitions.steps_of(olga, campaign.id), definitions.steps_of(marie, campaign.id)
        for who, key in ((olga, "third"), (marie, "fourth")):
            step = Step(key, "note", "5days")
            editing.put(who, now, campaign.id, step, new=True, known=table)
    session.rollback()
    found = [step.key for step in definitions.steps_of(session, campaign.id)]
    assert found == ["hello", "how", "third", "fourth"]
