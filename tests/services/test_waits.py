"""Who waits for whom on PostgreSQL, where several write at a time. SQLite has one writer."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from time import monotonic, sleep
from typing import Any

import pytest
from sqlalchemy import Engine, event, select, text
from sqlalchemy.orm import Session, sessionmaker

from mcs.models import Campaign, Contact, Delivery, Scenario, Slice
from mcs.services import (
    deliveries,
    email_actions,
    email_starts,
    emailers,
    parting,
    planning,
    recorder,
    schedules,
    sequences,
    settling,
    slice_claims,
    steps,
    suppressions,
)
from mcs.services.schedules import subject_of
from mcs.services.steps import Outcome
from tests.conftest import wait_until
from tests.people import add_campaign, add_contact, add_scenario
from tests.services.conftest import LATE_LIMIT, LEASE, Scene
from tests.services.test_action_emails import Office, email_step, mails, message, office

__all__ = ["office"]


@pytest.fixture(autouse=True)
def postgres(engine: Engine) -> None:
    if engine.dialect.name != "postgresql":
        pytest.skip("SQLite has one writer at a time")


@pytest.fixture
def waiting(engine: Engine) -> Callable[[int], None]:
    """Wait until so many are waiting for a lock."""

    def wait(number: int) -> None:
        query = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        with engine.connect() as looking:
            wait_until(lambda: looking.scalar(query) >= number)

    return wait


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def suppress(sessions: sessionmaker[Session], now: datetime, key: str) -> bool:
    with sessions() as session:
        return suppressions.suppress(session, now, key, suppressions.UNSUBSCRIBED)


def test_an_emailer_planned_and_started_while_ann_unsubscribes_leaves_her_out(
    scene: Scene,
    sessions: sessionmaker[Session],
    waiting: Callable[[int], None],
    pool: ThreadPoolExecutor,
) -> None:
    """Her unsubscription waits for a slice of the first emailer, which a commit holds."""
    (ann,) = scene.add("Ann")
    key = ann.email_key
    scene.start()
    add_scenario(scene.session, scene.campaign, name="Second")
    scene.session.rollback()

    def start() -> int:
        with sessions() as session:
            (emailer_id,) = planning.plan_day(session, scene.now, scene.queue)
            emailers.send(session, scene.now, scene.queue, emailer_id, LATE_LIMIT)
            return emailer_id

    with sessions() as holding:
        holding.execute(select(Slice.id).with_for_update())
        unsubscribed = pool.submit(suppress, sessions, scene.now, key)
        waiting(1)
        second = pool.submit(start)
        waiting(2)
    assert unsubscribed.result(20)
    assert scene.counted(second.result(20)) == {"skipped": 1}
    scene.deliver_due()
    assert scene.mailbox.recipients == []


def test_a_slice_that_another_worker_is_claiming_is_left_to_it(
    scene: Scene, sessions: sessionmaker[Session], pool: ThreadPoolExecutor
) -> None:
    """Else both would hold it, the later one by overwriting the token of the earlier."""
    scene.slices_of(1)
    scene.add("Ann", "Bob")
    scene.start()
    first, second = scene.slice_ids()

    def claim() -> int | None:
        with sessions() as another:
            found = slice_claims.claim(another, scene.now, LEASE)
            return found and found.slice_id

    with sessions() as claiming:
        claiming.execute(select(Slice.id).where(Slice.id == first).with_for_update())
        assert pool.submit(claim).result(10) == second
        assert pool.submit(claim).result(10) is None


def test_a_first_step_defined_and_started_while_ann_unsubscribes_leaves_her_out(
    session: Session,
    sessions: sessionmaker[Session],
    office: Office,
    now: datetime,
    waiting: Callable[[int], None],
    pool: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    mail_server: Any,
) -> None:
    ann = enrolled_in_one_step(session, office, now)
    campaign = add_campaign(session)
    first = message(session, campaign, "First")
    step = email_step("first", first)
    campaign_id, contact_id, key = campaign.id, ann.id, ann.email_key
    session.rollback()
    born, go_on = threading.Event(), threading.Event()
    span = email_starts._span

    def span_slowly(*given: Any) -> None:
        born.set()
        assert go_on.wait(20)
        span(*given)

    def begin() -> object:
        with sessions() as another:
            sequences.define(another, now, campaign_id, [step])
            schedules.enrol(another, now, campaign_id, subject_of(contact_id))
            return email_starts.start(another, now)

    with sessions() as holding:
        holding.execute(select(Slice.id).with_for_update())
        unsubscribed = pool.submit(suppress, sessions, now, key)
        waiting(1)
        monkeypatch.setattr(email_starts, "_span", span_slowly)
        begun = pool.submit(begin)
        assert born.wait(20)
    waiting(1)
    go_on.set()
    assert begun.result(20)
    assert unsubscribed.result(20)
    monkeypatch.undo()
    office.send()
    assert mails(mail_server) == []


def enrolled_in_one_step(session: Session, office: Office, now: datetime) -> Contact:
    """Ann, whose first message is about to go."""
    campaign = add_campaign(session)
    sequences.define(session, now, campaign.id, [email_step("hello", message(session, campaign))])
    ann = add_contact(session, campaign, "Ann")
    schedules.enrol(session, now, campaign.id, subject_of(ann.id))
    office.start()
    return ann


def test_who_settles_a_sequence_and_who_unsubscribes_do_not_stop_each_other(
    session: Session,
    sessions: sessionmaker[Session],
    office: Office,
    now: datetime,
    waiting: Callable[[int], None],
    pool: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = enrolled_in_one_step(session, office, now).email_key
    campaign_id = session.scalars(select(Campaign.id)).one()
    claim = slice_claims.claim(session, now, LEASE)
    assert claim is not None
    (ann,) = slice_claims.load(session, now, claim)
    lost = Outcome(ann.id, "in_doubt", now, reason="nobody knows")
    for step in (
        deliveries.Step(claim, starts=[ann.id]),
        deliveries.Step(claim, outcomes=[lost]),
    ):
        deliveries.advance(session, now, LEASE, [step])
    slice_claims.release(session, now, claim, None)
    settling_now = threading.Event()
    record_served = email_actions.record_served

    def record_slowly(held: Session, scenario_id: int) -> None:
        settling_now.set()
        waiting(1)
        record_served(held, scenario_id)

    def settle() -> int:
        with sessions() as another:
            return settling.settle_of_sequence(another, now, office.queue, campaign_id, "sent")

    monkeypatch.setattr(email_actions, "record_served", record_slowly)
    settled = pool.submit(settle)
    assert settling_now.wait(20)
    unsubscribed = pool.submit(suppress, sessions, now, key)
    assert (settled.result(20), unsubscribed.result(20)) == (1, True)
    assert session.scalars(select(Scenario.contacts_served)).all() == [1]


def test_a_worker_that_froze_while_it_took_a_share_holds_up_nobody_for_long(
    scene: Scene, sessions: sessionmaker[Session]
) -> None:
    """PostgreSQL ends what it began, after 2 s."""
    scene.add_many(10)
    scene.start()
    scene.claim()
    frozen, awake = threading.Event(), threading.Event()
    parted = parting._parted

    def freeze(*given: Any) -> Any:
        frozen.set()
        awake.wait(30)
        return parted(*given)

    def take() -> object:
        with sessions() as session:
            return parting.take_share(session, scene.now, LEASE, [], 0, 1)

    scene.patch.setattr(parting, "_parted", freeze)
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(take)
        assert frozen.wait(20)
        begun = monotonic()
        emailers.pause(scene.session, scene.now, scene.emailer_id)
        waited = monotonic() - begun
        awake.set()
        assert taken.result(20) is None
    assert waited < 10
    assert scene.counted() == {"pending": 10}


def test_who_froze_in_the_middle_of_a_commit_writes_it_when_it_wakes(
    scene: Scene, engine: Engine
) -> None:
    """PostgreSQL has ended its transaction: what it has heard is not lost by that."""

    def impatient(connection: Any, _record: Any) -> None:
        connection.execute("SET idle_in_transaction_session_timeout = '200ms'")
        connection.commit()

    count = steps.count
    froze = False

    def freeze(connection: Any, slice_id: int, moved: Any) -> None:
        nonlocal froze
        if moved.get("sent") and not froze:
            froze = True
            sleep(1)
        count(connection, slice_id, moved)

    event.listen(engine, "connect", impatient)
    engine.dispose()
    try:
        # As no step of a sequence is.
        scene.patch.setattr(recorder, "is_plain", lambda _step: False)
        scene.patch.setattr(steps, "count", freeze)
        scene.add("Ann")
        scene.start()
        scene.deliver_due()
        assert froze
        assert scene.session.scalars(select(Delivery.state)).one() == "sent"
        assert scene.mailbox.recipients == ["ann@people.example"]
    finally:
        event.remove(engine, "connect", impatient)
        engine.dispose()
