"""The library, as a developer uses it: on a passed-in clock, and with real threads."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mcs.library import BadArgument, Call, CampaignScheduler
from tests.conftest import MONDAY, wait_until

DAY = timedelta(days=1)
DEFS = [
    {"id": "action1", "callback": "note", "interval": "0days"},
    {"id": "action2", "callback": "note", "interval": {"offset": "2days", "time": "10:00"}},
    {"id": "action3", "callback": "note", "interval": {"offset": "4days", "time": "10:00"}},
]


class Clock:
    """A clock that the story moves."""

    def __init__(self) -> None:
        self.at = MONDAY

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def noted() -> list[Call]:
    return []


@pytest.fixture
def scheduler(db: Any, clock: Clock, noted: list[Call]) -> Iterator[CampaignScheduler]:
    callbacks: dict[str, Callable[[Call], Any]] = {
        "note": noted.append,
        "fail": _fail,
        "tell": _tell,
    }
    with CampaignScheduler(callbacks, db, timezone="Europe/Berlin", clock=clock) as scheduler:
        yield scheduler


def _fail(call: Call) -> None:
    raise RuntimeError(f"no {call.attempt}")


def _tell(call: Call) -> dict[str, Any]:
    return {"to": dict(call.contact or {}), "config": dict(call.config)}


def test_jane_julie_and_jenny(
    scheduler: CampaignScheduler, clock: Clock, noted: list[Call]
) -> None:
    scheduler.upsert_campaign("after purchase", action_defs=DEFS)
    bought = {1: "Jane", 2: "Julie", 5: "Jenny"}
    happened: dict[int, list[str]] = {}
    for day in range(1, 11):
        if day in bought:
            scheduler.schedule("after purchase", "customer", bought[day])
        for _ in range(24):
            scheduler.run_due()
            clock.at += timedelta(hours=1)
        happened[day] = [f"{call.subject_id} {call.action_id}" for call in noted]
        noted.clear()
    assert {day: lines for day, lines in happened.items() if lines} == {
        1: ["Jane action1"],
        2: ["Julie action1"],
        3: ["Jane action2"],
        4: ["Julie action2"],
        5: ["Jane action3", "Jenny action1"],
        6: ["Julie action3"],
        7: ["Jenny action2"],
        9: ["Jenny action3"],
    }
    status = scheduler.get_status()
    assert status.counts["completed"] == 9
    assert status.drift_max == 0


def test_what_is_due_when_is_shown_before_it_is_saved(scheduler: CampaignScheduler) -> None:
    drawn = [*DEFS, {"id": "drawn", "callback": "note", "interval": "1day-9days"}]
    scheduler.upsert_campaign("c", action_defs=drawn)
    shown = scheduler.get_campaign_schedule("c", "contact", 1)
    assert scheduler.get_actions() == []
    assert scheduler.get_schedules() == []
    assert [one.expected_at for one in shown[:3]] == [
        MONDAY, datetime(2026, 11, 25, 9, 0, tzinfo=UTC), datetime(2026, 11, 27, 9, 0, tzinfo=UTC)
    ]  # fmt: skip
    scheduler.schedule("c", "contact", 1)
    made = {one.action_id: one.expected_at for one in scheduler.get_actions()}
    assert made == {one.action_id: one.expected_at for one in shown}
    assert scheduler.get_campaign_schedule("c", "contact", "1") == shown


def test_the_life_of_a_schedule(scheduler: CampaignScheduler, clock: Clock) -> None:
    scheduler.upsert_campaign("c", action_defs=DEFS)
    first = scheduler.schedule("c", "order", "A-17")
    scheduler.run_due()
    clock.at += DAY
    assert scheduler.schedule("c", "order", "A-17") == first
    # Case matters: another order.
    assert scheduler.schedule("c", "order", "a-17").id != first.id
    assert scheduler.unschedule("c", "order", "A-17")
    assert not scheduler.unschedule("c", "order", "nobody")
    assert _states(scheduler, "A-17") == ["completed", "cancelled", "cancelled"]
    assert scheduler.get_schedules(subject_id="A-17", active=False)[0].started_at == MONDAY
    scheduler.schedule("c", "order", "A-17")
    assert _states(scheduler, "A-17") == ["completed", "pending", "pending"]
    again = scheduler.schedule("c", "order", "A-17", restart=True)
    assert (again.run, again.started_at) == (2, clock.at)
    assert Counter(_states(scheduler, "A-17")) == {"completed": 1, "cancelled": 2, "pending": 3}


def _states(scheduler: CampaignScheduler, subject_id: str) -> list[str]:
    return [one.state for one in scheduler.get_actions(subject_id=subject_id, order="id")]


def test_a_campaign_is_switched_and_leaving_active_out_changes_nothing(
    scheduler: CampaignScheduler, clock: Clock
) -> None:
    scheduler.upsert_campaign("c", action_defs=DEFS)
    scheduler.schedule("c", "contact", 1)
    assert not scheduler.upsert_campaign("c", False).active
    clock.at += 3 * DAY
    assert scheduler.run_due() == 0
    assert not scheduler.upsert_campaign("c", action_defs=DEFS[:2]).active
    assert scheduler.upsert_campaign("c", True).active
    assert scheduler.upsert_campaign("c").active
    found = scheduler.get_actions(state="pending")
    assert [one.action_id for one in found] == ["action1", "action2"]
    assert found[0].expected_at == MONDAY
    assert scheduler.run_due() == 2
    (campaign,) = scheduler.get_campaigns("c")
    assert [one["id"] for one in campaign.action_defs] == ["action1", "action2"]
    # What is read can be written.
    assert scheduler.upsert_campaign("c", action_defs=campaign.action_defs) == campaign


def test_filters(scheduler: CampaignScheduler, clock: Clock) -> None:
    scheduler.upsert_campaign("c", action_defs=DEFS)
    weekly = {
        "id": "weekly",
        "callback": "note",
        "interval": "7days",
        "repeat": "every 1week, 3 times",
    }
    scheduler.upsert_campaign("d", action_defs=[weekly], end_date=date(2026, 12, 31))
    scheduler.schedule_many("c", [("contact", 1), ("contact", 2), ("order", "A-17")])
    scheduler.schedule("d", "contact", 1)
    clock.at += timedelta(minutes=1)
    assert scheduler.run_due(["d"]) == 0
    assert scheduler.run_due() == 3

    def count(**given: Any) -> int:
        return len(scheduler.get_actions(**given))

    assert count() == 12
    assert count(state="completed") == 3
    assert count(state=["completed", "pending"]) == 12
    assert count(campaign_id="d") == 3
    assert count(campaign_id=["c", "d"], subject="contact", subject_id=1) == 6
    assert count(subject=["order", "contact"]) == 12
    assert count(subject_id=[1, "A-17"]) == 9
    assert count(action_id="weekly") == 3
    assert count(action_id=["weekly.2", "action1"]) == 4
    assert count(expected_at=MONDAY) == 3
    assert count(expected_at=(MONDAY, MONDAY + 2 * DAY)) == 6
    assert count(expected_at=(MONDAY + 3 * DAY, None)) == 6
    assert count(completed_at=(None, clock.at)) == 3
    assert count(completed_at=(None, MONDAY)) == 0
    assert count(active=False) == 0
    assert count(limit=5) == 5
    latest = scheduler.get_actions(order="-expected_at", limit=1)[0]
    assert latest.action_id == "weekly.3"
    assert len(scheduler.get_schedules("c", "contact")) == 2
    assert len(scheduler.get_schedules(limit=1)) == 1


def test_errors_and_results_are_kept_whole(scheduler: CampaignScheduler, clock: Clock) -> None:
    defs = [
        {"id": "a", "callback": "fail", "interval": "0days", "attempts": 2},
        {"id": "b", "callback": "tell", "interval": "0days", "config": {"text": "ä" * 100_000}},
    ]
    scheduler.upsert_campaign("c", action_defs=defs)
    ada = {"email": "Ada@shop.example", "name": "Ada", "city": "Berlin"}
    scheduler.schedule("c", "order", 1, contact=ada)
    assert scheduler.run_due() == 2
    told = scheduler.get_actions(action_id="b")[0]
    assert told.result["to"]["attributes"] == {"city": "Berlin"}
    assert told.result["config"] == {"text": "ä" * 100_000}
    first = scheduler.get_actions(action_id="a")[0]
    assert (first.state, first.attempts) == ("pending", 1)
    assert "RuntimeError: no 1" in (first.error or "")
    clock.at += timedelta(hours=1)
    assert scheduler.run_due() == 1
    failed = scheduler.get_actions(state="failed")[0]
    assert "RuntimeError: no 2" in (failed.error or "")
    assert scheduler.retry(failed.id)
    assert scheduler.run_due() == 1
    # The same person by her address.
    schedule = scheduler.schedule("c", "order", 2, contact="ada@SHOP.example")
    assert schedule.contact_id == scheduler.get_schedules(subject_id=1)[0].contact_id


def test_destroying_asks_for_the_id_again(scheduler: CampaignScheduler) -> None:
    for id in ("c", "d"):
        scheduler.upsert_campaign(id, action_defs=DEFS)
        scheduler.schedule(id, "contact", 1)
    with pytest.raises(BadArgument, match="confirm"):
        scheduler.destroy_campaign("c", confirm="yes")
    scheduler.destroy_campaign("c", confirm="c")
    assert [one.id for one in scheduler.get_campaigns()] == ["d"]
    assert len(scheduler.get_actions()) == 3


def define(**given: Any) -> tuple[Any, ...]:
    """The arguments of an upsert with one definition too few things are right about."""
    return ("c", None, [{"id": "a"} | given])


@pytest.mark.parametrize(
    ("verb", "args", "given", "argument"),
    [
        ("upsert_campaign", ("",), {}, "id"),
        ("upsert_campaign", ("c", "yes"), {}, "active"),
        ("upsert_campaign", ("c",), {"timezone": "Mars"}, "timezone"),
        ("upsert_campaign", ("c",), {"start_date": "today"}, "start_date"),
        ("upsert_campaign", ("c",), {"end_date": date(1999, 1, 1)}, "end_date"),
        ("upsert_campaign", ("c",), {"past": "perhaps"}, "past"),
        ("upsert_campaign", ("c", None, {}), {}, "action_defs"),
        ("upsert_campaign", ("c", None, [{}]), {}, "action_defs[0].id"),
        ("upsert_campaign", define(callbak="x"), {}, "action_defs[0].callbak"),
        ("upsert_campaign", define(callback="note"), {}, "action_defs[0].interval"),
        ("upsert_campaign", define(callback="other", interval="1day"), {},
         "action_defs[0].callback"),
        ("upsert_campaign", define(callback="send_email", interval="1day"), {},
         "action_defs[0].callback"),
        ("upsert_campaign", define(callback="note", interval="30m"), {}, "action_defs[0].interval"),
        ("upsert_campaign", define(callback="note", interval={"offset": "30m"}), {},
         "action_defs[0].interval.offset"),
        ("upsert_campaign", define(callback="note", interval="1day", after="b"), {},
         "action_defs[0].after"),
        ("upsert_campaign", define(callback="note", interval="1day", attempts=0), {},
         "action_defs[0].attempts"),
        ("schedule", ("nowhere", "contact", 1), {}, "campaign_id"),
        ("schedule", ("here", "", 1), {}, "subject"),
        ("schedule", ("here", "contact", 1.5), {}, "subject_id"),
        ("schedule", ("here", "contact", 1), {"contact": "nobody"}, "contact"),
        ("schedule", ("here", "contact", 1), {"contact": 99}, "contact"),
        ("schedule", ("here", "contact", 1), {"contact": {"name": "Ann"}}, "contact"),
        ("schedule_many", ("here", ["contact"]), {}, "subjects"),
        ("schedule_many", ("here", [("contact", "")]), {}, "subjects: subject_id"),
        ("get_actions", (), {"state": "done"}, "state"),
        ("get_actions", (), {"action_id": "a b"}, "action_id"),
        ("get_actions", (), {"expected_at": datetime(2026, 1, 1)}, "expected_at"),  # noqa: DTZ001
        ("get_actions", (), {"order": "random"}, "order"),
        ("get_actions", (), {"limit": -1}, "limit"),
        ("add_worker", (0,), {}, "concurrency"),
        ("add_worker", (), {"poll_ms": "soon"}, "poll_ms"),
        ("add_worker", (), {"campaign_ids": ["nowhere"]}, "campaign_id"),
        ("retry", (99,), {}, "action"),
    ],
)  # fmt: skip
def test_errors_name_the_argument(
    quick: CampaignScheduler, verb: str, args: tuple[Any, ...], given: dict[str, Any], argument: str
) -> None:
    with pytest.raises(BadArgument) as refused:
        getattr(quick, verb)(*args, **given)
    assert refused.value.argument == argument
    assert [one.id for one in quick.get_campaigns()] == ["here"], "nothing was saved"


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CampaignScheduler]:
    db = {"storage": str(tmp_path_factory.mktemp("quick") / "library.db")}
    with CampaignScheduler({"note": print}, db) as scheduler:
        scheduler.upsert_campaign("here", action_defs=DEFS)
        yield scheduler


@pytest.mark.parametrize(
    ("callbacks", "db", "argument"),
    [
        ({"a": "print"}, None, "callbacks['a']"),
        ({"": print}, None, "callbacks"),
        ({"send_email": print}, None, "callbacks"),
        ({"webhook": print}, None, "callbacks"),
        ([print], None, "callbacks"),
        ({}, 7, "db"),
        ({}, {"dialekt": "sqlite"}, "db['dialekt']"),
        ({}, {"dialect": "oracle"}, "db['dialect']"),
        ({}, "oracle://here", "db"),
        ({}, "not a url", "db"),
        ({}, {"storage": ":memory:"}, "db"),
        ({}, {"dialect": "postgres"}, "db['database']"),
        ({}, {"storage": "x.db", "schema": "s"}, "db['schema']"),
    ],
)
def test_what_cannot_be_constructed(callbacks: Any, db: Any, argument: str) -> None:
    with pytest.raises(BadArgument) as refused:
        CampaignScheduler(callbacks, db)
    assert refused.value.argument == argument


def test_it_says_when_it_was_not_begun(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="init"):
        CampaignScheduler({}, f"sqlite:///{tmp_path}/a.db").get_campaigns()


def test_force_drops_the_library_s_tables_and_never_a_whole_mcs(
    db: Any, database_url: str, clock: Clock
) -> None:
    options = {"url": db} if isinstance(db, str) else dict(db)
    with CampaignScheduler({"note": print}, options, clock=clock) as scheduler:
        scheduler.upsert_campaign("c", action_defs=DEFS)
        scheduler.schedule("c", "contact", 1)
    with CampaignScheduler({}, options) as scheduler:
        assert len(scheduler.get_actions()) == 3
    with CampaignScheduler({}, options | {"force": True}) as scheduler:
        assert scheduler.get_campaigns() == []
    with pytest.raises(RuntimeError, match="users"):
        CampaignScheduler({}, {"url": database_url, "force": True}).init()


def test_it_works_in_the_database_of_a_whole_mcs(database_url: str, clock: Clock) -> None:
    with CampaignScheduler({"note": print}, database_url, clock=clock) as scheduler:
        scheduler.upsert_campaign("c", action_defs=DEFS)
        scheduler.schedule("c", "contact", 1)
        assert scheduler.run_due() == 1


def test_workers_run_what_is_due_and_what_is_scheduled_later(db: Any) -> None:
    ran: list[str] = []
    with CampaignScheduler({"note": lambda call: ran.append(call.subject_id)}, db) as scheduler:
        scheduler.upsert_campaign("c", action_defs=DEFS[:1])
        scheduler.schedule_many("c", [("contact", n) for n in range(300)])
        worker = scheduler.add_worker(concurrency=20)
        wait_until(lambda: scheduler.get_status().counts["completed"] == 300)
        # It sleeps for 15 seconds by now; scheduling wakes it.
        scheduler.schedule("c", "contact", "late")
        wait_until(lambda: "late" in ran, 5)
        assert scheduler.get_worker(worker.id) is worker
        scheduler.stop_workers()
        assert not worker.running
        scheduler.schedule("c", "contact", "later")
        assert "later" not in ran
        scheduler.start_workers()
        wait_until(lambda: "later" in ran, 5)
        scheduler.remove_workers(worker.id)
        assert scheduler.get_worker(worker.id) is None
    assert Counter(ran).most_common(1)[0][1] == 1
    assert len(ran) == 302


def test_two_workers_do_each_action_once_and_no_more_at_a_time_than_told(db: Any) -> None:
    ran: Counter[str] = Counter()
    together, most, lock = 0, 0, threading.Lock()

    def note(call: Call) -> None:
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
            ran[call.idempotency_key] += 1
        with lock:
            together -= 1

    with CampaignScheduler({"note": note}, db) as scheduler:
        scheduler.upsert_campaign("c", action_defs=DEFS[:1])
        scheduler.schedule_many("c", [("contact", n) for n in range(400)])
        for _ in range(2):
            scheduler.add_worker(concurrency=4)
        wait_until(lambda: scheduler.get_status().counts["completed"] == 400, 60)
    assert set(ran.values()) == {1}
    assert len(ran) == 400
    assert most <= 8


def test_callbacks_that_wait_do_so_side_by_side(db: Any) -> None:
    # None of them ends before all of them have begun.
    together = threading.Barrier(30)
    with CampaignScheduler({"note": lambda _call: together.wait(60) and None}, db) as scheduler:
        scheduler.upsert_campaign("c", action_defs=DEFS[:1])
        scheduler.schedule_many("c", [("contact", n) for n in range(90)])
        scheduler.add_worker(concurrency=30)
        wait_until(lambda: scheduler.get_status().counts["completed"] == 90, 60)


def test_one_that_takes_long_keeps_nobody_waiting(db: Any) -> None:
    go_on = threading.Event()

    def note(call: Call) -> None:
        if call.subject_id == "slow":
            go_on.wait(60)

    with CampaignScheduler({"note": note}, db) as scheduler:
        scheduler.upsert_campaign("c", action_defs=DEFS[:1])
        scheduler.schedule_many("c", [("contact", n) for n in (1, "slow", 2, 3, 4)])
        scheduler.add_worker(concurrency=3)
        wait_until(lambda: scheduler.get_status().counts["completed"] == 4, 60)
        assert [one.subject_id for one in scheduler.get_actions(state="processing")] == ["slow"]
        go_on.set()


def test_a_callback_that_exits_has_failed_and_stops_nobody(db: Any) -> None:
    def note(call: Call) -> None:
        if call.subject_id == "1":
            raise SystemExit(3)

    with CampaignScheduler({"note": note}, db) as scheduler:
        scheduler.upsert_campaign("c", action_defs=DEFS[:1])
        scheduler.schedule_many("c", [("contact", n) for n in range(5)])
        scheduler.add_worker()
        wait_until(lambda: scheduler.get_status().counts["completed"] == 4, 60)
        wait_until(lambda: scheduler.get_status().counts["failed"] == 1, 60)
        assert "SystemExit: 3" in (scheduler.get_actions(state="failed")[0].error or "")


def test_thousands_at_once(db: Any) -> None:
    subjects: list[tuple[str, str | int]] = [("contact", n) for n in range(4100)]
    with CampaignScheduler({"note": print}, db) as scheduler:
        scheduler.upsert_campaign("c", action_defs=DEFS[:2])
        scheduler.schedule("c", "contact", 3000)
        did = scheduler.schedule_many("c", [*subjects, ("contact", 0)])
        assert did == {"began": 4099, "resumed": 0, "nothing": 2}
        assert scheduler.get_status().counts["pending"] == 8200
        assert len(scheduler.get_schedules()) == 4100


def test_closing_waits_for_what_runs_and_records_it(db: Any) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(_call: Call) -> str:
        begun.set()
        go_on.wait(20)
        return "done"

    scheduler = CampaignScheduler({"note": slow}, db).init()
    scheduler.upsert_campaign("c", action_defs=DEFS[:1])
    scheduler.schedule("c", "contact", 1)
    scheduler.add_worker()
    assert begun.wait(20)
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    go_on.set()
    closing.join(20)
    with CampaignScheduler({}, db) as again:
        assert [(one.state, one.result) for one in again.get_actions()] == [("completed", "done")]


def test_a_long_callback_keeps_its_lease(tmp_path: Path) -> None:
    clock, runs, go_on = Clock(), [], threading.Event()

    def slow(call: Call) -> None:
        runs.append(call)
        go_on.wait(20)

    db = {"storage": str(tmp_path / "library.db")}
    with CampaignScheduler({"note": slow}, db, clock=clock, lease_seconds=3) as scheduler:
        scheduler.upsert_campaign("c", action_defs=DEFS[:1])
        scheduler.schedule("c", "contact", 1)
        scheduler.add_worker(poll_ms=10)
        wait_until(lambda: len(runs) == 1)
        for _ in range(5):
            clock.at += timedelta(seconds=1.5)
            scheduler._workers[1]._runner.wake()
            wait_until(lambda: _lease(scheduler) > clock.at)
        go_on.set()
    assert len(runs) == 1


def _lease(scheduler: CampaignScheduler) -> datetime:
    from sqlalchemy import select

    from mcs.models import Action

    with scheduler._sessions() as session:
        return session.scalars(select(Action.lease_until)).one() or MONDAY


def test_two_instances_do_not_touch_each_other(tmp_path: Path, clock: Clock) -> None:
    ran: list[str] = []
    one, two = (
        CampaignScheduler(
            {"note": lambda _call, name=name: ran.append(name)},
            {"storage": str(tmp_path / f"{name}.db")},
            clock=clock,
        ).init()
        for name in ("one", "two")
    )
    for scheduler in (one, two):
        scheduler.upsert_campaign("c", action_defs=DEFS)
    one.schedule("c", "contact", 1)
    assert two.get_schedules() == []
    assert (two.run_due(), one.run_due(), ran) == (0, 1, ["one"])
    one.add_worker()
    two.close()
    assert one.get_status().workers == 1
    one.close()


def test_a_webhook_that_is_not_answered_is_the_action_s_error(tmp_path: Path) -> None:
    hook = {"url": "https://127.0.0.1:1/", "secret": "0123456789abcdef"}
    step = {"id": "a", "callback": "webhook", "interval": "0days", "config": hook}
    db = {"storage": str(tmp_path / "library.db")}
    with CampaignScheduler({}, db, webhook_allow=["127.0.0.1:1"]) as scheduler:
        scheduler.upsert_campaign("c", action_defs=[step])
        scheduler.schedule("c", "order", 1)
        scheduler.run_due()
        (action,) = scheduler.get_actions()
        assert action.state == "failed"
        assert "did not answer" in (action.error or "")
    with (
        CampaignScheduler({}, db) as scheduler,
        pytest.raises(BadArgument, match=r"action_defs\[0\].config.url: .* not a public address"),
    ):
        scheduler.upsert_campaign("c", action_defs=[step])


def test_the_library_needs_no_flask_and_no_redis() -> None:
    import subprocess
    import sys

    code = (
        "import sys, mcs.library; print([m for m in ('flask', 'redis', 'rq') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
