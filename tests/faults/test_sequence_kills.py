"""Kill what runs sequences, and see that every action comes to its end all the same."""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, text

from mcs.models import Contact
from mcs.services import bulk, sequences, settling
from mcs.services.definitions import SEND_EMAIL, Step
from mcs.services.schedules import subject_of
from tests.conftest import wait_until
from tests.faults import auditor
from tests.faults.conftest import Begin
from tests.faults.receiver import Receiver
from tests.faults.world import CONNECTIONS, RECOVERY_SECONDS, World
from tests.people import add_scenario

Seeds = Callable[[int, int], range]
# So 50 kills fall among 20,000 actions.
SUBJECTS_A_KILL = 100
# A lease where nobody dies: on a busy machine three seconds can pass in which nothing is done.
UNHURRIED = "45"
SECRET = "a secret of 24 characters"
CALLS_AT_ONCE = 50


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def hook(key: str, receiver: Receiver, **given: str) -> Step:
    config = {"url": f"http://{receiver.place}/hook", "secret": SECRET}
    return Step(key, "webhook", given.pop("offset", "0days"), config=config, **given)  # type: ignore[arg-type]


def email(key: str, here: World, **given: str) -> Step:
    with here.sessions() as session:
        scenario = add_scenario(
            session, here.campaign(session), name=key, date=None, time=None, state="draft"
        )
        config = {"scenario": scenario.id}
        session.commit()
    return Step(key, SEND_EMAIL, "0days", config=config, **given)  # type: ignore[arg-type]


def define(here: World, *steps: Step) -> None:
    with here.sessions() as session:
        sequences.define(session, datetime.now(UTC), here.campaign_id, steps)


def enrol_all(here: World, began: datetime | None = None) -> None:
    with here.sessions() as session:
        people = session.scalars(select(Contact.id).order_by(Contact.id)).all()
        who = [subject_of(id) for id in people]
        bulk.enrol(session, began or datetime.now(UTC), here.campaign_id, who)


def counts(here: World, table: str = "actions") -> Counter[str]:
    query = f"SELECT state, COUNT(*) FROM {table} GROUP BY state"
    with here.engine.connect() as connection:
        return Counter(dict(connection.execute(text(query)).all()))


def audit_webhooks(here: World, receiver: Receiver, number: int, again: int) -> None:
    """Each was heard, always with one key that is nobody else's; so many more than once."""
    calls = {(one.subject_id, one.action, one.key) for one in receiver.heard}
    assert len(calls) == number
    assert len({key for _, _, key in calls}) == number
    assert len({(subject, action) for subject, action, _ in calls}) == number
    assert len(receiver.heard) - number <= again, counts(here)


@pytest.mark.short
def test_two_workers_call_each_webhook_once_and_none_early(
    world: Begin, receiver: Receiver
) -> None:
    here = world(MCS_WEBHOOK_ALLOW=receiver.place, MCS_LEASE_SECONDS=UNHURRIED)
    here.people(200)
    define(here, hook("now", receiver, offset="1hour"), hook("then", receiver, offset="1hour 4s"))
    here.begin(workers=2)
    due = datetime.now(UTC) + timedelta(seconds=5)
    enrol_all(here, due - timedelta(hours=1))
    here.wait_for(lambda: counts(here)["completed"] == 400)
    audit_webhooks(here, receiver, 400, again=0)
    for action, at in (("now", due), ("then", due + timedelta(seconds=4))):
        assert min(one.at for one in receiver.heard if one.action == action) >= at.timestamp()


@pytest.mark.short
def test_sigterm_ends_what_runs_and_the_next_worker_does_the_rest(
    world: Begin, receiver: Receiver
) -> None:
    receiver.seconds = 1.0
    here = world(MCS_WEBHOOK_ALLOW=receiver.place, MCS_LEASE_SECONDS=UNHURRIED)
    here.people(300)
    define(here, hook("now", receiver))
    here.begin()
    enrol_all(here)
    wait_until(lambda: len(receiver.heard) > 60, 60)
    began = time.monotonic()
    here.kill("worker-0", signal.SIGTERM)
    assert time.monotonic() - began < 25
    assert counts(here)["processing"] == 0, "what ran was waited for"
    assert counts(here)["completed"] == len(receiver.heard) < 300
    receiver.seconds = 0.0
    here.worker("worker-0")
    here.wait_for(lambda: counts(here)["completed"] == 300)
    audit_webhooks(here, receiver, 300, again=0)


@pytest.mark.short
def test_kill_9_across_emails_and_webhooks(world: Begin, receiver: Receiver, seeds: Seeds) -> None:
    kills = len(seeds(50, 2))
    subjects = SUBJECTS_A_KILL * kills
    actions = 4 * subjects
    here = world(MCS_WEBHOOK_ALLOW=receiver.place)
    here.people(subjects)
    define(
        here,
        email("hello", here),
        hook("told", receiver),
        email("tea", here, after="hello", on_failure="go_on"),
        hook("done", receiver, after="told"),
    )
    here.begin(workers=2)
    enrol_all(here)
    killed = _kill_along(here, kills, actions)
    here.wait_for(lambda: _idle(here), max(RECOVERY_SECONDS, subjects / 10))
    in_doubt = counts(here, "deliveries")["in_doubt"]
    print(f"{killed} kills: {dict(counts(here))}, {in_doubt} in doubt,"
          f" {len(receiver.heard) - 2 * subjects} webhooks again")  # fmt: skip
    assert in_doubt <= CONNECTIONS * killed
    _settle(here)
    here.wait_for(lambda: counts(here)["completed"] == actions)
    assert counts(here) == {"completed": actions}
    assert counts(here, "deliveries") == {"sent": 2 * subjects}
    taken = Counter(one.delivery for one in auditor.accepted(here.folder))
    assert len(taken) == 2 * subjects
    assert set(taken.values()) == {1}, "no email twice"
    audit_webhooks(here, receiver, 2 * subjects, again=CALLS_AT_ONCE * killed)


def _kill_along(here: World, kills: int, actions: int) -> int:
    """Kill horses, and at times a worker with its horse, as the work advances; how many died."""
    killed = 0
    for number in range(kills):
        share = number * actions // kills
        wait_until(lambda share=share: counts(here)["completed"] > share, 600)  # type: ignore[misc]
        wait_until(lambda: bool(here.horses()), 60)
        killed += here.kill_horses()
        if random.Random(number).random() < 0.2:
            here.kill("worker-1")
            here.worker("worker-1")
    return killed


def _idle(here: World) -> bool:
    """Nothing moves any more by itself: all has ended, or waits for who settles what is in doubt
    (what comes after it has no moment yet)."""
    with here.engine.connect() as connection:
        moving = connection.scalar(
            text(
                "SELECT (SELECT COUNT(*) FROM deliveries WHERE state IN ('pending', 'sending'))"
                " + (SELECT COUNT(*) FROM actions WHERE state = 'pending' AND due_at IS NOT NULL)"
                " + (SELECT COUNT(*) FROM actions WHERE lease_until IS NOT NULL)"
            )
        )
    return moving == 0


def _settle(here: World) -> None:
    """Somebody looks into the mail server's log, and says of each what became of it."""
    while True:
        taken = {one.delivery for one in auditor.accepted(here.folder)}
        with here.engine.connect() as connection:
            doubts = connection.execute(
                text("SELECT id, message_id FROM deliveries WHERE state = 'in_doubt'")
            ).all()
        if not doubts:
            return
        with here.sessions() as session:
            for row in doubts:
                answer = "sent" if row.message_id in taken else "again"
                settling.settle_of_sequence(
                    session, datetime.now(UTC), here.queue, here.campaign_id, answer, row.id
                )
