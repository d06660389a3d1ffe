"""The rows of a section as CSV: all columns, nothing measured is an empty cell, NaN and Inf as Python writes them."""

from __future__ import annotations

from esper_analyze.csv_text import csv_line
from esper_analyze.reports.render.rows import SectionTable, plain


def section_csv(*tables: SectionTable, safe: bool = False) -> str:
    """Return the column names that ``tables`` share in a line, and one for each row (``safe``: for spreadsheets)."""
    rows = [tables[0].columns, *([plain(cell) for cell in row] for table in tables for row in table.cells)]
    return "".join(csv_line(row, safe=safe) for row in rows)
