"""Slots: as many as the rate says, evenly spread, and made up for without bursts."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from mcs.core.pacing import (
    MOST_BEHIND,
    WINDOW,
    Allowance,
    Window,
    given_back,
    next_after_change,
    next_window,
    window_length,
    window_size,
)

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
NOTHING = timedelta()


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


@pytest.mark.parametrize(
    ("was", "rate", "slots", "given_until", "begins"),
    [
        pytest.param(1000, 10, 500, 0.5, 0, id="alone"),
        pytest.param(1000, 10, 250, 0.5, 0.25, id="another holds as many, and gives them back"),
        pytest.param(1000, 10, 500, 0.4, 0, id="not into the past"),
        pytest.param(0.01, 10, 1, 90, 0.1, id="a long slot"),
        pytest.param(0.01, 10, 1, 1, 1, id="another began already"),
        pytest.param(0.5, 0.1, 1, 4, 4, id="slower"),
        pytest.param(0.01, None, 1, 90, 0, id="no limit any more"),
    ],
)
def test_after_a_change_slots_begin_soon(
    was: float, rate: float | None, slots: int, given_until: float, begins: float
) -> None:
    found = next_after_change(NOW, NOW + seconds(given_until), was, rate, slots)
    assert found == NOW + seconds(begins)


def window(slots: int, rate: float) -> Window:
    return Window(NOW, NOW + window_length(rate, slots), slots, NOTHING)


@pytest.mark.parametrize(
    ("rate", "slots", "length"), [(0.5, 1, 2), (1, 1, 1), (50, 12, 0.24), (2000, 500, 0.25)]
)
def test_windows(rate: float, slots: int, length: float) -> None:
    assert window_size(rate) == slots
    assert window_length(rate, slots) == seconds(length)


@pytest.mark.parametrize(
    ("given_until", "behind", "start", "length", "left"),
    [
        pytest.param(0.1, 0, 0.1, 0.25, 0, id="others are ahead"),
        pytest.param(0, 0, 0, 0.25, 0, id="in time"),
        pytest.param(-2.2, 0, 0, 0.25 / 1.1, 2.2 - 0.25 / 11, id="held up"),
        pytest.param(-2.2, 2, 0, 0.25 / 1.1, 3 - 0.25 / 11, id="held up once more"),
        pytest.param(0.1, 0.01, 0.1, 0.24, 0, id="nearly made up for"),
        pytest.param(-3.1, 2, 0, 0.25, 0, id="a pause"),
        pytest.param(299, 0, 299, 0.25, 0, id="a thousand workers"),
        pytest.param(3600, 1, 0, 0.25, 0, id="the clock was set back"),
    ],
)
def test_the_next_window(
    given_until: float, behind: float, start: float, length: float, left: float
) -> None:
    found = next_window(NOW, NOW + seconds(given_until), seconds(behind), rate=100)
    assert found.slots == 25
    assert found.start == NOW + seconds(start)
    assert found.end - found.start == pytest.approx(seconds(length), abs=seconds(1e-5))
    assert found.behind == pytest.approx(seconds(left), abs=seconds(1e-5))


def test_a_hundred_workers_of_a_slow_rate_take_turns() -> None:
    given_until = NOW + seconds(9_999)
    assert next_window(NOW, given_until, NOTHING, rate=0.01).start == given_until


def test_what_was_missed_is_made_up_for_within_half_a_minute_without_a_burst() -> None:
    next_at, behind, ends = NOW - seconds(2.9), NOTHING, []
    for _ in range(200):
        moment = max(NOW, next_at - WINDOW)
        found = next_window(moment, next_at, behind, rate=100)
        next_at, behind = found.end, found.behind
        ends.append(found.end)
    per_window = [after - before for before, after in pairwise(ends)]
    assert min(per_window) >= seconds(0.25 / 1.1 - 1e-5)
    in_time = NOW + 200 * window_length(100, 25)
    assert ends[-1] == pytest.approx(in_time - seconds(2.9), abs=seconds(0.001))
    assert behind == NOTHING


def test_what_was_not_used_is_given_back() -> None:
    assert given_back(seconds(1), 100, 50) == seconds(1.5)
    assert given_back(seconds(1), 100, 5000) == MOST_BEHIND


def test_slots_come_one_by_one() -> None:
    allowance = Allowance(rate=10)
    assert not allowance.may_go(NOW)
    assert allowance.wants_more(NOW)
    allowance.add(window(5, 10))
    gone = 0
    for milliseconds in range(0, 1000, 10):
        moment = NOW + timedelta(milliseconds=milliseconds)
        while allowance.may_go(moment):
            allowance.use()
            gone += 1
        assert gone == min(5, 1 + milliseconds // 100)
    assert allowance.next_slot() is None


def test_slots_that_were_not_used_are_gone() -> None:
    allowance = Allowance(rate=10)
    allowance.add(window(100, 10))
    gone = 0
    while allowance.may_go(NOW + timedelta(seconds=8)):
        allowance.use()
        gone += 1
    assert gone <= 3
    assert allowance.missed() == 81 - gone
    allowance.told(81 - gone)
    assert allowance.missed() == 0
    allowance.leave()
    assert allowance.next_slot() is None
    assert allowance.missed() == 100 - 81


def test_more_is_wanted_before_the_last_slot_is_used() -> None:
    allowance = Allowance(rate=100)
    allowance.add(window(50, 100))
    assert not allowance.wants_more(NOW)
    assert allowance.wants_more(NOW + timedelta(milliseconds=500) - WINDOW)
