"""Running what is due while callbacks misbehave and people edit."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from mcs.models import Action
from mcs.services import exchanges, runners, schedules, sequences
from mcs.services.definitions import Step
from mcs.services.endings import Ended
from mcs.services.runners import Surroundings
from mcs.services.schedules import Subject
from mcs.services.transactions import writing
from tests.people import add_campaign

LEASE = timedelta(seconds=45)


def _raise(message: str) -> Callable[[Any], None]:
    def callback(_call: Any) -> None:
        raise ValueError(message)

    return callback


class _Unspeakable:
    def __repr__(self) -> str:
        return "\0\ud83d"


@pytest.mark.parametrize("result", ["\0", "\ud83d", {"\0": ["\ud83d"]}, _Unspeakable()])
def test_any_result_is_kept_or_its_repr(
    sessions: sessionmaker[Session], session: Session, now: datetime, result: Any
) -> None:
    campaign = add_campaign(session)
    sequences.define(session, now, campaign.id, [Step("a", "good", "0days")])
    schedules.enrol(session, now, campaign.id, Subject("contact", "Ann"))
    callbacks = {"good": lambda call: result}
    given = Surroundings(sessions, callbacks, lambda: now, LEASE.total_seconds())
    assert runners.run_due(given) == 1
    session.rollback()
    kept = session.scalars(select(Action).where(Action.state == "completed")).one().result
    assert kept == ("\0\ud83d" if isinstance(result, _Unspeakable) else result)


@pytest.mark.parametrize("said", ["\0", "half of a pair: \ud83d", "x" * 1_000_000])
def test_an_error_that_no_database_can_keep_stops_nobody(
    sessions: sessionmaker[Session], session: Session, now: datetime, said: str
) -> None:
    campaign = add_campaign(session)
    steps = [Step("a", "bad", "0days"), Step("b", "good", "1h")]
    sequences.define(session, now, campaign.id, steps)
    schedules.enrol(session, now, campaign.id, Subject("contact", "Ann"))
    later = now + timedelta(hours=2)
    callbacks = {"bad": _raise(said), "good": lambda call: None}
    given = Surroundings(sessions, callbacks, lambda: later, LEASE.total_seconds())
    assert runners.run_due(given) == 2
    session.rollback()
    states = session.execute(select(Action.key, Action.state).order_by(Action.key)).all()
    assert [tuple(row) for row in states] == [("a", "failed"), ("b", "completed")]
    error = session.scalars(select(Action.error).where(Action.key == "a")).one()
    assert "ValueError" in (error or "")


def test_a_step_added_while_what_it_comes_after_ends_gets_its_moment(
    sessions: sessionmaker[Session], session: Session, now: datetime
) -> None:
    if session.get_bind().dialect.name != "postgresql":
        pytest.skip("elsewhere one at a time writes")
    campaign = add_campaign(session)
    first = Step("a", "note", "0days")
    sequences.define(session, now, campaign.id, [first])
    schedules.enrol(session, now, campaign.id, Subject("contact", "Ann"))
    (ann,) = exchanges.exchange(session, now, [], lease=LEASE, room=1, die=0.5, callbacks=["note"])

    def record() -> None:
        with sessions() as other:
            exchanges.exchange(
                other, now, [Ended(ann)], lease=LEASE, room=0, die=0.5, callbacks=["note"]
            )

    with ThreadPoolExecutor(1) as thread:
        with writing(session):
            steps = [first, Step("b", "note", "1h", after="a")]
            sequences.define_within(session, now, campaign.id, steps)
            recorded = thread.submit(record)
            # It may wait for the edit, or be done before.
            with suppress(TimeoutError):
                recorded.result(timeout=1)
        recorded.result(timeout=10)
    session.rollback()
    after = session.scalars(select(Action.due_at).where(Action.key == "b")).one()
    assert after == now + timedelta(hours=1)
