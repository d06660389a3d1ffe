"""A section on the terminal: its sentences, then the columns of its rows that fit."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from shutil import get_terminal_size
from textwrap import fill

from esper_analyze.reports.render.rows import SectionTable, spelled
from esper_analyze.terminal import cleaned, escaped, put, say, show_table

MOST_LINES = 40
"""Rows of a table on stdout; CSV and JSON have all."""
_PIPED = 120
"""Characters in a line of sentences that do not go to a terminal."""


def print_section(sentences: Iterable[str], table: SectionTable, *, most: int = MOST_LINES) -> None:
    """Print the sentences and the brief columns of the first ``most`` rows; a line on stderr counts the others."""
    width = get_terminal_size().columns if sys.stdout.isatty() else _PIPED
    for sentence in sentences:
        put(f"{fill(cleaned(sentence, 2_000), width)}\n")
    shown = table.narrow.first(most)
    if shown.cells:
        cells = [[escaped(spelled(cell)) for cell in row] for row in shown.cells]
        show_table(shown.columns, cells, right=shown.numbers)
    if len(shown.cells) < len(table.cells):
        say(f"{len(table.cells) - len(shown.cells):,} of {len(table.cells):,} rows are not shown: --format csv has all")


def section_text(sentences: Iterable[str], table: SectionTable) -> str:
    """Return what ``print_section`` prints, all rows included."""
    with redirect_stdout(io.StringIO()) as sink:
        print_section(sentences, table, most=len(table.cells))
    return sink.getvalue()
