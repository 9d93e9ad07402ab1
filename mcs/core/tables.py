"""Tables of contacts in CSV files: from bytes to rows to people, whatever the bytes are.

Nothing here holds more than one record of the file at a time, and no file can crash it: what
cannot be read is a rejected row with its reason, or BadFile when it is the file as a whole.
"""

import codecs
import csv
import io
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from mcs.core.addresses import BadAddress, parse_address
from mcs.core.columns import (
    ATTRIBUTE,
    EMAIL,
    FAMILY,
    GIVEN,
    NAME,
    OUR_COLUMNS,
    Column,
    detect,
)

MAX_COLUMNS = 200
MAX_RECORD = 65_536
MAX_LINES_IN_RECORD = 100
MAX_NAME = 200
MAX_VALUE = 2_000
HEAD_SIZE = 65_536
SAMPLE_ROWS = 100
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}

UNREADABLE = "\ufffd"
# What makes a spreadsheet take a cell for a formula, full-width forms included.
_FORMULA_STARTS = tuple("=+-@\t\r＝＋－＠")

_SAVE_AS_CSV = "open it in your spreadsheet, choose Save as (or Download), and take CSV UTF-8"
_OTHER_FILES = (
    (b"PK\x03\x04", f"This is an Excel workbook or a ZIP archive, not a CSV: {_SAVE_AS_CSV}."),
    (b"\xd0\xcf\x11\xe0", f"This is an old Excel workbook, not a CSV: {_SAVE_AS_CSV}."),
    (b"%PDF", "This is a PDF, not a CSV: export the table from where the PDF was made."),
    (b"\x89PNG", "This is a picture (PNG), not a CSV."),
    (b"\xff\xd8\xff", "This is a picture (JPEG), not a CSV."),
    (b"GIF8", "This is a picture (GIF), not a CSV."),
    (b"\x1f\x8b", "This file is compressed (gzip): unpack it and upload the CSV inside."),
    (b"SQLite format 3", "This is a database, not a CSV: export the table as CSV."),
    (b"{\\rtf", f"This is a text document (RTF), not a CSV: {_SAVE_AS_CSV}."),
    (b"\xff\xfe\x00\x00", "This is UTF-32 text: save it as CSV UTF-8 instead."),
)


class BadFile(ValueError):
    """A file of which nothing can be taken; ``reason`` says what it is and what to do."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Layout:
    """How a file is to be read. ``skip`` lines stand before the rows or their titles."""

    encoding: str
    delimiter: str
    skip: int
    header: bool
    columns: tuple[Column, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Layout":
        columns = tuple(Column(**column) for column in stored["columns"])
        return cls(**{**stored, "columns": columns})

    @property
    def corrected(self) -> bool:
        """Whether the file is our own download of rejected rows, coming back."""
        return tuple(column.title for column in self.columns[: len(OUR_COLUMNS)]) == OUR_COLUMNS


@dataclass(frozen=True, slots=True)
class Row:
    """A record of the file as it stands there. ``line`` is the physical one it begins at, from 1;
    ``problem`` is why it could not be read, or empty."""

    line: int
    cells: list[str]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A row that became a person."""

    line: int
    email: str
    key: str
    name: str
    attributes: dict[str, str]


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that did not: the column's title (empty when it is the row as a whole) and why."""

    line: int
    field: str
    reason: str
    cells: list[str]


class Sniffer:
    """Finds out a file's layout while its bytes pass by: the encoding needs all of them."""

    def __init__(self) -> None:
        self.size = 0
        self.lines = 0
        self._head = bytearray()
        self._utf8 = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._good, self._bad = 0, 0

    def feed(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self.lines += chunk.count(b"\n") or chunk.count(b"\r")
        self._head += chunk[: HEAD_SIZE - len(self._head)]
        if not (chunk.isascii() and self._utf8.getstate()[0] == b""):
            foreign = [letter for letter in self._utf8.decode(chunk) if letter > "\x7f"]
            bad = sum(1 for letter in foreign if "\udc80" <= letter <= "\udcff")
            self._bad += bad
            self._good += len(foreign) - bad

    def layout(self) -> Layout:
        """The layout, once all bytes were fed. Raises BadFile."""
        head = bytes(self._head)
        _refuse_other_files(head)
        encoding = self._encoding(head)
        truncated = self.size > len(head)
        lines = _whole_lines(head, encoding, truncated)
        if not any(map(str.strip, lines)):
            raise BadFile("The file is empty: it has no rows.")
        delimiter, skip = _delimiter(lines)
        sample = _sample(lines[skip:], delimiter)
        if not sample:
            raise BadFile("The file is empty: it has no rows.")
        header, columns = _columns(sample)
        if header and len(sample) == 1 and not truncated:
            raise BadFile("There are column names but no rows below them: add the contacts.")
        return Layout(encoding, delimiter, skip, header, tuple(columns))

    def _encoding(self, head: bytes) -> str:
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        if head.count(0) > len(head) // 4:
            # Every second byte of Latin text is NUL in UTF-16; Windows tools forget the mark.
            return "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
        # A few damaged letters do not make a UTF-8 file another; in cp1252 nearly all are bad.
        return "utf-8-sig" if self._bad <= self._good else "cp1252"


def rows(chunks: Iterable[bytes], layout: Layout) -> Iterator[Row]:
    """The rows below the titles, blank ones left out. Memory holds one record, whatever comes."""
    records = _records(_lines(_text(chunks, layout.encoding)), layout.delimiter, layout.skip)
    titles_ahead = layout.header
    for row in records:
        if titles_ahead and not row.problem and _filled(row):
            titles_ahead = False
        elif _filled(row):
            yield row


def people(
    chunks: Iterable[bytes], layout: Layout, skip_rows: int = 0
) -> Iterator[Entry | Rejection]:
    """Each row as a person, or as a rejection with its reason, in the order of the file."""
    return map(_Reader(layout).read, islice(rows(chunks, layout), skip_rows, None))


def _filled(row: Row) -> bool:
    return bool(row.problem) or (not "".join(row.cells).isspace() and any(row.cells))


def safe_cell(cell: str) -> str:
    """The cell as it may stand in a CSV for spreadsheets: an apostrophe before what would run."""
    return f"'{cell}" if cell.startswith(_FORMULA_STARTS) else cell


def _as_typed(cell: str) -> str:
    """The cell without the apostrophe that safe_cell gave it."""
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith(_FORMULA_STARTS) else cell


class _Reader:
    """Turns rows into people, with the columns looked up once."""

    def __init__(self, layout: Layout) -> None:
        self._titles = [column.title for column in layout.columns]
        self._corrected = layout.corrected
        uses = [column.use for column in layout.columns]
        self._email = uses.index(EMAIL)
        self._names = [uses.index(use) for use in (NAME, GIVEN, FAMILY) if use in uses]
        self._attributes = [
            (place, column.field)
            for place, column in enumerate(layout.columns)
            if column.use == ATTRIBUTE
        ]

    def read(self, row: Row) -> Entry | Rejection:
        problem = row.problem or self._problem(row.cells)
        if problem:
            return Rejection(row.line, "", problem, _storable(row.cells))
        cells = row.cells
        if self._corrected:
            cells = list(map(_as_typed, cells))
        missing = len(self._titles) - len(cells)
        if missing > 0:
            cells = cells + [""] * missing
        try:
            address = parse_address(cells[self._email])
        except BadAddress as bad:
            return self._rejection(row, self._email, bad.reason)
        name = " ".join(" ".join([cells[place] for place in self._names]).split())
        if len(name) > MAX_NAME:
            return self._rejection(row, self._names[0], f"it is longer than {MAX_NAME} characters")
        attributes = {}
        for place, field in self._attributes:
            value = cells[place].strip()
            if len(value) > MAX_VALUE:
                return self._rejection(row, place, f"it is longer than {MAX_VALUE:,} characters")
            if value:
                attributes[field] = value
        return Entry(row.line, address.email, address.key, name, attributes)

    def _problem(self, cells: list[str]) -> str:
        text = "".join(cells)
        if not text.isascii() and UNREADABLE in text:
            return "there are letters in it that could not be read: save the file as CSV UTF-8"
        if "\x00" in text:
            return "there is a NUL character in it, which no text has: the file may be damaged"
        expected = len(self._titles)
        if len(cells) > expected and any(map(str.strip, cells[expected:])):
            return (
                f"it has {len(cells)} cells where {expected} are expected: a cell with the"
                " separator in it needs quotation marks around it"
            )
        return ""

    def _rejection(self, row: Row, place: int, reason: str) -> Rejection:
        return Rejection(row.line, self._titles[place], reason, _storable(row.cells))


def _storable(cells: list[str]) -> list[str]:
    """No NUL: PostgreSQL stores none. No more cells than a page could ever show."""
    return [cell.replace("\x00", UNREADABLE) for cell in cells[: 2 * MAX_COLUMNS]]


# Bytes to text to lines to records: each a generator over the one before.


def _text(chunks: Iterable[bytes], encoding: str) -> Iterator[str]:
    """Decoded text with every line ending as one newline; undecodable bytes as UNREADABLE."""
    decoder = io.IncrementalNewlineDecoder(
        codecs.getincrementaldecoder(encoding)("replace"), translate=True
    )
    for chunk in chunks:
        yield decoder.decode(chunk)
    yield decoder.decode(b"", final=True)


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """Physical lines with their newline. Of one longer than MAX_RECORD, only so much and one more
    character, so that its length can be seen."""
    begun = ""
    for text in texts:
        first, *others = text.split("\n")
        begun += first[: MAX_RECORD + 1 - len(begun)]
        for other in others:
            yield begun + "\n"
            begun = other[: MAX_RECORD + 1]
    if begun:
        yield begun


class _LineTooLong(Exception):
    pass


class _QuotationTooLong(Exception):
    pass


class _Source:
    """Hands lines to a csv.reader, which asks for more while a quotation is open, and takes back
    those that it had been given in vain."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._back: deque[str] = deque()
        self._size = 0
        self.taken: list[str] = []
        self.ended = False
        self.number = 1

    def __iter__(self) -> "_Source":
        return self

    def __next__(self) -> str:
        if len(self.taken) == MAX_LINES_IN_RECORD or self._size > MAX_RECORD:
            raise _QuotationTooLong
        line = self._back.popleft() if self._back else next(self._lines, None)
        if line is None:
            self.ended = True
            raise StopIteration
        self.taken.append(line)
        self._size += len(line)
        if len(self.taken) == 1 and self._size > MAX_RECORD:
            raise _LineTooLong
        return line

    def begin_record(self) -> None:
        self.number += len(self.taken)
        self.taken, self._size, self.ended = [], 0, False

    def give_back(self) -> None:
        """All lines of this record but its first."""
        self._back.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]


def _records(lines: Iterator[str], delimiter: str, skip: int) -> Iterator[Row]:
    """Every record with the line it begins at, blank ones too.

    A quotation that is never closed costs its own line only: reading goes on at the next.
    """
    source = _Source(lines)
    for _ in range(skip):
        next(source, None)
    reader = csv.reader(source, delimiter=delimiter)
    while True:
        source.begin_record()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except _LineTooLong:
            line = source.taken[0][:MAX_VALUE]
            yield Row(source.number, [line], f"the line is longer than {MAX_RECORD:,} characters")
            continue
        except _QuotationTooLong:
            yield _unclosed(source, delimiter)
            continue
        # A reader that reached the end inside a record was inside a quotation.
        if source.ended or not _well_quoted(source.taken, delimiter):
            yield _unclosed(source, delimiter)
        else:
            yield Row(source.number, cells)


def _well_quoted(lines: list[str], delimiter: str) -> bool:
    """Whether a record of several lines is one: a forgotten quotation mark seems to end where the
    next row's begins, and then there is text right behind it."""
    if len(lines) == 1:
        return True
    try:
        next(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error:
        return False
    return True


def _unclosed(source: _Source, delimiter: str) -> Row:
    source.give_back()
    cells = source.taken[0].rstrip("\n").split(delimiter)
    return Row(source.number, cells, "a quotation mark in it is opened and never closed")


# From the head of a file to its layout.


def _refuse_other_files(head: bytes) -> None:
    for start, reason in _OTHER_FILES:
        if head.startswith(start):
            raise BadFile(reason)
    beginning = head.removeprefix(codecs.BOM_UTF8).lstrip()[:15].lower()
    if beginning.startswith((b"<!doctype", b"<html", b"<?xml", b"<table")):
        raise BadFile(
            "This is a web page or XML, not a CSV: where it came from, look for Export as CSV."
        )


def _whole_lines(head: bytes, encoding: str, truncated: bool) -> list[str]:
    """The head's physical lines, without one that was cut off."""
    lines = list(_lines(_text([head], encoding)))
    if truncated and len(lines) > 1:
        del lines[-1]
    elif truncated:
        raise BadFile(f"The first line is longer than {HEAD_SIZE:,} bytes: this is not a CSV.")
    return lines


def _delimiter(lines: list[str]) -> tuple[str, int]:
    """The delimiter, and the lines to skip: Excel's ``sep=;`` names it in a line of its own."""
    first = lines[0].strip().lower()
    if first.startswith("sep=") and first[4:] in DELIMITERS:
        return first[4:], 1
    if lines[0].rstrip("\n").lower() == "sep=\t":
        return "\t", 1
    return max(DELIMITERS, key=lambda delimiter: _fit(_sample(lines, delimiter))), 0


def _fit(sample: list[Row]) -> tuple[bool, float, int]:
    """How well a delimiter fits, by the rows it makes: the greater the better."""
    cells = [row.cells for row in sample if not row.problem]
    width = len(cells[0]) if cells else 1
    if width == 1:
        return False, 0.0, 1
    _, columns = detect(cells[0], cells[1:])
    found = any(column.use == EMAIL for column in columns)
    return found, sum(len(row) == width for row in cells) / len(cells), width


def _sample(lines: list[str], delimiter: str) -> list[Row]:
    """The first rows that are not blank."""
    filled = filter(_filled, _records(iter(lines), delimiter, skip=0))
    return list(islice(filled, SAMPLE_ROWS))


def _columns(sample: list[Row]) -> tuple[bool, list[Column]]:
    """Whether there are titles, and the columns, one of which holds addresses."""
    readable = [row.cells for row in sample if not row.problem]
    if not readable:
        raise BadFile(f"No row of the file can be read: {sample[0].problem}.")
    width = max(map(len, readable))
    if width > MAX_COLUMNS:
        raise BadFile(
            f"The file has {width:,} columns; up to {MAX_COLUMNS} are taken."
            " Leave out those that no email needs."
        )
    header, columns = detect(readable[0], readable[1:])
    if not any(column.use == EMAIL for column in columns):
        raise BadFile(
            "No column with email addresses was found. The first row should name the columns,"
            " and one of them should be called email."
        )
    return header, columns
