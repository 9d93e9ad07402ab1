"""Which clock is gone by."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from mcs.gateways import clock

HERE = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def asked_nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(clock, "of_host", lambda: HERE)
    monkeypatch.setattr(clock, "_told", None)
    monkeypatch.setattr(clock, "_said_off_by", timedelta())
    yield


def test_a_host_on_its_own_is_believed() -> None:
    assert clock.now() == HERE


@pytest.mark.parametrize("hours", [3, 0, -3])
def test_the_database_is_right(hours: int, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = HERE + timedelta(hours=hours)
    clock.go_by(theirs)
    assert timedelta() <= clock.now() - theirs < timedelta(seconds=1)
    monkeypatch.setattr(clock, "of_host", lambda: HERE + timedelta(days=1))
    assert clock.now() - theirs < timedelta(seconds=1), "however the host's clock jumps"


def test_a_database_in_berlin_is_understood_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    before_the_hour_is_repeated = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    monkeypatch.setattr(time, "clock_gettime", lambda _counter: 0)
    clock.go_by(before_the_hour_is_repeated)
    monkeypatch.setattr(time, "clock_gettime", lambda _counter: 3600)
    assert clock.now() == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    assert clock.now().tzinfo is UTC


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="only Linux can tell")
def test_a_host_that_was_suspended_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    counters = {time.CLOCK_BOOTTIME: 100.0, time.CLOCK_MONOTONIC: 100.0}
    monkeypatch.setattr(time, "clock_gettime", lambda counter: counters[counter])
    monkeypatch.setattr(time, "monotonic", lambda: counters[time.CLOCK_MONOTONIC])
    clock.go_by(HERE)
    counters[time.CLOCK_BOOTTIME] += 60
    assert clock.now() == HERE + timedelta(seconds=60)


def test_a_wrong_clock_is_spoken_of_once(caplog: pytest.LogCaptureFixture) -> None:
    for seconds in (0, 1, 2):
        clock.go_by(HERE - timedelta(hours=3, seconds=seconds))
    assert caplog.text.count("is off by") == 1
    clock.go_by(HERE)
    clock.go_by(HERE - timedelta(hours=3))
    assert caplog.text.count("is off by 3:00:00") == 2
