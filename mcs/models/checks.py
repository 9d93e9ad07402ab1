"""SQL text for CHECK constraints, made from the lists in core so that the two cannot differ."""

from collections.abc import Iterable


def one_of(column: str, values: Iterable[str]) -> str:
    """``column IN ('a', 'b')`` for lower-case words of our own."""
    return f"{column} IN ({', '.join(repr(value) for value in values)})"
