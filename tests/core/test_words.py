"""How MCS says lengths of time, errors, and where a sentence ends."""

from datetime import UTC, datetime, timedelta, timezone

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


@pytest.mark.parametrize(
    ("per_second", "said"),
    [(20, "1,200 a minute"), (0.01, "1 a minute"), (0.005, "18 an hour")],
)
def test_a_rate_is_said_by_the_minute_or_hour(per_second: float, said: str) -> None:
    assert words.rate(per_second) == said


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (
            "Traceback:\n  File\nmcs.a.WebhookFailed: https://x answered 503",
            "https://x answered 503",
        ),
        ("RuntimeError: the shop is closed\n", "the shop is closed"),
        ("ValueError", "ValueError"),
        ("its worker died: each of 20 times", "its worker died: each of 20 times"),
        (" \n", "It failed without a word"),
    ],
)
def test_an_error_is_said_without_its_class(kept: str, said: str) -> None:
    assert words.error(kept) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("From Ada's Shop", "From Ada's Shop."),
        ("From Jo's Shop, Ltd.", "From Jo's Shop, Ltd."),
        ("From Yahoo!", "From Yahoo!"),
        ("From Who?", "From Who?"),
        ("From And so on…", "From And so on…"),
    ],
)
def test_a_sentence_ends_once(text: str, said: str) -> None:
    assert words.sentence(text) == said


def test_an_instant_for_programs_is_in_utc() -> None:
    berlin = timezone(timedelta(hours=1))
    assert words.instant(datetime(2026, 11, 24, 10, tzinfo=berlin)) == "2026-11-24T09:00:00Z"
    at = datetime(2026, 11, 24, 9, 0, 0, 1500, tzinfo=UTC)
    assert words.instant(at) == "2026-11-24T09:00:00.001500Z"


@pytest.mark.parametrize(("state", "shown"), [("in_doubt", "In doubt"), ("sent", "Sent")])
def test_a_state_is_shown_in_words(state: str, shown: str) -> None:
    assert words.state(state) == shown


@pytest.mark.parametrize(
    ("said", "longest", "cut"),
    [
        ("550 5.7.1 Blocked", 18, "550 5.7.1 Blocked."),
        ("550 5.7.1 Blocked", 17, "550 5.7.1 Blocke…"),
        ("550  Go\naway!", 20, "550 Go away!"),
        ("550 Go away", 5, "550…"),
    ],
)
def test_what_somebody_else_said_is_a_sentence_of_so_many_characters(
    said: str, longest: int, cut: str
) -> None:
    assert words.cut(said, longest) == cut
