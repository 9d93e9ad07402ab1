"""Tables as CSV files: the same rows come back, in pieces."""

import csv
import io

import pytest

from mcs.core.exports import MARK, as_csv

ROWS = [["email", "name"], ["ann@people.example", 'Ann "A", Łódź; two\nlines'], ["", ""]]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_rows_come_back(delimiter: str) -> None:
    file = "".join(as_csv(ROWS, delimiter))
    assert file.startswith(f"{MARK}email{delimiter}name\r\n")
    read = csv.reader(io.StringIO(file[1:], newline=""), delimiter=delimiter)
    assert list(read) == ROWS


def test_a_long_table_is_written_in_pieces_of_whole_rows() -> None:
    rows = [[f"p{number}@people.example", "x" * 500] for number in range(1_000)]
    mark, *pieces = as_csv(iter(rows))
    assert (mark, len(pieces) > 10, max(map(len, pieces)) < 33_000) == (MARK, True, True)
    assert all(piece.endswith("\r\n") for piece in pieces if piece)
    assert list(csv.reader(io.StringIO("".join(pieces), newline=""))) == rows
