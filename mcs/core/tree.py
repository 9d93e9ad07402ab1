"""A subject or a content once parsed: text, fields, and choices between branches of the same."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

Values: TypeAlias = Mapping[str, str]


@dataclass(frozen=True)
class Field:
    """A merge field with its filters. A missing, empty or blank value takes the default."""

    name: str
    filters: tuple[Callable[[str], str], ...] = ()
    has_default: bool = False

    def of(self, values: Values) -> str:
        """The value for one contact; empty text where the contact has none."""
        text = values.get(self.name, "")
        for change in self.filters:
            text = change(text)
        return text


@dataclass(frozen=True)
class Condition:
    """What an ``if`` asks, and the fields it asks about."""

    holds: Callable[[Values], bool]
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class Choice:
    """An if with its elifs and its else (whose condition is None); the first that holds counts."""

    branches: tuple[tuple[Condition | None, "Nodes"], ...]


Nodes: TypeAlias = tuple["str | Field | Choice", ...]
Flat: TypeAlias = tuple["str | Field", ...]
Path: TypeAlias = tuple[int, ...]


def fields(tree: Nodes) -> Iterator[Field]:
    """Every field that is printed or asked about, with repetitions."""
    yield from printed(tree)
    yield from asked(tree)


def printed(tree: Nodes) -> Iterator[Field]:
    """The fields that are printed, in order, with repetitions."""
    for node in tree:
        if isinstance(node, Field):
            yield node
        elif isinstance(node, Choice):
            for _, branch in node.branches:
                yield from printed(branch)


def asked(tree: Nodes) -> Iterator[Field]:
    """The fields that conditions ask about, in order, with repetitions."""
    for node in tree:
        if isinstance(node, Choice):
            for condition, branch in node.branches:
                yield from condition.fields if condition else ()
                yield from asked(branch)


def beginnings(tree: Nodes) -> Iterator[str]:
    """The texts that the source can begin with, whatever the conditions say."""
    for node in tree:
        if isinstance(node, str):
            yield node
        elif isinstance(node, Choice):
            for _, branch in node.branches:
                yield from beginnings(branch)
            if any(condition is None for condition, _ in node.branches):
                return
            continue
        return


def is_blank(tree: Nodes) -> bool:
    """Whether it says nothing, whatever the contact."""
    return not any(
        node.strip()
        if isinstance(node, str)
        else isinstance(node, Field) or not all(is_blank(branch) for _, branch in node.branches)
        for node in tree
    )


def choices(tree: Nodes) -> Nodes:
    """The outer choices alone: all that ``path`` looks at, once per message."""
    return tuple(node for node in tree if isinstance(node, Choice))


def path(tree: Nodes, values: Values) -> Path:
    """Which branch each choice on the way takes for these values; -1 for none."""
    taken: list[int] = []
    for node in tree:
        if isinstance(node, Choice):
            number = _first_that_holds(node, values)
            taken.append(number)
            if number >= 0:
                taken += path(node.branches[number][1], values)
    return tuple(taken)


def follow(tree: Nodes, taken: Path) -> Flat:
    """The text and fields along a path. A choice that leaves nothing takes its empty line along."""
    steps = iter(taken)
    flat: list[str | Field] = []
    _walk(tree, lambda _: next(steps), flat)
    return tuple(flat)


def longest(tree: Nodes) -> Flat:
    """The text and fields along the path with the most text."""
    flat: list[str | Field] = []
    _walk(tree, _longest_branch, flat)
    return tuple(flat)


def _walk(
    tree: Nodes,
    choose: Callable[[Choice], int],
    flat: list[str | Field],
) -> None:
    nothing_left = False
    for node in tree:
        if isinstance(node, Choice):
            number, before = choose(node), len(flat)
            if number >= 0:
                _walk(node.branches[number][1], choose, flat)
            nothing_left = len(flat) == before and _ends_paragraph(flat)
        else:
            if nothing_left and isinstance(node, str):
                node = node.removeprefix("\n")
            nothing_left = False
            if node:
                flat.append(node)


def _ends_paragraph(flat: list[str | Field]) -> bool:
    return not flat or (isinstance(flat[-1], str) and flat[-1].endswith("\n\n"))


def _first_that_holds(choice: Choice, values: Values) -> int:
    for number, (condition, _) in enumerate(choice.branches):
        if condition is None or condition.holds(values):
            return number
    return -1


def _longest_branch(choice: Choice) -> int:
    sizes = [_size(branch) for _, branch in choice.branches]
    return sizes.index(max(sizes))


def _size(tree: Nodes) -> int:
    return sum(
        len(node)
        if isinstance(node, str)
        else max(_size(branch) for _, branch in node.branches)
        if isinstance(node, Choice)
        else 1
        for node in tree
    )
