"""Sequences: Jane, Julie and Jenny each at their own moments, whatever happens on the way."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, select, update
from sqlalchemy.orm import Session, sessionmaker

from mcs.core import sequences as core
from mcs.models import Action, Campaign, Schedule, configure_engine
from mcs.services import (
    actions,
    bulk,
    claims,
    definitions,
    endings,
    exchanges,
    failures,
    schedules,
    sequences,
)
from mcs.services.claims import Claimed
from mcs.services.definitions import Step
from mcs.services.endings import Ended
from mcs.services.schedules import Refused, Subject
from mcs.services.transactions import writing
from tests.people import add_campaign, add_contact, add_scenario

LEASE = timedelta(seconds=60)
STEPS = [
    Step("action1", "note", "0days"),
    Step("action2", "note", "2days", "10:00"),
    Step("action3", "note", "4days", "10:00"),
]
DAY = timedelta(days=1)


@pytest.fixture
def campaign(session: Session, now: datetime) -> Campaign:
    campaign = add_campaign(session, end_date=date(2026, 12, 31))
    sequences.define(session, now, campaign.id, STEPS)
    return campaign


def enrol(session: Session, at: datetime, campaign: Campaign, name: str, **given: Any) -> Any:
    return schedules.enrol(session, at, campaign.id, Subject("contact", name), **given)


def run(session: Session, at: datetime, ended: Any = (), **given: Any) -> list[Claimed]:
    given = {"room": 100, "die": 0.5, "callbacks": ["note"], "lease": LEASE} | given
    return exchanges.exchange(session, at, list(ended), **given)


def run_all(session: Session, at: datetime) -> list[str]:
    """What runs at a moment, to the end: subject and action."""
    names: list[str] = []
    claimed = run(session, at)
    while claimed:
        names += [f"{one.subject_id} {one.action_id}" for one in claimed]
        claimed = run(session, at, [Ended(one) for one in claimed])
    return names


def table(session: Session, name: str) -> list[str]:
    session.rollback()
    rows = session.execute(
        select(Action)
        .join(Schedule, Schedule.id == Action.schedule_id)
        .where(Schedule.subject_id == name)
        .order_by(Schedule.run, Action.key, Action.occurrence)
        .execution_options(populate_existing=True)
    ).scalars()
    return [
        f"{row.key} {row.state} {row.expected_at:%d %H:%M}" if row.expected_at
        else f"{row.key} {row.state} waits"
        for row in rows
    ]  # fmt: skip


def test_three_customers_each_on_their_own_days(
    session: Session, now: datetime, campaign: Campaign
) -> None:
    day1 = now
    for name, bought in (("Jane", 0), ("Julie", 1), ("Jenny", 4)):
        enrol(session, day1 + bought * DAY, campaign, name)
    happened: dict[int, list[str]] = {}
    for hour in range(24 * 10):
        at = day1 + timedelta(hours=hour)
        for line in run_all(session, at):
            happened.setdefault(hour // 24 + 1, []).append(line)
    assert happened == {
        1: ["Jane action1"],
        2: ["Julie action1"],
        3: ["Jane action2"],
        4: ["Julie action2"],
        5: ["Jane action3", "Jenny action1"],
        6: ["Julie action3"],
        7: ["Jenny action2"],
        9: ["Jenny action3"],
    }


def test_nothing_runs_early_and_the_oldest_goes_first(
    session: Session, now: datetime, campaign: Campaign
) -> None:
    enrol(session, now + timedelta(microseconds=2), campaign, "Julie")
    enrol(session, now, campaign, "Jane")
    assert claims.next_due(session, ["note"]) == now
    assert run(session, now - timedelta(microseconds=1)) == []
    assert [one.subject_id for one in run(session, now)] == ["Jane"]
    assert claims.next_due(session, ["note"]) == now + timedelta(microseconds=2)
    assert run(session, now + timedelta(microseconds=1)) == []
    assert [one.subject_id for one in run(session, now + timedelta(microseconds=2))] == ["Julie"]


def test_enrolling_twice_is_one_schedule(
    session: Session, now: datetime, campaign: Campaign
) -> None:
    first = enrol(session, now, campaign, "Jane")
    again = enrol(session, now + DAY, campaign, "Jane")
    assert (first.did, again.did) == ("began", "nothing")
    assert first.schedule_id == again.schedule_id
    assert len(table(session, "Jane")) == 3


def test_withdrawn_and_back_from_the_original_start(
    session: Session, now: datetime, campaign: Campaign
) -> None:
    enrol(session, now, campaign, "Jane")
    run_all(session, now)
    assert schedules.unschedule(session, now + DAY, campaign.id, "contact", "Jane")
    assert not schedules.unschedule(session, now + DAY, campaign.id, "contact", "Jane")
    assert table(session, "Jane") == [
        "action1 completed 23 09:00", "action2 cancelled 25 09:00", "action3 cancelled 27 09:00",
    ]  # fmt: skip
    assert run_all(session, now + 3 * DAY) == []
    assert enrol(session, now + 3 * DAY, campaign, "Jane").did == "resumed"
    assert table(session, "Jane") == [
        "action1 completed 23 09:00", "action2 pending 25 09:00", "action3 pending 27 09:00",
    ]  # fmt: skip
    assert run_all(session, now + 3 * DAY) == ["Jane action2"]


def test_a_restart_is_a_new_run(session: Session, now: datetime, campaign: Campaign) -> None:
    enrol(session, now, campaign, "Jane")
    run_all(session, now)
    second = enrol(session, now + DAY, campaign, "Jane", restart=True)
    assert second.run == 2
    assert table(session, "Jane") == [
        "action1 completed 23 09:00", "action2 cancelled 25 09:00", "action3 cancelled 27 09:00",
        "action1 pending 24 09:00", "action2 pending 26 09:00", "action3 pending 28 09:00",
    ]  # fmt: skip


def test_a_campaign_switched_off_and_on(
    session: Session, now: datetime, campaign: Campaign
) -> None:
    enrol(session, now, campaign, "Jane")
    run_all(session, now)
    campaign.active = False
    session.commit()
    assert run_all(session, now + 3 * DAY) == []
    sequences.realign(session, now + DAY, campaign.id)
    assert Counter(line.split()[1] for line in table(session, "Jane")) == {
        "completed": 1, "cancelled": 2,
    }  # fmt: skip
    enrol(session, now + DAY, campaign, "Julie")
    assert run_all(session, now + 3 * DAY) == []
    campaign.active = True
    session.commit()
    for _ in range(2):
        sequences.realign(session, now + 3 * DAY, campaign.id)
    assert table(session, "Jane")[1:] == ["action2 pending 25 09:00", "action3 pending 27 09:00"]
    assert run_all(session, now + 3 * DAY) == ["Julie action1", "Jane action2", "Julie action2"]


def test_an_edit_says_what_it_moves_and_moves_only_that(
    session: Session, now: datetime, campaign: Campaign
) -> None:
    for name in ("Jane", "Julie"):
        enrol(session, now, campaign, name)
    run_all(session, now)
    edited = [
        STEPS[0],
        STEPS[1],
        Step("action3", "note", "5days", "10:00"),
        Step("action4", "note", "1day", "11:00"),
    ]
    for verb in (sequences.preview, sequences.define):
        tally = verb(session, now, campaign.id, edited)
        assert (tally.subjects, tally.move, tally.appear, tally.vanish) == (2, 2, 2, 0)
    assert table(session, "Jane") == [
        "action1 completed 23 09:00", "action2 pending 25 09:00",
        "action3 pending 28 09:00", "action4 pending 24 10:00",
    ]  # fmt: skip
    tally = sequences.define(session, now, campaign.id, STEPS[:1])
    assert (tally.vanish, tally.subjects) == (6, 2)
    assert run_all(session, now + 9 * DAY) == []
    # What was taken out comes back when the step does.
    sequences.define(session, now, campaign.id, STEPS)
    assert table(session, "Jane")[:3] == [
        "action1 completed 23 09:00", "action2 pending 25 09:00", "action3 pending 27 09:00",
    ]  # fmt: skip


def test_a_step_after_the_last_day_takes_nothing_away(
    session: Session, now: datetime, campaign: Campaign
) -> None:
    for name in ("Jane", "Julie"):
        enrol(session, now, campaign, name)
    after_it = Step("action5", "note", "1day", after="action3")
    for verb in (sequences.preview, sequences.define):
        tally = verb(session, now, campaign.id, [*STEPS, Step("action4", "note", "60days")])
        assert (tally.subjects, tally.never, tally.appear, tally.vanish) == (2, 2, 0, 0)
        assert tally.shifts["action4", "never"].reasons == {core.TOO_LATE}
        assert tally.moves_none
    # One that waits for another will have a moment yet.
    tally = sequences.preview(session, now, campaign.id, [*STEPS, after_it])
    assert (tally.never, tally.appear) == (0, 2)


@pytest.mark.parametrize(("past", "runs"), [("skip", []), ("run", ["Jane action4"])])
def test_a_new_step_whose_moment_has_passed(
    session: Session, now: datetime, campaign: Campaign, past: str, runs: list[str]
) -> None:
    enrol(session, now, campaign, "Jane")
    run_all(session, now)
    edited = [*STEPS, Step("action4", "note", "1hour")]
    later = now + DAY
    told = sequences.preview(session, later, campaign.id, edited, past)
    made = sequences.define(session, later, campaign.id, edited, past)
    assert told == made
    assert (made.skipped, made.at_once) == ((1, 0) if past == "skip" else (0, 1))
    assert run_all(session, later) == runs
    sequences.realign(session, later, campaign.id)
    assert run_all(session, later) == []


def test_a_step_after_another_counts_from_its_completion(
    session: Session, now: datetime, campaign: Campaign
) -> None:
    steps = [STEPS[0], Step("thanks", "note", "2days", "10:00", after="action1")]
    sequences.define(session, now, campaign.id, steps)
    enrol(session, now, campaign, "Jane")
    assert table(session, "Jane")[1] == "thanks pending waits"
    claimed = run(session, now + DAY)
    run(session, now + DAY + timedelta(hours=3), [Ended(one) for one in claimed], room=0)
    assert table(session, "Jane")[1] == "thanks pending 26 09:00"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("wait", "pending waits"), ("skip", "cancelled waits"), ("go_on", "pending 23 10:00")],
)
def test_a_step_after_one_that_failed(
    session: Session, now: datetime, campaign: Campaign, choice: str, expected: str
) -> None:
    steps = [STEPS[0], Step("thanks", "note", "1hour", after="action1", on_failure=choice)]
    sequences.define(session, now, campaign.id, steps)
    enrol(session, now, campaign, "Jane")
    run(session, now, [Ended(one, error="no") for one in run(session, now)], room=0)
    assert table(session, "Jane") == ["action1 failed 23 09:00", f"thanks {expected}"]
    # A person has it tried again: now it goes well, and so does what comes after.
    failed = session.scalars(select(Action.id).where(Action.state == "failed")).one()
    assert failures.retry_one(session, now, failed)
    assert not failures.retry_one(session, now, failed)
    run_all(session, now + timedelta(hours=1))
    assert table(session, "Jane")[0] == "action1 completed 23 09:00"
    assert table(session, "Jane")[1].split()[1] in ("pending", "completed")


def test_a_failure_is_tried_again_with_patience(
    session: Session, now: datetime, campaign: Campaign
) -> None:
    sequences.define(session, now, campaign.id, [Step("action1", "note", "0days", max_attempts=3)])
    enrol(session, now, campaign, "Jane")
    at, keys = now, set()
    for attempt in (1, 2, 3):
        (claimed,) = run(session, at)
        assert claimed.attempt == attempt
        keys.add(claimed.idempotency_key)
        run(session, at, [Ended(claimed, error=f"no {attempt}" * 1000)], room=0)
        assert run(session, at) == []
        at = claims.next_due(session, ["note"]) or at
    assert at == now + timedelta(minutes=6)
    action = session.scalars(select(Action)).one()
    assert (action.state, action.attempts, action.completed_at) == ("failed", 3, None)
    assert action.expected_at == now
    assert action.error == "no 3" * 1000
    assert len(keys) == 1


def test_a_dead_worker_s_actions_come_back(
    session: Session, now: datetime, campaign: Campaign
) -> None:
    enrol(session, now, campaign, "Jane")
    (lost,) = run(session, now)
    assert endings.rescue(session, now + LEASE) == 0
    assert claims.next_due(session, ["note"]) == now + LEASE
    late = now + LEASE + timedelta(seconds=1)
    assert endings.rescue(session, late) == 1
    (again,) = run(session, late)
    assert again.idempotency_key == lost.idempotency_key
    # The dead one wakes up: what it says is no longer heard.
    run(session, late, [Ended(lost, error="late")], room=0)
    run(session, late, [Ended(again, result={"said": "x" * 100_000})], room=0)
    action = session.scalars(select(Action).where(Action.key == "action1")).one()
    assert (action.state, action.error, action.attempts) == ("completed", None, 2)
    assert action.result == {"said": "x" * 100_000}


def test_a_renewed_lease_is_kept(session: Session, now: datetime, campaign: Campaign) -> None:
    enrol(session, now, campaign, "Jane")
    claimed = run(session, now)
    claims.renew(session, now + LEASE, LEASE, claimed)
    assert endings.rescue(session, now + LEASE + timedelta(seconds=1)) == 0


def test_what_kills_its_worker_each_time_comes_to_an_end(
    session: Session, now: datetime, campaign: Campaign
) -> None:
    enrol(session, now, campaign, "Jane")
    at = now
    while run(session, at):
        at += 2 * LEASE
        endings.rescue(session, at)
    assert table(session, "Jane")[0] == "action1 failed 23 09:00"


@pytest.mark.parametrize("how", ["unscheduled", "switched off", "removed"])
def test_a_retry_that_nobody_wants_any_more(
    session: Session, now: datetime, campaign: Campaign, how: str
) -> None:
    steps = [Step("action1", "note", "0days", max_attempts=3)]
    sequences.define(session, now, campaign.id, steps)
    enrol(session, now, campaign, "Jane")
    claimed = run(session, now)
    if how == "unscheduled":
        schedules.unschedule(session, now, campaign.id, "contact", "Jane")
    elif how == "removed":
        sequences.define(session, now, campaign.id, [])
    else:
        campaign.active = False
        session.commit()
        sequences.realign(session, now, campaign.id)
    run(session, now, [Ended(one, error="no") for one in claimed], room=0)
    assert table(session, "Jane")[0] == "action1 cancelled 23 09:00"


def test_nothing_before_the_first_day_nor_after_the_last(session: Session, now: datetime) -> None:
    campaign = add_campaign(session, start_date=date(2026, 11, 24), end_date=date(2026, 11, 26))
    sequences.define(session, now, campaign.id, STEPS)
    enrol(session, now, campaign, "Jane")
    assert table(session, "Jane") == [
        "action1 pending 23 23:00", "action2 pending 26 09:00", "action3 cancelled 28 09:00",
    ]  # fmt: skip
    assert run_all(session, datetime(2026, 11, 23, 22, 59, tzinfo=UTC)) == []
    # All workers were away until the last day was over.
    assert run_all(session, datetime(2026, 11, 26, 23, 0, tzinfo=UTC)) == []
    assert {line.split()[1] for line in table(session, "Jane")} == {"cancelled"}
    # The campaign goes on for longer after all.
    campaign.end_date = date(2026, 12, 31)
    session.commit()
    sequences.realign(session, now + 5 * DAY, campaign.id)
    assert run_all(session, now + 5 * DAY) == ["Jane action1", "Jane action2", "Jane action3"]


def test_many_at_once_are_as_one_by_one(
    session: Session, now: datetime, campaign: Campaign
) -> None:
    steps = [*STEPS, Step("draw", "note", "2days-5days", "10:00-15:00"),
             Step("weekly", "note", "1week", repeat="every 1week, 3 times")]  # fmt: skip
    sequences.define(session, now, campaign.id, steps)
    other = add_campaign(session, key="other", end_date=date(2026, 12, 31))
    sequences.define(session, now, other.id, steps)
    names = [f"P{n}" for n in range(50)]
    enrol(session, now, campaign, "P7")
    schedules.unschedule(session, now, campaign.id, "contact", "P7")
    enrol(session, now, campaign, "P8")
    did = bulk.enrol(
        session, now, campaign.id, [Subject("contact", name) for name in [*names, "P9"]]
    )
    assert did == Counter(began=48, resumed=1, nothing=2)
    assert Counter(line.split()[1] for name in names for line in table(session, name)) == {
        "pending": 50 * 7
    }
    for name in ("P7", "P20"):
        expected = sequences.outlook(session, now, campaign.id, Subject("contact", name))
        rows = session.execute(
            select(Action.key, Action.occurrence, Action.expected_at)
            .join(Schedule, Schedule.id == Action.schedule_id)
            .where(Schedule.subject_id == name)
        )
        assert set(rows) == {(one.key, one.occurrence, one.expected_at) for one in expected.planned}


def test_a_subject_without_anybody_to_write_to_is_refused(
    session: Session, now: datetime, campaign: Campaign
) -> None:
    scenario = add_scenario(session, campaign, state="draft", date=None, time=None)
    config = {"scenario": scenario.id}
    mail = Step("mail", definitions.SEND_EMAIL, "0days", config=config)
    sequences.define(session, now, campaign.id, [mail])
    with pytest.raises(Refused, match="contact"):
        enrol(session, now, campaign, "Jane")
    with pytest.raises(Refused, match="contact"):
        bulk.enrol(session, now, campaign.id, [Subject("order", "A-17")])
    ann = add_contact(session, campaign, "Ann")
    schedules.enrol(session, now, campaign.id, Subject("order", "A-17", ann.id))
    assert run(session, now) == [], "this worker has no such callback"
    assert [one.contact_id for one in run(session, now, callbacks=["send_email"])] == [ann.id]


@pytest.mark.parametrize(
    ("who", "argument"),
    [
        (Subject("", "1"), "subject"),
        (Subject("s" * 101, "1"), "subject"),
        (Subject("order", ""), "subject_id"),
        (Subject("order", "x" * 256), "subject_id"),
        (Subject("order", "a\0b"), "subject_id"),
        (Subject("order", 1), "subject_id"),  # type: ignore[arg-type]
    ],
)
def test_subjects_that_cannot_be_kept_are_refused(
    session: Session, now: datetime, campaign: Campaign, who: Subject, argument: str
) -> None:
    with pytest.raises(Refused) as refused:
        schedules.enrol(session, now, campaign.id, who)
    assert refused.value.argument == argument


def test_two_workers_share_without_meeting(
    sessions: sessionmaker[Session], session: Session, now: datetime, campaign: Campaign
) -> None:
    bulk.enrol(session, now, campaign.id, [Subject("contact", str(n)) for n in range(40)])
    with sessions() as one, sessions() as other:
        mine, yours = run(one, now, room=25), run(other, now, room=25)
    assert len(mine) == 25
    assert len(yours) == 15
    assert not {claimed.id for claimed in mine} & {claimed.id for claimed in yours}


def test_who_enrols_during_an_edit_gets_the_new_steps(
    sessions: sessionmaker[Session], session: Session, now: datetime, campaign: Campaign
) -> None:
    enrol(session, now, campaign, "Jane")
    new = [Step("action1", "note", "0days"), Step("thanks", "note", "1day")]
    with sessions() as editing, ThreadPoolExecutor(1) as pool:
        with writing(editing):
            sequences.define_within(editing, now, campaign.id, new)
            julie = pool.submit(enrol, session, now, campaign, "Julie")
            # She waits for the edit, with the old steps in mind.
            wait([julie], timeout=0.3)
            assert not julie.done()
        julie.result(timeout=60)
    after = ["action1 pending 23 09:00", "thanks pending 24 09:00"]
    assert table(session, "Julie") == after
    assert [line for line in table(session, "Jane") if "cancelled" not in line] == after


def test_what_another_process_edits_is_noticed(
    engine: Engine, session: Session, now: datetime, campaign: Campaign
) -> None:
    enrol(session, now, campaign, "Jane")
    elsewhere = configure_engine(create_engine(engine.url))
    with Session(elsewhere) as other:
        sequences.define(other, now, campaign.id, [Step("welcome", "note", "1hour")])
    elsewhere.dispose()
    enrol(session, now, campaign, "Julie")
    bulk.enrol(session, now, campaign.id, [Subject("contact", "Jenny")])
    for name in ("Julie", "Jenny"):
        assert table(session, name) == ["welcome pending 23 10:00"]


def test_status_adds_up(session: Session, now: datetime, campaign: Campaign) -> None:
    steps = [*STEPS, Step("thanks", "note", "1day", after="action3")]
    sequences.define(session, now, campaign.id, steps)
    for name in ("Jane", "Julie"):
        enrol(session, now, campaign, name)
    claimed = run(session, now + timedelta(seconds=2), room=1)
    run(session, now + timedelta(seconds=3), [Ended(claimed[0])], room=0)
    status = actions.status(session, now + timedelta(seconds=5))
    assert status.counts == {
        "pending": 7, "processing": 0, "completed": 1, "failed": 0, "cancelled": 0,
    }  # fmt: skip
    assert (status.waiting, status.overdue, status.next_due) == (2, 1, now)
    assert (status.drift_p50, status.drift_p95, status.drift_max) == (2, 2, 2)
    assert actions.status(session, now, [campaign.id + 1]).next_due is None


def test_looking_does_not_write(session: Session, now: datetime, campaign: Campaign) -> None:
    shown = sequences.outlook(session, now, campaign.id, Subject("contact", "Jane"))
    assert [shown.name(one) for one in shown.planned] == ["action1", "action2", "action3"]
    assert table(session, "Jane") == []
    with pytest.raises(core.BadDefinition, match="no unit"):
        sequences.preview(session, now, campaign.id, [Step("a", "note", "3 moons")])


def test_with_and_without_locks_the_same_can_be_claimed(
    session: Session, now: datetime, campaign: Campaign
) -> None:
    if session.get_bind().dialect.name != "postgresql":
        pytest.skip("elsewhere no rows are locked to claim them")
    for name in ("Jane", "Julie", "Jenny"):
        enrol(session, now, campaign, name)
    schedules.unschedule(session, now, campaign.id, "contact", "Julie")
    off = add_campaign(session, key="off", active=False)
    for other, callback in ((add_campaign(session, key="other"), "other"), (off, "note")):
        sequences.define(session, now, other.id, [Step("one", callback, "0days")])
        enrol(session, now, other, "Jane")
    # As where somebody switched the campaign off, and what that withdraws is not withdrawn yet.
    session.execute(update(Action).values(state="pending", reason="", ended_at=None))
    session.commit()
    given = {"now": now + 30 * DAY, "room": 100, "callbacks": ["note"], "campaigns": [campaign.id]}
    for of_campaigns in (False, True):
        ways = claims._claimable(of_campaigns), claims._claimable_locked(of_campaigns)
        plain, locked = ({tuple(row) for row in session.execute(way, given)} for way in ways)
        assert plain == locked
        assert {row[7] for row in plain} == {"contact"}
        assert len(plain) == 6, "three steps of Jane and Jenny"
