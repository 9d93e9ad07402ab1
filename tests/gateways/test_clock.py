"""Which clock is gone by."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from mcs.gateways import clock

HERE = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def stopped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(clock, "of_host", lambda: HERE)
    yield
    clock.go_by(HERE)


@pytest.mark.parametrize(
    ("database", "now"),
    [
        pytest.param(HERE + timedelta(seconds=1.5), HERE, id="it took a moment to ask"),
        pytest.param(HERE - timedelta(hours=3), HERE - timedelta(hours=3), id="this host is ahead"),
        pytest.param(HERE + timedelta(hours=3), HERE + timedelta(hours=3), id="this host is late"),
    ],
)
def test_the_database_is_right(database: datetime, now: datetime) -> None:
    clock.go_by(database)
    assert clock.now() == now


def test_a_host_that_was_set_right_is_believed_again(caplog: pytest.LogCaptureFixture) -> None:
    for _second in range(3):
        clock.go_by(HERE - timedelta(hours=3))
    assert caplog.text.count("is off by 3:00:00") == 1
    clock.go_by(HERE)
    assert clock.now() == HERE
