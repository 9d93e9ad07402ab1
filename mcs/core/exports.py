"""Tables as CSV files, for people to open in a spreadsheet."""

import csv
import io
from collections.abc import Iterable, Iterator

MARK = "\ufeff"
_PIECE = 32_000


def as_csv(rows: Iterable[list[str]], delimiter: str = ",") -> Iterator[str]:
    """The file in pieces, none held longer than until it is a few thousand characters.

    It begins with the byte order mark, by which Excel knows UTF-8. Cells are written as they are:
    ``tables.safe_cell`` makes them harmless.
    """
    yield MARK
    piece = io.StringIO(newline="")
    writer = csv.writer(piece, delimiter=delimiter)
    for row in rows:
        writer.writerow(row)
        if piece.tell() > _PIECE:
            yield piece.getvalue()
            piece.seek(0)
            piece.truncate()
    yield piece.getvalue()
