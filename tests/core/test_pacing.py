"""Slots: as many as the rate says, evenly spread, and never caught up with."""

from datetime import UTC, datetime, timedelta

import pytest

from mcs.core.pacing import WINDOW, Allowance, window_length, window_size

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("rate", "slots", "seconds"), [(0.5, 1, 2), (1, 1, 1), (50, 12, 0.24), (2000, 500, 0.25)]
)
def test_windows(rate: float, slots: int, seconds: float) -> None:
    assert window_size(rate) == slots
    assert window_length(rate, slots) == timedelta(seconds=seconds)


def test_slots_come_one_by_one() -> None:
    allowance = Allowance(rate=10)
    assert not allowance.may_go(NOW)
    assert allowance.wants_more(NOW)
    allowance.add(NOW, 5)
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
    allowance.add(NOW, 100)
    gone = 0
    while allowance.may_go(NOW + timedelta(seconds=8)):
        allowance.use()
        gone += 1
    assert gone <= 11


def test_more_is_wanted_before_the_last_slot_is_used() -> None:
    allowance = Allowance(rate=100)
    allowance.add(NOW, 50)
    assert not allowance.wants_more(NOW)
    assert allowance.wants_more(NOW + timedelta(milliseconds=500) - WINDOW)
