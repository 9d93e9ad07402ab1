"""The circuit breaker: which runs of failures stop an emailer."""

import pytest

from mcs.core.breaker import MOST_CUTS, MOST_REFUSALS, Breaker
from mcs.core.outcomes import Scope


def run(breaker: Breaker, fate: str) -> list[bool]:
    """Letters one after the other: ``.`` accepted, ``c`` cut, ``m`` message, ``d`` doubtful
    mailbox, ``a`` no such address, ``t`` try later. Whether each stopped the emailer.
    """
    scopes = {
        "c": Scope.CUT,
        "m": Scope.MESSAGE,
        "d": Scope.DOUBTFUL,
        "a": Scope.ADDRESS,
        "t": Scope.TRANSIENT,
    }
    stopped = []
    for each in fate:
        if each == ".":
            breaker.accepted()
            stopped.append(False)
        else:
            stopped.append(bool(breaker.failed(scopes[each], breaker.cuts)))
    return stopped


@pytest.mark.parametrize(
    ("fate", "stops"),
    [
        ("c" * (MOST_CUTS - 1) + ".", False),
        ("c" * MOST_CUTS, True),
        ("cccc.cccc.", False),
        ("ctcacccc", True),
        ("m" * MOST_REFUSALS[Scope.MESSAGE], True),
        ("mmmmm.mmmmm.mmmmm", False),
        ("mamamamamamamamamam", True),
        ("d" * (MOST_REFUSALS[Scope.DOUBTFUL] - 1), False),
        ("d" * MOST_REFUSALS[Scope.DOUBTFUL], True),
        ("a" * 1000, False),
        ("t" * 1000, False),
    ],
)
def test_what_stops_an_emailer(fate: str, stops: bool) -> None:
    assert any(run(Breaker(), fate)) is stops


def test_letters_cut_together_count_once() -> None:
    breaker = Breaker()
    assert [breaker.failed(Scope.CUT, 0) for _connection in range(100)] == [""] * 100
    assert (breaker.cuts, breaker.on_trial) == (1, True)
    breaker.accepted()
    assert not breaker.on_trial


def test_what_another_worker_saw_counts() -> None:
    breaker = Breaker(cuts=MOST_CUTS - 1)
    assert breaker.on_trial
    assert "in the middle of" in breaker.failed(Scope.CUT, breaker.cuts)
