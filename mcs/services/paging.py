"""Keyset paging: a page of rows, and the keys to ask for the pages beside it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from sqlalchemy import BigInteger, Select, SQLColumnExpression, tuple_
from sqlalchemy.orm import Session

T = TypeVar("T")
Rows: TypeAlias = Select[*tuple[Any, ...]]

LARGEST_ID = 2**31 - 1
LARGEST_BIG_ID = 2**63 - 1


@dataclass(frozen=True)
class At:
    """Where a page begins: behind the key ``after``, or just before the key ``before``."""

    after: str = ""
    before: str = ""


@dataclass(frozen=True)
class Page(Generic[T]):
    """``previous`` and ``next`` are keys for At, None where there is nothing more."""

    rows: Sequence[T]
    previous: str | None
    next: str | None


@dataclass(frozen=True)
class Order:
    """How rows are ordered: columns that are unique together, and all in the same direction.

    ``read`` turns a key's text into their values, or into SQL that finds them, and raises
    ValueError for one that is none.
    """

    columns: tuple[SQLColumnExpression[Any], ...]
    descending: bool
    read: Callable[[str], tuple[Any, ...]]


def by_id(column: Any, descending: bool = True) -> Order:
    """The latest first, unless told otherwise."""
    largest = LARGEST_BIG_ID if isinstance(column.type, BigInteger) else LARGEST_ID

    def read(text: str) -> tuple[int]:
        return (read_number(text, largest),)

    return Order((column,), descending, read)


def read_number(text: str, largest: int = LARGEST_ID) -> int:
    """An id in a key. Raises ValueError, also for what is larger than PostgreSQL can compare."""
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= largest):
        raise ValueError(text)
    return int(text)


def turn(
    session: Session,
    query: Rows,
    order: Order,
    at: At,
    limit: int,
    make: Callable[..., T],
    key: Callable[[T], object],
) -> Page[T]:
    """The page of ``query`` at a place; a key that was tampered with means the first page.

    Asks for one row more than ``limit``: it only says that there is more.
    """
    backwards, place = _place(order, at)
    down = order.descending != backwards
    if place is not None:
        here = tuple_(*order.columns)
        there = tuple_(*place, types=here.type.types)
        query = query.where(here < there if down else here > there)
    columns = [column.desc() if down else column.asc() for column in order.columns]
    found = [make(*row) for row in session.execute(query.order_by(*columns).limit(limit + 1))]
    more, rows = len(found) > limit, found[:limit]
    if backwards:
        rows.reverse()
    has_previous = more if backwards else place is not None
    has_next = backwards or more
    return Page(
        rows,
        str(key(rows[0])) if rows and has_previous else None,
        str(key(rows[-1])) if rows and has_next else None,
    )


def _place(order: Order, at: At) -> tuple[bool, tuple[Any, ...] | None]:
    for backwards, text in ((True, at.before), (False, at.after)):
        if text:
            try:
                return backwards, order.read(text)
            except ValueError:
                continue
    return False, None
