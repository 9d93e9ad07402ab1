"""Slots reserved by several workers at once: none is given twice."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from sqlalchemy.orm import Session, sessionmaker

from mcs.services.throttles import INSTALLATION, give_back, of_campaign, reserve


def test_windows_follow_each_other(session: Session, now: datetime) -> None:
    assert reserve(session, now, INSTALLATION, 40).start == now
    assert reserve(session, now, INSTALLATION, 40).start == now + timedelta(seconds=0.25)
    assert reserve(session, now, of_campaign(1), 1).start == now


def test_a_pause_is_not_caught_up_with(session: Session, now: datetime) -> None:
    reserve(session, now, INSTALLATION, 50)
    later = now + timedelta(minutes=5)
    window = reserve(session, later, INSTALLATION, 50)
    assert (window.start, window.behind) == (later, timedelta())


def test_what_a_worker_does_not_use_others_make_up_for(session: Session, now: datetime) -> None:
    first = reserve(session, now, INSTALLATION, 40)
    give_back(session, INSTALLATION, 40, 10)
    second = reserve(session, now, INSTALLATION, 40)
    assert second.start == first.end
    shorter = timedelta(seconds=0.25) - (second.end - second.start)
    assert timedelta() < shorter < timedelta(seconds=0.025)
    assert second.behind == timedelta(seconds=0.25) - shorter
    third = reserve(session, now, INSTALLATION, 40, missed=4)
    assert third.behind > second.behind


def test_a_clock_that_was_set_back_stops_nobody(session: Session, now: datetime) -> None:
    reserve(session, now, INSTALLATION, 50)
    earlier = now - timedelta(hours=3)
    assert reserve(session, earlier, INSTALLATION, 50).start == earlier


def test_workers_at_once_never_share_a_slot(sessions: sessionmaker[Session], now: datetime) -> None:
    def reserved(_number: int) -> datetime:
        with sessions() as own:
            return reserve(own, now, INSTALLATION, 100).start

    with ThreadPoolExecutor(8) as pool:
        starts = sorted(pool.map(reserved, range(16)))
    assert starts == [now + timedelta(seconds=0.25) * number for number in range(16)]
