"""Which clock is gone by."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

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


def test_a_wrong_clock_is_spoken_of_once(caplog: pytest.LogCaptureFixture) -> None:
    for seconds in (0, 1, 2):
        clock.go_by(HERE - timedelta(hours=3, seconds=seconds))
    assert caplog.text.count("is off by") == 1
    clock.go_by(HERE)
    clock.go_by(HERE - timedelta(hours=3))
    assert caplog.text.count("is off by 3:00:00") == 2
