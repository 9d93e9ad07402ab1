"""Throttles: slots of a rate limit, reserved in SQL: it holds across workers and restarts."""

from datetime import datetime, timedelta

from sqlalchemy import Row, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from mcs.core.pacing import Window, given_back, next_after_change, next_window
from mcs.models import Throttle
from mcs.services.transactions import NO_SYNC, writing

INSTALLATION = "installation"


def of_campaign(campaign_id: int) -> str:
    """The key of a campaign's own limit."""
    return f"campaign-{campaign_id}"


def reserve(session: Session, now: datetime, key: str, rate: float, missed: int = 0) -> Window:
    """Reserve the next slots of a limit of ``rate`` a second; ``missed`` of earlier ones were not
    used, and are made up for gently (mcs.core.pacing)."""
    while True:
        with writing(session):
            found = _locked(session, key)
            if found is not None:
                behind = given_back(found.behind, rate, missed)
                window = next_window(now, found.next_at, behind, rate)
                _write(session, key, next_at=window.end, behind=window.behind)
                return window
        _make(session, now, key)


def give_back(session: Session, key: str, rate: float, slots: int) -> None:
    """Slots of a limit that a worker reserved and will not use."""
    with writing(session):
        found = _locked(session, key)
        if found is not None:
            _write(session, key, behind=given_back(found.behind, rate, slots))


def renew(
    session: Session, now: datetime, key: str, was: float, rate: float | None, slots: int
) -> None:
    """People have changed a limit from ``was`` to ``rate`` a second, or to none: a worker gives
    back the ``slots`` that it held by the old one. What was missed by that is not made up for."""
    with writing(session):
        found = _locked(session, key)
        if found is not None:
            next_at = next_after_change(now, found.next_at, was, rate, slots)
            _write(session, key, next_at=next_at, behind=timedelta())


def _locked(session: Session, key: str) -> Row[datetime, timedelta] | None:
    query = select(Throttle.next_at, Throttle.behind).where(Throttle.key == key)
    return session.execute(query.with_for_update()).first()


def _write(session: Session, key: str, **values: datetime | timedelta) -> None:
    session.execute(
        update(Throttle).where(Throttle.key == key).values(**values).execution_options(**NO_SYNC)
    )


def _make(session: Session, now: datetime, key: str) -> None:
    try:
        with writing(session):
            session.execute(insert(Throttle).values(key=key, next_at=now, behind=timedelta()))
    except IntegrityError:
        return  # Another worker was first.
