"""CSV: null is an empty cell, empty text is ``""``; for spreadsheets, text that they would run gets a ``'``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from esper_analyze.errors import UsageError

if TYPE_CHECKING:
    import polars

STARTS = ("=", "+", "-", "@", "\t", "\r")
"""What a text begins with that a spreadsheet runs as a formula."""
_EMPTY = '""'
_QUOTED = re.compile(r'[",\r\n]')
SpreadsheetSafe = Annotated[
    bool,
    typer.Option(
        "--spreadsheet-safe",
        help="In CSV, put ' before text that begins with =, +, -, @, tab or CR, which a spreadsheet would run as a "
        "formula. Numbers stay as they are. Without it text is exact.",
    ),
]


def csv_line(cells: Iterable[object], *, safe: bool = False) -> str:
    """Return ``cells`` as one line of CSV, its line break included; ``safe``: for a spreadsheet.

    None is an empty cell, except alone in its line, which many readers pass over when it is empty.
    """
    line = ",".join(_csv_cell(cell, safe=safe) for cell in cells)
    return f"{line or _EMPTY}\n"


def _csv_cell(cell: object, *, safe: bool) -> str:
    if cell is None:
        return ""
    text = str(cell)
    if safe and isinstance(cell, str) and text.startswith(STARTS):
        text = f"'{text}"
    if _QUOTED.search(text):
        text = '"' + text.replace('"', '""') + '"'
    return text or _EMPTY


def records_csv(columns: Sequence[str], records: Iterable[Mapping[str, object]], *, safe: bool = False) -> str:
    """Return a line of ``columns`` and one for each record, where a column that it lacks is an empty cell."""
    lines = (csv_line((record.get(name) for name in columns), safe=safe) for record in records)
    return "".join((csv_line(columns), *lines))


def safe_frame(rows: polars.DataFrame) -> polars.DataFrame:
    """Return ``rows`` with ``'`` before each text that a spreadsheet would run."""
    import polars

    names = [name for name, kind in rows.schema.items() if kind == polars.String]
    return rows.with_columns(
        polars.when(polars.any_horizontal([polars.col(name).str.starts_with(start) for start in STARTS]))
        .then(polars.lit("'") + polars.col(name))
        .otherwise(polars.col(name))
        .alias(name)
        for name in names
    )


def refuse_unless_csv(*, safe: bool, is_csv: bool) -> None:
    """Raise ``UsageError`` when ``safe`` is asked for in another format than CSV."""
    if safe and not is_csv:
        raise UsageError("--spreadsheet-safe is about CSV, and this is another format", hint="ask for CSV, or leave it")
