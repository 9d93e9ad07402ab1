"""Tables that a browser keeps as CSV files."""

import re
from collections.abc import Iterable

from flask import Response, stream_with_context

from mcs.core.exports import as_csv

_LONGEST = 60


def download(rows: Iterable[list[str]], filename: str, delimiter: str = ",") -> Response:
    """The rows as a CSV file, sent while they are read."""
    return Response(
        stream_with_context(as_csv(rows, delimiter)),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{filename}"'},
    )


def in_a_filename(name: str, otherwise: str) -> str:
    """``Autumn sale!`` as ``autumn-sale``; ``otherwise`` where no letter of it may stand there."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()
    return plain[:_LONGEST].rstrip("-") or otherwise
