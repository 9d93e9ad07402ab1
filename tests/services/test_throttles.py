"""Slots reserved by several workers at once: none is given twice."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from sqlalchemy.orm import Session, sessionmaker

from mcs.services.throttles import INSTALLATION, of_campaign, reserve


def test_windows_follow_each_other(session: Session, now: datetime) -> None:
    assert reserve(session, now, INSTALLATION, 50, 10) == now
    assert reserve(session, now, INSTALLATION, 50, 10) == now + timedelta(seconds=0.2)
    assert reserve(session, now, of_campaign(1), 1, 1) == now


def test_there_is_no_catching_up(session: Session, now: datetime) -> None:
    reserve(session, now, INSTALLATION, 50, 10)
    later = now + timedelta(minutes=5)
    assert reserve(session, later, INSTALLATION, 50, 10) == later


def test_workers_at_once_never_share_a_slot(sessions: sessionmaker[Session], now: datetime) -> None:
    def reserved(_number: int) -> datetime:
        with sessions() as own:
            return reserve(own, now, INSTALLATION, 100, 25)

    with ThreadPoolExecutor(8) as pool:
        starts = sorted(pool.map(reserved, range(16)))
    assert starts == [now + timedelta(seconds=0.25) * number for number in range(16)]
