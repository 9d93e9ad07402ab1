"""Every file of the zoo has one expected outcome; whatever csv.writer writes comes back."""

import csv
import io
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mcs.core.columns import field_name, with_uses
from mcs.core.tables import (
    BadFile,
    Entry,
    Layout,
    Rejection,
    Sniffer,
    people,
    rows,
    safe_cell,
)

ZOO = Path(__file__).parent.parent / "files" / "contacts"
EXAMPLE = Path(__file__).parents[2] / "examples" / "contacts.csv"

ANN_AND_BOB = [("Ann Lee", {"company": "Bloom"}), ("Bob", {"company": "Lumen"})]
JORG_AND_BOB = [("Jörg Müller", {"grosse": "groß"}), ("Bob", {"grosse": "klein"})]
JUST_NAMES = [("Ann", {}), ("Bob", {})]
UNCLOSED = "a quotation mark in it is opened and never closed"

# File: the people in it (name, attributes), and the rejected rows (line, field, reason).
Outcome = tuple[list[tuple[str, dict[str, str]]], list[tuple[int, str, str]]]
READ: dict[str, Outcome] = {
    "plain.csv": (ANN_AND_BOB, []),
    "bom.csv": (JORG_AND_BOB, []),
    "excel_semicolon_cp1252.csv": (JORG_AND_BOB, []),
    "excel_unicode_tab_utf16.csv": (JORG_AND_BOB, []),
    "utf16_be.csv": (JORG_AND_BOB, []),
    "utf16_without_mark.csv": (ANN_AND_BOB, []),
    "tabs.tsv": (ANN_AND_BOB, []),
    "bars.csv": (ANN_AND_BOB, []),
    "sep_line.csv": (ANN_AND_BOB, []),
    "no_header.csv": (
        [("Ann Lee", {"column_3": "Bloom"}), ("Bob", {"column_3": "Lumen"})],
        [],
    ),
    "only_addresses.txt": ([("", {}), ("", {})], []),
    "old_mac_newlines.csv": (ANN_AND_BOB, []),
    "no_last_newline.csv": (ANN_AND_BOB, []),
    "swapped_columns.csv": (
        [("Ann Lee", {"company_name": "Bloom"}), ("Bob", {"company_name": "Lumen"})],
        [],
    ),
    "first_and_last_name.csv": ([("Ann Lee", {}), ("Bob", {})], []),
    "german_names.csv": ([("Jörg Müller", {}), ("Bob", {})], []),
    "unknown_titles.csv": (
        [("", {"wer": "Ann Lee", "stadt": "Bonn"}), ("", {"wer": "Bob", "stadt": "Köln"})],
        [],
    ),
    "extra_and_reserved_columns.csv": (
        [
            (
                "Ann",
                {
                    "company_name": "a",
                    "company_name_2": "b",
                    "if_2": "c",
                    "column_2024_sales": "d",
                    "unsubscribe_url_2": "e",
                },
            )
        ],
        [],
    ),
    "quoted_newlines.csv": (
        [("Ann", {"address": '1 Main St\nBonn, "old town"'}), ("Bob", {})],
        [(4, "email", "there is no @")],
    ),
    "blank_lines.csv": (JUST_NAMES, []),
    "ragged.csv": (
        [("", {}), ("Bob", {"city": "Bonn"})],
        [
            (
                4,
                "",
                "it has 4 cells where 3 are expected: a cell with the separator in it needs"
                " quotation marks around it",
            )
        ],
    ),
    "unclosed_quote.csv": (
        [("Ann", {"city": "Bonn"}), *((f"P{n}", {"city": "Bonn"}) for n in range(150))],
        [(3, "", UNCLOSED)],
    ),
    "unclosed_quote_then_quoted.csv": (JUST_NAMES, [(2, "", UNCLOSED)]),
    "unclosed_quote_at_end.csv": ([("Ann", {})], [(3, "", UNCLOSED)]),
    "nul_bytes.csv": (
        [("Ann", {})],
        [(3, "", "there is a NUL character in it, which no text has: the file may be damaged")],
    ),
    "damaged_utf8.csv": (
        [("Änn Öz", {})],
        [(3, "", "there are letters in it that could not be read: save the file as CSV UTF-8")],
    ),
    "long_line.csv": (
        [("Ann", {}), ("Cy", {})],
        [(3, "", "the line is longer than 65,536 characters")],
    ),
    "long_values.csv": (
        [("Cy", {"note": "ok"})],
        [
            (2, "name", "it is longer than 200 characters"),
            (3, "note", "it is longer than 2,000 characters"),
        ],
    ),
    "duplicates.csv": (
        [("Ann", {"city": "Bonn"}), ("Ann", {"city": "Bonn"}), ("", {"city": "Köln"})],
        [],
    ),
    "only_bad_rows.csv": (
        [],
        [
            (2, "email", "there is no @"),
            (3, "email", "there is nothing before the @"),
            (4, "email", "the address is empty"),
        ],
    ),
    "idn_and_plus.csv": ([("Ann", {}), ("Ann again", {}), ("Bob", {})], []),
    "formulas.csv": ([("=1+1", {"note": "@SUM(A1)"})], [(3, "email", "there is no @")]),
    "rejected_and_corrected.csv": (
        [("Ann", {"note": "=1+1"})],
        [(3, "email", "there is no @")],
    ),
}

REFUSED = {
    "header_only.csv": "There are column names but no rows below them",
    "empty.csv": "The file is empty",
    "only_blank_lines.csv": "The file is empty",
    "no_addresses.csv": "No column with email addresses was found",
    "many_columns.csv": "The file has 10,001 columns; up to 200 are taken",
    "one_long_line.csv": "The first line is longer than 65,536 bytes",
    "workbook.csv": "This is an Excel workbook or a ZIP archive",
    "old_workbook.csv": "This is an old Excel workbook",
    "paper.csv": "This is a PDF",
    "picture.csv": "This is a picture (PNG)",
    "page.csv": "This is a web page or XML",
}


def pieces(content: bytes, size: int) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


def layout_of(content: bytes, size: int = 7) -> Layout:
    sniffer = Sniffer()
    for piece in pieces(content, size):
        sniffer.feed(piece)
    return sniffer.layout()


def test_the_zoo_and_its_outcomes_are_the_same_files() -> None:
    assert {path.name for path in ZOO.iterdir()} == READ.keys() | REFUSED.keys()
    assert len(READ) + len(REFUSED) >= 25


@pytest.mark.parametrize("size", [3, 1_000_000])
@pytest.mark.parametrize("name", READ)
def test_file_is_read(name: str, size: int) -> None:
    content = (ZOO / name).read_bytes()
    found = list(people(pieces(content, size), layout_of(content, size)))
    taken = [(one.name, one.attributes) for one in found if isinstance(one, Entry)]
    refused = [(one.line, one.field, one.reason) for one in found if isinstance(one, Rejection)]
    assert (taken, refused) == READ[name]


@pytest.mark.parametrize("name", REFUSED)
def test_file_is_refused_with_words(name: str) -> None:
    with pytest.raises(BadFile) as refused:
        layout_of((ZOO / name).read_bytes(), 1000)
    assert refused.value.reason.startswith(REFUSED[name])
    assert refused.value.reason.endswith(".")


def test_the_example_has_196_people_a_duplicate_and_three_bad_rows() -> None:
    content = EXAMPLE.read_bytes()
    found = list(people([content], layout_of(content)))
    taken = [one.key for one in found if isinstance(one, Entry)]
    assert (len(found), len(taken), len(set(taken))) == (200, 197, 196)
    assert all(key.endswith((".example", ".test")) for key in taken)


def test_a_layout_survives_json() -> None:
    layout = layout_of((ZOO / "german_names.csv").read_bytes())
    assert Layout.from_json(layout.to_json()) == layout


@pytest.mark.parametrize(
    ("uses", "complaint"),
    [
        (["email"], "every column"),
        (["email", "name", "evil"], "every column"),
        (["ignore", "name", "attribute"], "exactly one"),
        (["email", "email", "ignore"], "exactly one"),
        (["email", "name", "name"], "Only one column can be the name"),
        (["email", "name", "family"], "either one column"),
    ],
)
def test_uses_that_cannot_be(uses: list[str], complaint: str) -> None:
    columns = layout_of((ZOO / "plain.csv").read_bytes()).columns
    with pytest.raises(ValueError, match=complaint):
        with_uses(columns, uses)


@pytest.mark.parametrize(
    ("title", "field"),
    [
        ("Company Name", "company_name"),
        ("  Größe (cm) ", "grosse_cm"),
        ("2024", "column_2024"),
        ("Компания", ""),
        ("a" * 80, "a" * 50),
        ("{{ 7*7 }}", "column_7_7"),
    ],
)
def test_field_names_can_be_used_in_content(title: str, field: str) -> None:
    assert field_name(title) == field


@pytest.mark.parametrize("start", list("=+-@\t\r＝＋－＠"))
def test_a_cell_that_would_run_in_a_spreadsheet_gets_an_apostrophe(start: str) -> None:
    assert safe_cell(f"{start}1+1") == f"'{start}1+1"
    assert safe_cell(f"1{start}") == f"1{start}"


_CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\x00\ufffd\ufeff"), max_size=8)
_ADDRESSED = st.builds(
    lambda number, cells: [f"p{number}@people.example", *cells],
    st.integers(0, 99),
    st.tuples(_CELLS, _CELLS),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(_ADDRESSED, min_size=1, max_size=8),
    st.sampled_from(",;\t|"),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]),
    st.sampled_from(["\r\n", "\n", "\r"]),
    st.integers(1, 50),
)
def test_what_a_csv_writer_wrote_comes_back(
    table: list[list[str]], delimiter: str, encoding: str, quoting: int, newline: str, size: int
) -> None:
    text = io.StringIO(newline="")
    if quoting == csv.QUOTE_MINIMAL:
        # Before Python 3.13 it leaves a line break bare that is not of the file's own kind.
        newline = "\r\n"
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=newline)
    writer.writerows([["email", "alpha", "beta"], *table])
    content = text.getvalue().encode(encoding, "ignore")
    # "Â" and a hard space in cp1252 are the bytes of a hard space in UTF-8: nobody can tell.
    assume(encoding != "cp1252" or not _has_utf8(content))
    kept = [[_survivor(cell, encoding) for cell in row] for row in table]
    layout = layout_of(content, size)
    assert (layout.delimiter, layout.header) == (delimiter, True)
    assert [row.cells for row in rows(pieces(content, size), layout)] == kept


def _has_utf8(content: bytes) -> bool:
    """Whether some bytes beyond ASCII make letters in UTF-8."""
    letters = content.decode("utf-8", "surrogateescape")
    return any(letter > "\x7f" and not "\ud800" <= letter <= "\udfff" for letter in letters)


def _survivor(cell: str, encoding: str) -> str:
    """The cell without letters that the encoding does not have, its line breaks as newlines."""
    cell = cell.encode(encoding, "ignore").decode(encoding)
    return cell.replace("\r\n", "\n").replace("\r", "\n")


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=400) | st.text(alphabet='a@.,;"\n\r\x00\xff', max_size=80).map(str.encode)
)
def test_no_bytes_crash_it(content: bytes) -> None:
    for whole in (content, b"email,name\nann@people.example,Ann\n" + content):
        try:
            layout = layout_of(whole, 9)
        except BadFile as refused:
            assert refused.reason
            continue
        for one in people(pieces(whole, 9), layout):
            assert isinstance(one, Entry) or one.reason


def test_a_line_of_200_megabytes_takes_no_memory() -> None:
    def file() -> Iterator[bytes]:
        yield b"email,name\nann@people.example,"
        for _ in range(200):
            yield b"x" * 1_000_000
        yield b"\nbob@people.example,Bob\n"

    sniffer = Sniffer()
    tracemalloc.start()
    for chunk in file():
        sniffer.feed(chunk)
    found = list(people(file(), sniffer.layout()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [one.line for one in found] == [2, 3]
    assert [type(one) for one in found] == [Rejection, Entry]
    assert peak < 30_000_000


def test_a_bad_quote_costs_its_own_line_only_however_often() -> None:
    lines = [b"email,name", *(b'p%d@people.example,"open' % n for n in range(2_000))]
    content = b"\n".join([*lines, b"bob@people.example,Bob"])
    found = list(people([content], layout_of(content, 1000)))
    assert [one.line for one in found] == list(range(2, 2_003))
    assert isinstance(found[-1], Entry)
