"""How MCS says lengths of time."""

from datetime import timedelta

import pytest

from mcs.core import words


@pytest.mark.parametrize(
    ("length", "said"),
    [
        (timedelta(0), "less than a second"),
        (timedelta(milliseconds=900), "less than a second"),
        (timedelta(seconds=1), "1 second"),
        (timedelta(seconds=-65), "1 minute 5 seconds"),
        (timedelta(days=3, seconds=5), "3 days 5 seconds"),
    ],
)
def test_a_length_is_said_in_its_largest_units(length: timedelta, said: str) -> None:
    assert words.span(length) == said
