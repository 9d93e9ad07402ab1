"""Tallies: how many subjects and actions something moves, makes appear or vanish."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from mcs.core import sequences
from mcs.core.sequences import Change


@dataclass
class Tally:
    """How many subjects and actions something moves; ``by_key`` has the kinds of each step."""

    subjects: int = 0
    appear: int = 0
    move: int = 0
    vanish: int = 0
    skipped: int = 0
    at_once: int = 0
    by_key: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, changes: Iterable[Change]) -> None:
        """Count the changes of one subject."""
        seen = False
        for change in changes:
            seen = True
            kind = _told_as(change)
            setattr(self, kind, getattr(self, kind) + 1)
            self.at_once += change.late
            self.by_key[change.key][kind] += 1
        self.subjects += seen


@dataclass(frozen=True)
class Effect:
    """What saving would change, for either answer to what becomes of moments already past."""

    skip: Tally = field(default_factory=Tally)
    run: Tally = field(default_factory=Tally)

    @property
    def any(self) -> bool:
        return bool(self.skip.subjects or self.run.subjects)

    @property
    def asks(self) -> bool:
        """Whether the answer makes a difference."""
        return bool(self.skip.skipped or self.run.at_once)


def _told_as(change: Change) -> str:
    if change.reason == sequences.PASSED:
        return "skipped"
    if change.kind == "return":
        return "appear"
    return "vanish" if change.reason else change.kind
