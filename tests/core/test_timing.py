"""Intervals in plain words."""

import pytest

from mcs.core.sequences import define
from mcs.core.timing import said


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"offset": "0days"}, "At once"),
        ({"offset": "0days", "time": "10:00"}, "The next time of day, at 10:00"),
        ({"offset": "2days", "time": "10:00"}, "2 days later, at 10:00"),
        ({"offset": "1day 2hours 25min"}, "1 day 2 hours 25 minutes later"),
        ({"offset": "2-5days"}, "2 days to 5 days later"),
        ({"offset": "14months"}, "1 year 2 months later"),
        ({"offset": "90min"}, "1 hour 30 minutes later"),
        (
            {"offset": "1day", "time": "22:00-02:00"},
            "1 day later, between 22:00 and 02:00",
        ),
        ({"offset": "1day", "time": "00:00-24:00"}, "1 day later, between 00:00 and 24:00"),
        ({"offset": "1day", "time": "10:00:30"}, "1 day later, at 10:00:30"),
        ({"offset": "1day", "days": "mon-fri"}, "1 day later, on weekdays only"),
        ({"offset": "1day", "days": "sat,sun"}, "1 day later, at weekends only"),
        ({"offset": "1day", "days": "wed"}, "1 day later, on Wed only"),
        ({"offset": "1day", "days": "mon,wed,fri"}, "1 day later, on Mon, Wed and Fri only"),
        ({"offset": "1day", "excluded": "2026-12-25"}, "1 day later, not on 25 Dec 2026"),
        (
            {"offset": "1day", "excluded": "2026-12-24..2026-12-27"},
            "1 day later, not on 4 dates left out",
        ),
        (
            {"offset": "0days", "repeat": "every 1month, 6 times"},
            "At once, then every month, 6 times in all",
        ),
        (
            {"offset": "1day", "repeat": "every 2weeks until 2027-06-30"},
            "1 day later, then every 14 days, until 30 Jun 2027",
        ),
        ({"offset": "2days", "after": "hello"}, "2 days after hello"),
        ({"offset": "2days", "after": "hello.3"}, "2 days after hello.3"),
        ({"offset": "0days", "after": "hello"}, "Right after hello"),
        (
            {"offset": "0days", "after": "hello", "time": "10:00"},
            "The next time of day after hello, at 10:00",
        ),
    ],
)
def test_a_step_in_words(given: dict[str, str], words: str) -> None:
    assert said(define("step", "webhook", **given)) == words  # type: ignore[arg-type]


def test_at_once_waits_for_the_first_day_of_an_upcoming_campaign() -> None:
    first = define("step", "webhook", offset="0days")
    assert said(first, upcoming=True) == "When the campaign begins"
    assert said(define("step", "webhook", offset="2days"), upcoming=True) == "2 days later"
