"""Which passwords are too easy."""

import pytest

from mcs.core.passwords import weakness


@pytest.mark.parametrize(
    "password",
    ["seven green kettles", "x7Kq2mPz9w", "пароль длинный", "a" * 250 + "bcd", " spaces ok "],
)
def test_good(password: str) -> None:
    assert weakness(password, "olga@shop.example") == ""


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("", "10 characters"),
        ("ninechars", "10 characters"),
        ("x" * 257, "at most 256"),
        ("Olga.Owner@Shop.Example", "first thing"),
        ("olga.owner", "first thing"),
        ("Password123", "common"),
        ("aaaaaaaaaaaa", "common"),
        ("abababababab", "common"),
    ],
)
def test_bad(password: str, why: str) -> None:
    assert why in weakness(password, "olga.owner@shop.example")
