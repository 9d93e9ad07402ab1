"""The planner's stories: the same comes out whenever, and however often, it runs."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta

import pytest
from rq_scheduler import Scheduler
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from mcs.gateways.jobqueue import JobQueue
from mcs.models import Delivery, Emailer, Slice
from mcs.services import due, emailers, headway, planning, snapshots
from tests.people import add_campaign, add_contact, add_scenario

LIMIT = timedelta(minutes=120)


def planned(session: Session) -> list[tuple[int, str, datetime]]:
    session.rollback()
    rows = session.execute(
        select(Emailer.scenario_id, Emailer.state, Emailer.scheduled_at).order_by(Emailer.id)
    )
    return [tuple(row) for row in rows]


def test_the_days_scenarios_each_get_one_emailer(
    session: Session, now: datetime, queue: JobQueue
) -> None:
    campaign = add_campaign(session)
    today = add_scenario(session, campaign, time=time(15, 0))
    add_scenario(session, campaign, date=date(2026, 11, 25))
    add_scenario(session, campaign, state="draft")
    (emailer_id,) = planning.plan_day(session, now, queue)
    assert planning.plan_day(session, now, queue) == []
    at = datetime(2026, 11, 23, 14, 0, tzinfo=UTC)
    assert planned(session) == [(today.id, "planned", at)]
    alarm = queue.connection.zscore(Scheduler.scheduled_jobs_key, f"emailer-{emailer_id}")
    assert alarm == at.timestamp()


@pytest.mark.parametrize(
    ("first", "last", "made"),
    [
        (date(2026, 11, 23), date(2026, 11, 23), 1),
        (date(2026, 11, 1), date(2026, 11, 23), 1),
        (date(2026, 11, 23), date(2026, 12, 24), 1),
        (date(2026, 11, 1), date(2026, 11, 22), 0),
        (date(2026, 11, 24), date(2026, 12, 24), 0),
    ],
)
def test_first_and_last_day_are_included(
    session: Session, now: datetime, queue: JobQueue, first: date, last: date, made: int
) -> None:
    add_scenario(session, add_campaign(session, start_date=first, end_date=last))
    assert len(planning.plan_day(session, now, queue)) == made


@pytest.mark.parametrize(
    "campaign", [{"active": False}, {"archived_at": datetime(2026, 11, 22, tzinfo=UTC)}]
)
def test_a_campaign_that_is_off_sends_nothing(
    session: Session, now: datetime, queue: JobQueue, campaign: dict[str, object]
) -> None:
    add_scenario(session, add_campaign(session, **campaign))
    assert planning.plan_day(session, now, queue) == []


def test_on_a_day_means_the_date_in_the_campaigns_zone(
    session: Session, now: datetime, queue: JobQueue
) -> None:
    # 26 November, 08:00 in Auckland, is still the 25th in London.
    campaign = add_campaign(session, timezone="Pacific/Auckland")
    add_scenario(session, campaign, date=date(2026, 11, 26), time=time(8, 0))
    assert planning.plan_day(session, now, queue, on=date(2026, 11, 25)) == []
    assert len(planning.plan_day(session, now, queue, on=date(2026, 11, 26))) == 1


def test_an_edit_moves_the_planned_emailer(
    session: Session, now: datetime, queue: JobQueue
) -> None:
    campaign = add_campaign(session)
    scenario = add_scenario(session, campaign, time=time(15, 0))
    (emailer_id,) = planning.plan_day(session, now, queue)
    scenario.date, scenario.time = date(2026, 11, 28), time(8, 30)
    session.commit()
    assert planning.plan_campaign(session, now, queue, campaign.id) == [emailer_id]
    at = datetime(2026, 11, 28, 7, 30, tzinfo=UTC)
    assert planned(session) == [(scenario.id, "planned", at)]


@pytest.mark.parametrize("change", ["draft", "inactive", "archived", "outside"])
def test_what_should_not_go_out_is_withdrawn_and_comes_back(
    session: Session, now: datetime, queue: JobQueue, change: str
) -> None:
    campaign = add_campaign(session)
    scenario = add_scenario(session, campaign, time=time(15, 0))
    planning.plan_day(session, now, queue)
    if change == "draft":
        scenario.state = "draft"
    elif change == "inactive":
        campaign.active = False
    elif change == "archived":
        campaign.archived_at = now
    else:
        campaign.start_date = date(2026, 11, 24)
    session.commit()
    planning.plan_campaign(session, now, queue, campaign.id)
    assert planned(session) == []
    scenario.state, campaign.active, campaign.archived_at = "scheduled", True, None
    campaign.start_date = date(2026, 11, 23)
    session.commit()
    planning.plan_campaign(session, now, queue, campaign.id)
    assert len(planned(session)) == 1


def test_two_planners_at_once_plan_each_once(
    sessions: sessionmaker[Session], session: Session, now: datetime, queue: JobQueue
) -> None:
    campaign = add_campaign(session)
    for _ in range(5):
        add_scenario(session, campaign, time=time(15, 0))
    session.commit()

    def plan(_number: int) -> int:
        with sessions() as own:
            return len(planning.plan_day(own, now, queue))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(plan, range(4))) == 5
    assert len(planned(session)) == 5


def test_late_within_the_limit_goes_at_once_and_says_so(
    session: Session, now: datetime, queue: JobQueue
) -> None:
    campaign = add_campaign(session)
    add_contact(session, campaign, "Ann")
    add_scenario(session, campaign)
    (emailer_id,) = planning.plan_day(session, now, queue)
    emailers.send(session, now + timedelta(minutes=119), queue, emailer_id, LIMIT)
    progress = headway.progress(session, emailer_id)
    assert (progress.state, progress.late_by) == ("sending", timedelta(minutes=119))


@pytest.mark.parametrize(
    ("minutes", "said"), [(1, "1 minute late"), (2, "2 minutes late"), (2000, "2,000 minutes late")]
)
def test_how_late_it_was_is_said_in_minutes(
    session: Session, now: datetime, queue: JobQueue, minutes: int, said: str
) -> None:
    campaign = add_campaign(session)
    add_contact(session, campaign, "Ann")
    add_scenario(session, campaign)
    (emailer_id,) = planning.plan_day(session, now, queue)
    late = now + timedelta(minutes=minutes)
    emailers.send(session, late, queue, emailer_id, timedelta(0))
    notice = headway.progress(session, emailer_id).notice
    assert notice == f"It could not start in time: it was {said}."


def test_later_than_the_limit_is_missed_until_a_person_says(
    session: Session, now: datetime, queue: JobQueue
) -> None:
    campaign = add_campaign(session)
    add_contact(session, campaign, "Ann")
    add_scenario(session, campaign)
    late = now + timedelta(minutes=121)
    (emailer_id,) = planning.plan_day(session, late, queue)
    emailers.send(session, late, queue, emailer_id, LIMIT)
    assert headway.progress(session, emailer_id).state == "missed"
    assert planning.plan_day(session, late, queue) == []
    with pytest.raises(emailers.NotPossible):
        emailers.pause(session, late, emailer_id)
    with pytest.raises(emailers.NotPossible, match="its time has passed"):
        # By somebody whose limit is another one: it has no ledger to go on with.
        emailers.resume(session, late, queue, emailer_id, LIMIT * 2)
    emailers.send_now(session, late, queue, emailer_id)
    progress = headway.progress(session, emailer_id)
    assert (progress.state, progress.recipients, progress.pending) == ("sending", 1, 1)


def test_a_missed_one_gets_a_new_time(session: Session, now: datetime, queue: JobQueue) -> None:
    campaign = add_campaign(session)
    add_contact(session, campaign, "Ann")
    scenario = add_scenario(session, campaign)
    late = now + timedelta(hours=3)
    (emailer_id,) = planning.plan_day(session, late, queue)
    emailers.send(session, late, queue, emailer_id, LIMIT)
    for day, at in ((date(2026, 11, 23), time(10, 0)), (date(2026, 12, 5), time(10, 0))):
        with pytest.raises(emailers.NotPossible):
            emailers.reschedule(session, late, queue, emailer_id, day, at)
    emailers.reschedule(session, late, queue, emailer_id, date(2026, 11, 24), time(9, 0))
    assert planned(session) == [(scenario.id, "planned", datetime(2026, 11, 24, 8, 0, tzinfo=UTC))]
    assert planning.plan_day(session, late, queue) == []


def test_nothing_goes_out_early(session: Session, now: datetime, queue: JobQueue) -> None:
    campaign = add_campaign(session)
    add_contact(session, campaign, "Ann")
    add_scenario(session, campaign)
    (emailer_id,) = planning.plan_day(session, now - timedelta(hours=1), queue)
    emailers.send(session, now - timedelta(microseconds=1), queue, emailer_id, LIMIT)
    assert headway.progress(session, emailer_id).state == "planned"
    emailers.send(session, now, queue, emailer_id, LIMIT)
    assert headway.progress(session, emailer_id).state == "sending"


@pytest.mark.parametrize("change", ["later", "draft", "inactive", "over"])
def test_what_was_changed_in_the_last_moment_does_not_go_out(
    session: Session, now: datetime, queue: JobQueue, change: str
) -> None:
    # The edit is committed, and whoever made it has not come to planning it anew.
    campaign = add_campaign(session)
    add_contact(session, campaign, "Ann")
    scenario = add_scenario(session, campaign)
    (emailer_id,) = planning.plan_day(session, now - timedelta(hours=1), queue)
    if change == "later":
        scenario.date = date(2026, 11, 28)
    elif change == "draft":
        scenario.state, scenario.date = "draft", None
    elif change == "inactive":
        campaign.active = False
    else:
        campaign.start_date = date(2026, 11, 24)
    session.commit()
    emailers.send(session, now, queue, emailer_id, LIMIT)
    assert [state for _, state, _ in planned(session)] == ["planned"]
    planning.plan_day(session, now, queue)
    at = datetime(2026, 11, 28, 9, 0, tzinfo=UTC)
    assert planned(session) == ([(scenario.id, "planned", at)] if change == "later" else [])


def test_one_that_cannot_be_started_stops_no_other(
    session: Session, now: datetime, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = add_campaign(session)
    for _ in range(2):
        add_scenario(session, campaign)
    first, second = planning.plan_day(session, now, queue)
    set_off = snapshots.write

    def failing(session: Session, now: datetime, emailer: Emailer) -> None:
        if emailer.id == first:
            raise RuntimeError("a contact left the batch in between")
        set_off(session, now, emailer)

    monkeypatch.setattr(snapshots, "write", failing)
    due.start_due(session, now, queue, LIMIT)
    assert headway.progress(session, first).state == "planned"
    assert headway.progress(session, second).state == "sending"


def test_a_campaign_without_postal_address_cannot_start(
    session: Session, now: datetime, queue: JobQueue
) -> None:
    campaign = add_campaign(session, postal_address="")
    add_contact(session, campaign, "Ann")
    add_scenario(session, campaign)
    (emailer_id,) = planning.plan_day(session, now, queue)
    emailers.send(session, now, queue, emailer_id, LIMIT)
    progress = headway.progress(session, emailer_id)
    assert progress.state == "missed"
    assert "postal address" in progress.notice
    with pytest.raises(emailers.NotPossible, match="postal address"):
        emailers.send_now(session, now, queue, emailer_id)


def test_a_cancelled_plan_becomes_a_draft_that_can_be_scheduled_again(
    session: Session, now: datetime, queue: JobQueue
) -> None:
    campaign = add_campaign(session)
    scenario = add_scenario(session, campaign, time=time(15, 0))
    (emailer_id,) = planning.plan_day(session, now, queue)
    emailers.cancel(session, now, emailer_id)
    session.refresh(scenario)
    assert scenario.state == "draft"
    assert planning.plan_day(session, now, queue) == []
    scenario.state = "scheduled"
    session.commit()
    assert len(planning.plan_day(session, now, queue)) == 1
    assert [state for _, state, _ in planned(session)] == ["cancelled", "planned"]


def test_only_those_added_since(session: Session, now: datetime, queue: JobQueue) -> None:
    campaign = add_campaign(session)
    add_contact(session, campaign, "Ann")
    scenario = add_scenario(session, campaign)
    (first,) = planning.plan_day(session, now, queue)
    emailers.send(session, now, queue, first, LIMIT)
    add_contact(session, campaign, "Bob")
    add_scenario(session, campaign, excludes_id=scenario.id)
    (second,) = planning.plan_day(session, now, queue)
    emailers.send(session, now, queue, second, LIMIT)
    assert headway.progress(session, second).recipients == 1


def test_every_message_of_every_emailer_has_an_id_of_its_own(
    session: Session, now: datetime, queue: JobQueue
) -> None:
    campaign = add_campaign(session)
    for name in ("Ann", "Bob"):
        add_contact(session, campaign, name)
    add_scenario(session, campaign)
    add_scenario(session, campaign)
    for emailer_id in planning.plan_day(session, now, queue):
        emailers.send(session, now, queue, emailer_id, LIMIT)
    drawn = session.scalars(select(Delivery.message_id)).all()
    assert len(set(drawn)) == 4
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in drawn)


def test_a_pause_does_not_count_in_the_pace(
    session: Session, now: datetime, queue: JobQueue
) -> None:
    campaign = add_campaign(session)
    add_contact(session, campaign, "Ann")
    add_scenario(session, campaign)
    (emailer_id,) = planning.plan_day(session, now, queue)
    emailers.send(session, now, queue, emailer_id, LIMIT)
    part = session.scalars(select(Slice)).one()
    part.sent = 100
    session.commit()
    later = now + timedelta(seconds=10)
    assert headway.progress(session, emailer_id).per_second(later) == 10
    emailers.pause(session, later, emailer_id)
    next_day = now + timedelta(hours=20)
    emailers.resume(session, next_day, queue, emailer_id, LIMIT)
    assert headway.progress(session, emailer_id).per_second(next_day) is None
    part.sent = 150
    session.commit()
    assert headway.progress(session, emailer_id).per_second(next_day + timedelta(seconds=5)) == 10


def an_hour_old(session: Session, now: datetime, queue: JobQueue, sent: int) -> headway.Progress:
    """An emailer of which so many were sent in an hour."""
    campaign = add_campaign(session)
    add_contact(session, campaign, "Ann")
    add_scenario(session, campaign)
    (emailer_id,) = planning.plan_day(session, now, queue)
    emailers.send(session, now, queue, emailer_id, LIMIT)
    session.scalars(select(Slice)).one().sent = sent
    session.commit()
    return headway.progress(session, emailer_id)


@pytest.mark.parametrize(
    ("sent", "seen", "pace"),
    [
        pytest.param(36_000, [], 10, id="nobody looked before"),
        pytest.param(36_000, [(4, 1000)], 10, id="somebody began to look just now"),
        pytest.param(36_000, [(30, 300)], 10, id="as ever"),
        pytest.param(36_000, [(30, 60)], 2, id="slower lately"),
        pytest.param(36_000, [(40, 8)], 0.2, id="much slower lately"),
        pytest.param(36_000, [(60, 6000)], 100, id="faster lately"),
        pytest.param(36_000, [(30, 0)], None, id="it stands still"),
        pytest.param(36_000, [(50, 5000), (20, 3000), (10, 2000)], 200, id="the latest mark"),
        pytest.param(36_000, [(50, 500), (20, 150), (10, 99)], 7.5, id="the latest that tells"),
        pytest.param(36_000, [(50, 80), (20, 40), (10, 30)], 1.6, id="no mark tells: the oldest"),
        pytest.param(36_000, [(12, 2000), (2, 600)], 2000 / 12, id="the latest is too young"),
        pytest.param(360, [(60, 4)], 0.1, id="too few to tell from what is usual"),
        pytest.param(360, [(60, 0)], 0.1, id="so slow that none in a minute is usual"),
        pytest.param(36_000, [(3700, 1000)], 10, id="a mark of before it was resumed"),
    ],
)
def test_the_pace_is_that_of_the_last_seconds(
    sent: int,
    seen: list[tuple[int, int]],
    pace: float | None,
    session: Session,
    now: datetime,
    queue: JobQueue,
) -> None:
    standing = an_hour_old(session, now, queue, sent)
    later = now + timedelta(hours=1)
    marks = [headway.Mark(later - timedelta(seconds=ago), sent - lately) for ago, lately in seen]
    assert standing.per_second(later, marks) == pace


def test_the_pace_begins_with_the_first_message(
    session: Session, now: datetime, queue: JobQueue
) -> None:
    """A million deliveries are written for 20 s before it leaves."""
    standing = an_hour_old(session, now, queue, 1000)
    first = session.scalars(select(Delivery)).one()
    first.started_at, first.attempts = now + timedelta(seconds=20), 1
    session.commit()
    emailer_id = session.scalars(select(Emailer.id)).one()
    fresh = headway.progress(session, emailer_id)
    later = now + timedelta(seconds=30)
    assert (standing.per_second(later), fresh.per_second(later)) == (1000 / 30, 100)
    first.attempts = 2  # It was tried again: nobody knows when it was tried first.
    session.commit()
    assert headway.progress(session, emailer_id).per_second(later) == 1000 / 30


def test_who_looks_on_keeps_a_minutes_marks(now: datetime) -> None:
    seen: list[headway.Mark] = []
    for seconds in range(0, 600, 2):
        at = now + timedelta(seconds=seconds)
        seen = headway.marks(seen, headway.Mark(at, seconds))
        ages = [(at - mark.at).total_seconds() for mark in seen]
        assert ages == sorted(ages, reverse=True)
        assert ages[-1] < 10
        assert 50 <= ages[0] <= 60 or seconds < 50
        assert len(seen) <= headway.MOST_MARKS
    # A browser that slept, or whose clock is another's, begins anew.
    for minutes in (30, -30):
        woken = headway.Mark(now + timedelta(minutes=minutes), 7)
        assert headway.marks(seen, woken) == [woken]


@pytest.mark.parametrize("off", ["draft", "inactive", "archived"])
def test_send_now_asks_whether_it_still_should(
    session: Session, now: datetime, queue: JobQueue, off: str
) -> None:
    campaign = add_campaign(session)
    add_contact(session, campaign, "Ann")
    scenario = add_scenario(session, campaign)
    late = now + timedelta(hours=3)
    (emailer_id,) = planning.plan_day(session, late, queue)
    emailers.send(session, late, queue, emailer_id, LIMIT)
    if off == "draft":
        scenario.state = "draft"
    elif off == "inactive":
        campaign.active = False
    else:
        campaign.archived_at = late
    session.commit()
    with pytest.raises(emailers.NotPossible):
        emailers.send_now(session, late, queue, emailer_id)
    assert headway.progress(session, emailer_id).state == "missed"
