"""A lane's slots of several limits at once."""

from collections import Counter
from datetime import datetime, timedelta

import pytest
from sqlalchemy import create_engine, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from mcs.models import Throttle
from mcs.services.pacer import Limit, Pacer


def test_a_slow_campaign_takes_no_more_of_the_installation_than_it_uses(
    session: Session, now: datetime
) -> None:
    campaign, installation = Limit("campaign-1", 0.5), Limit("installation", 10)
    slow, others = (campaign, installation), (installation,)
    moment = now
    pacer = Pacer(lambda: moment)
    went = 0
    for _ in range(200):
        for reserve in pacer.reservations({slow}):
            reserve(session)
        if pacer.may_go(slow):
            pacer.use(slow)
            went += 1
        moment += timedelta(milliseconds=100)
    assert 9 <= went <= 11
    # Twenty seconds' worth of the installation was there for others, and none of it was kept.
    other = Pacer(lambda: moment)
    (reserve,) = other.reservations({others})
    reserve(session)
    slot = other.next_slot({others})
    assert slot is not None
    assert slot <= moment + timedelta(seconds=1)
    burst = 0
    while pacer.may_go(others):
        pacer.use(others)
        burst += 1
    assert burst <= 10


def test_what_was_missed_is_not_forgotten_by_an_error(session: Session, now: datetime) -> None:
    limits = {(Limit("installation", 100),)}
    moment = now
    pacer = Pacer(lambda: moment)
    (reserve,) = pacer.reservations(limits)
    reserve(session)
    moment += timedelta(seconds=1)
    assert _go(pacer, limits) == 0
    nowhere = Session(create_engine("sqlite:////there/is/no/such/folder/mcs.db"))
    (reserve,) = pacer.reservations(limits)
    for verb in (reserve, pacer.leave):
        with pytest.raises(OperationalError):
            verb(nowhere)
    pacer.leave(session)
    assert session.scalars(select(Throttle.behind)).one() == timedelta(seconds=0.25)


@pytest.mark.parametrize("workers", [1, 4])
def test_the_rate_holds_though_turns_end_and_workers_are_held_up(
    workers: int, session: Session, now: datetime
) -> None:
    """Each worker's lane ends once, and the next begins 0.8 s later; and each rests for 0.3 s."""
    rate, limits = 2000, {(Limit("installation", 2000),)}
    time = [now]
    pacers = [Pacer(lambda: time[0]) for _ in range(workers)]
    away_until, per_second = [now] * workers, Counter[int]()
    for number in range(1000):
        time[0] = now + timedelta(milliseconds=20) * number
        for worker, pacer in enumerate(pacers):
            if number == 100 + 7 * worker:
                pacer.leave(session)
                pacers[worker] = Pacer(lambda: time[0])
                away_until[worker] = time[0] + timedelta(seconds=0.8)
            elif number == 300 + 100 * worker:
                away_until[worker] = time[0] + timedelta(seconds=0.3)
            if time[0] >= away_until[worker]:
                per_second[number // 50] += _sent(pacers[worker], limits, session)
    assert per_second.total() == pytest.approx(20 * rate, rel=0.02)
    # No burst: a tenth more to make up, and what was held for a moment.
    assert max(per_second.values()) <= 1.4 * rate


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize(
    ("was", "rate"),
    [(400, 20), (20, 400), (0.1, 20), (20, 0.5), (0.5, 1)],
)
def test_a_changed_rate_makes_no_burst_and_no_stall(
    workers: int, was: float, rate: float, session: Session, now: datetime
) -> None:
    """Each worker hears of it within a second, at the moment of its own look."""
    old, new = Limit("campaign-1", was), Limit("campaign-1", rate)
    time = [now]
    pacers = [Pacer(lambda: time[0]) for _ in range(workers)]
    sent: list[datetime] = []
    changed = now + timedelta(seconds=12)
    for number in range(24 * 20):
        time[0] = now + timedelta(milliseconds=50) * number
        for worker, pacer in enumerate(pacers):
            heard = changed + timedelta(seconds=(worker + 1) / workers)
            if heard <= time[0] < heard + timedelta(milliseconds=50):
                pacer.forsake(old, rate, session)
            sent += [time[0]] * _sent(pacer, {(new if time[0] >= heard else old,)}, session)
    heard_by_all = changed + timedelta(seconds=1)
    after = [moment for moment in sent if moment > heard_by_all]
    seconds = (time[0] - heard_by_all).total_seconds()
    # What is under way of one window for each worker, and what is left of a slot.
    assert len(after) == pytest.approx(rate * seconds, rel=0.02, abs=1 + workers * max(1, rate / 4))
    assert after[0] - heard_by_all <= timedelta(seconds=1 + 1 / rate)
    meanwhile = sum(changed < moment <= heard_by_all for moment in sent)
    assert meanwhile <= 1.4 * max(was, rate) + workers


def _sent(pacer: Pacer, limits: set[tuple[Limit, ...]], session: Session) -> int:
    """How many messages a worker starts now."""
    for reserve in pacer.reservations(limits):
        reserve(session)
    return _go(pacer, limits)


def _go(pacer: Pacer, limits: set[tuple[Limit, ...]]) -> int:
    (kept,) = limits
    number = 0
    while pacer.may_go(kept):
        pacer.use(kept)
        number += 1
    return number
