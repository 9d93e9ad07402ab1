"""The circuit breaker: which runs of failures stop an emailer."""

from collections.abc import Callable
from functools import partial

import pytest

from mcs.core import breaker as notices
from mcs.core.breaker import LONGEST_NOTICE, MOST_CUTS, MOST_REFUSALS, Breaker
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


def tripped(scope: Scope, said: str) -> str:
    """The notice of a breaker that one kind of failure has tripped."""
    breaker, notice = Breaker(), ""
    while not notice:
        notice = breaker.failed(scope, breaker.cuts, said)
    return notice


FAILED = ("are marked failed", "then resume", "“Retry the failed” sends them again")
NOBODY = ("Nobody was marked failed", "then resume")


@pytest.mark.parametrize("said", ["550 5.7.1 Blocked", "550 5.7.1 " + "We think not. " * 100, ""])
@pytest.mark.parametrize(
    ("notice", "parts"),
    [
        (partial(tripped, Scope.MESSAGE), ("refused the message itself 10 times", *FAILED)),
        (partial(tripped, Scope.DOUBTFUL), ("refused 50 recipients", "blocklist", *FAILED)),
        (partial(tripped, Scope.CUT), ("the middle of 5 messages", "in doubt", "then resume")),
        (notices.refused_sender, ("refuses this sender", "From address", *NOBODY)),
        (notices.refused_login, ("send nothing", "MAIL_PASSWORD", *NOBODY)),
    ],
)
def test_a_notice_says_what_happened_what_became_of_them_and_what_to_do(
    notice: Callable[[str], str], parts: tuple[str, ...], said: str
) -> None:
    """However much the server said: its words are cut, the advice is not."""
    found = notice(said)
    assert len(found) <= LONGEST_NOTICE
    assert [part for part in parts if part not in found] == []
    assert said[:17] in found
