"""The rows of a section as CSV: all columns, nothing measured is an empty cell, NaN and Inf as Python writes them."""

from __future__ import annotations

from esper_analyze.csv_text import csv_line
from esper_analyze.reports.render.rows import SectionTable, plain


def section_csv(table: SectionTable, *, safe: bool = False) -> str:
    """Return a line of column names and one for each row; ``safe``: for a spreadsheet."""
    lines = [table.columns, *([plain(cell) for cell in row] for row in table.cells)]
    return "".join(csv_line(line, safe=safe) for line in lines)
