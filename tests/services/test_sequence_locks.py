"""Who waits for whom: pages for nobody, workers and editors never for each other in a ring."""

from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, event, func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from mcs.models import Action, ActionDefinition, Batch, Campaign, Schedule
from mcs.services import definitions, endings, exchanges, schedules, sequences
from mcs.services.claims import Claimed
from mcs.services.definitions import Step
from mcs.services.schedules import Subject
from mcs.services.transactions import writing
from tests.conftest import wait_until
from tests.people import add_campaign

LEASE = timedelta(seconds=45)
STEPS = [Step("a", "note", "0days"), Step("b", "note", "1h", after="a", on_failure="skip")]
LAST = date(2026, 11, 30)


@pytest.fixture
def campaign(session: Session, now: datetime) -> Campaign:
    """Ann has begun it."""
    campaign = add_campaign(session, timezone="UTC", end_date=LAST)
    sequences.define(session, now, campaign.id, STEPS)
    schedules.enrol(session, now, campaign.id, Subject("order", "Ann"))
    return campaign


def claim(session: Session, at: datetime) -> list[Claimed]:
    return exchanges.exchange(session, at, [], lease=LEASE, room=10, die=0.5, callbacks=["note"])


def standing(session: Session) -> list[tuple[str, str]]:
    session.rollback()
    rows = session.execute(select(Action.key, Action.state).order_by(Action.key))
    return [(key, state) for key, state in rows]


def wait_for_a_waiter(session: Session, other: Future[Any]) -> None:
    """Until the other waits for a lock; SQLite, where all who write wait, has none to look at."""
    if session.get_bind().dialect.name == "postgresql":
        waits = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        wait_until(lambda: other.done() or session.scalar(waits) == 1)


def test_pages_do_not_wait_behind_an_edit(
    session: Session, sessions: sessionmaker[Session], campaign: Campaign, now: datetime
) -> None:
    number, ann = campaign.id, Subject("order", "Ann")

    def look() -> list[object]:
        with sessions() as page:
            return [
                sequences.outlook(page, now, number, ann).run,
                sequences.foresight(page, now, number).run,
                sequences.preview(page, now, number, STEPS).subjects,
                sequences.activation(page, now, number).subjects,
                sequences.effect_of_days(page, now, number, LAST, LAST, "UTC").run.move,
            ]

    with ThreadPoolExecutor(1) as thread, writing(session):
        definitions.load(session, number, to_edit=True)
        assert thread.submit(look).result(timeout=20) == [1, 1, 0, 0, 1]


def test_what_is_due_after_the_last_day_is_cancelled_beside_an_edit(
    session: Session, sessions: sessionmaker[Session], campaign: Campaign, now: datetime
) -> None:
    """The editor holds the campaign and comes for its actions, which the worker must not hold."""

    def work() -> list[Claimed]:
        with sessions() as worker:
            return claim(worker, now + timedelta(days=30))

    with ThreadPoolExecutor(1) as thread:
        with writing(session):
            definitions.load(session, campaign.id, to_edit=True)
            worker = thread.submit(work)
            wait_for_a_waiter(session, worker)
            sequences.define_within(session, now, campaign.id, [STEPS[0]])
            session.execute(select(Action.id).with_for_update()).all()
        assert worker.result(timeout=20) == []
    assert standing(session) == [("a", "cancelled"), ("b", "cancelled")]


@pytest.fixture
def longer(session: Session, campaign: Campaign, now: datetime) -> Campaign:
    """Bob has begun it. It is not over when Ann's is."""
    longer = add_campaign(session, key="longer", timezone="UTC", end_date=date(2026, 12, 31))
    sequences.define(session, now, longer.id, [STEPS[0]])
    schedules.enrol(session, now, longer.id, Subject("order", "Bob"))
    return longer


def test_who_has_claimed_hears_of_it_though_another_campaign_is_destroyed_meanwhile(
    session: Session,
    sessions: sessionmaker[Session],
    campaign: Campaign,
    longer: Campaign,
    now: datetime,
    caplog: pytest.LogCaptureFixture,
) -> None:
    number = campaign.id
    session.rollback()

    def destroy(_session: Session) -> None:
        mine = select(Schedule.id).where(Schedule.campaign_id == number)
        with sessions() as other, writing(other):
            other.execute(delete(Action).where(Action.schedule_id.in_(mine)))
            other.execute(delete(Schedule).where(Schedule.campaign_id == number))
            other.execute(delete(ActionDefinition).where(ActionDefinition.campaign_id == number))
            other.execute(delete(Batch).where(Batch.campaign_id == number))
            other.execute(delete(Campaign).where(Campaign.id == number))

    event.listen(session, "after_commit", destroy, once=True)
    assert [one.subject_id for one in claim(session, now + timedelta(days=9))] == ["Bob"]
    assert standing(session) == [("a", "processing")]
    assert not caplog.records


def test_who_has_claimed_hears_of_it_though_the_database_then_refuses(
    session: Session,
    longer: Campaign,
    now: datetime,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*_given: object) -> None:
        raise OperationalError("cancelling", None, Exception("deadlock detected"))

    with monkeypatch.context() as patch:
        patch.setattr(endings, "_cancel", refuse)
        assert [one.subject_id for one in claim(session, now + timedelta(days=9))] == ["Bob"]
    assert "deadlock detected" in caplog.text
    assert sorted(standing(session)) == [("a", "pending"), ("a", "processing"), ("b", "pending")]
    assert claim(session, now + timedelta(days=9)) == []
    assert sorted(standing(session)) == [
        ("a", "cancelled"),
        ("a", "processing"),
        ("b", "cancelled"),
    ]


def test_a_dead_worker_s_actions_come_back_beside_an_edit(
    session: Session, sessions: sessionmaker[Session], campaign: Campaign, now: datetime
) -> None:
    assert len(claim(session, now)) == 1

    def work() -> int:
        with sessions() as worker:
            return endings.rescue(worker, now + LEASE * 2)

    with ThreadPoolExecutor(1) as thread:
        with writing(session):
            definitions.load(session, campaign.id, to_edit=True)
            worker = thread.submit(work)
            wait_for_a_waiter(session, worker)
            session.execute(select(Action.id).with_for_update()).all()
        assert worker.result(timeout=20) == 1
    assert standing(session) == [("a", "pending"), ("b", "pending")]


def test_two_who_restart_at_once_begin_one_run(
    session: Session, sessions: sessionmaker[Session], campaign: Campaign, now: datetime
) -> None:
    """Both have seen the same run; the second finds that it has been restarted."""
    number, ann = campaign.id, Subject("order", "Ann")

    def restart(at: datetime) -> str:
        with sessions() as session:
            return schedules.enrol(session, at, number, ann, restart=True, ends=1).did

    with ThreadPoolExecutor(4) as threads:
        did = list(threads.map(restart, [now + timedelta(seconds=n) for n in range(4)]))
    assert sorted(did) == ["began", "nothing", "nothing", "nothing"]
    session.rollback()
    assert session.scalar(select(func.max(Schedule.run))) == 2
    assert session.scalar(select(func.count()).where(Schedule.active)) == 1
    # Who asks later, asks for one more.
    assert schedules.enrol(session, now, number, ann, restart=True).run == 3


def test_a_restart_that_came_too_late_leaves_what_was_withdrawn(
    session: Session, campaign: Campaign, now: datetime
) -> None:
    ann = Subject("order", "Ann")
    schedules.enrol(session, now, campaign.id, ann, restart=True)
    schedules.unschedule(session, now, campaign.id, "order", "Ann")
    late = schedules.enrol(session, now, campaign.id, ann, restart=True, ends=1)
    assert (late.did, late.run) == ("nothing", 2)
    assert session.scalar(select(func.count()).where(Schedule.active)) == 0


def test_leases_are_found_by_their_index(
    session: Session, campaign: Campaign, now: datetime
) -> None:
    claim(session, now)
    dialect = session.get_bind().dialect.name
    if dialect == "postgresql":
        session.execute(text("SET enable_seqscan = off"))
    how = "EXPLAIN" if dialect == "postgresql" else "EXPLAIN QUERY PLAN"
    asked = text(f"{how} SELECT min(lease_until) FROM actions WHERE lease_until IS NOT NULL")
    told = " ".join(str(row) for row in session.execute(asked))
    assert "ix_actions_lease_until" in told
