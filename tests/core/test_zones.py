"""Time zones by the names people type."""

from zoneinfo import available_timezones

import pytest

from mcs.core import zones


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("Europe/Berlin", "Europe/Berlin"),
        ("europe/berlin", "Europe/Berlin"),
        ("Berlin", "Europe/Berlin"),
        (" berlin ", "Europe/Berlin"),
        ("new york", "America/New_York"),
        ("New_York", "America/New_York"),
        ("america/new york", "America/New_York"),
        ("utc", "UTC"),
        # Several zones of the world end so.
        ("Eastern", None),
        ("Atlantis", None),
        ("Europe", None),
        ("", None),
        ("../etc/passwd", None),
    ],
)
def test_a_zone_is_found_by_its_city(typed: str, meant: str | None) -> None:
    assert zones.named(typed, available_timezones()) == meant
