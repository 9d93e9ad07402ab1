"""Tallies: how many subjects and actions something moves, makes appear or vanish, and when."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from mcs.core import sequences
from mcs.core.sequences import Change


@dataclass
class Period:
    """The first and the last of some moments; None where there is none."""

    first: datetime | None = None
    last: datetime | None = None

    def take(self, at: datetime | None) -> None:
        """Stretch it to a moment."""
        if at is None:
            return
        if self.first is None or at < self.first:
            self.first = at
        if self.last is None or at > self.last:
            self.last = at

    def cover(self, other: "Period") -> None:
        """Stretch it to all of another."""
        self.take(other.first)
        self.take(other.last)


@dataclass
class Shift:
    """From when to when some actions go: the moments that they had, and those that they get.

    ``reasons`` say why some get none.
    """

    before: Period = field(default_factory=Period)
    after: Period = field(default_factory=Period)
    reasons: set[str] = field(default_factory=set)


@dataclass
class Tally:
    """How many subjects and actions something moves; ``by_key`` has the kinds of each step, and
    ``shifts`` from when to when those of a step and kind go.

    ``never`` counts the new actions that will not fall due, such as after the last day.
    """

    subjects: int = 0
    appear: int = 0
    move: int = 0
    never: int = 0
    vanish: int = 0
    skipped: int = 0
    at_once: int = 0
    by_key: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    shifts: dict[tuple[str, str], Shift] = field(default_factory=lambda: defaultdict(Shift))

    def add(self, changes: Iterable[Change]) -> None:
        """Count the changes of one subject."""
        seen = False
        for change in changes:
            seen = True
            kind = _told_as(change)
            setattr(self, kind, getattr(self, kind) + 1)
            self.at_once += change.late
            self.by_key[change.key][kind] += 1
            shift = self.shifts[change.key, kind]
            shift.before.take(change.was)
            if change.reason:
                shift.reasons.add(change.reason)
            else:
                shift.after.take(change.expected_at)
        self.subjects += seen

    @property
    def moves_none(self) -> bool:
        """Whether nobody gets anything else, or at another moment."""
        return not (self.appear or self.move or self.vanish or self.skipped)

    def period(self, kind: str) -> Period:
        """When the actions of a kind are to be; of those that vanish, when they would have been."""
        found = Period()
        for (_, each), shift in self.shifts.items():
            if each == kind:
                found.cover(shift.before if kind == "vanish" else shift.after)
        return found


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
    if change.kind == "appear":
        return "never" if change.reason else "appear"
    return "vanish" if change.reason else change.kind
