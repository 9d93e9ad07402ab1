"""Where today stands in a campaign's timeline."""

from datetime import UTC, date, datetime

import pytest

from mcs.core.timelines import state, today

START, END = date(2026, 11, 23), date(2026, 11, 30)


@pytest.mark.parametrize(
    ("day", "active", "archived", "expected"),
    [
        (date(2026, 11, 22), True, False, "upcoming"),
        (date(2026, 11, 23), True, False, "running"),
        (date(2026, 11, 30), True, False, "running"),
        (date(2026, 12, 1), True, False, "over"),
        (date(2026, 11, 25), False, False, "inactive"),
        (date(2026, 11, 25), False, True, "archived"),
    ],
)
def test_state(day: date, active: bool, archived: bool, expected: str) -> None:
    assert state(START, END, day, active, archived) == expected


def test_today_is_the_zones_own() -> None:
    instant = datetime(2026, 11, 22, 23, 30, tzinfo=UTC)
    assert today(instant, "Europe/Berlin") == date(2026, 11, 23)
    assert today(instant, "America/New_York") == date(2026, 11, 22)
