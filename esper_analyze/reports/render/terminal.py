"""A section on the terminal: its sentences, then the columns of its rows that fit."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from shutil import get_terminal_size
from textwrap import fill
from typing import TYPE_CHECKING

from esper_analyze.reports.render.rows import SectionTable, spelled
from esper_analyze.terminal import cleaned, escaped, put, say, show_table
from esper_analyze.wording import SIGNS

if TYPE_CHECKING:
    from esper_analyze.reports.narrative.story import Story

MOST_LINES = 40
"""Rows of a table on stdout; CSV and JSON have all."""
_MOST_TRACED = 30
"""Lines of a traceback."""
_LONGEST = 2_000
"""Characters of a sentence."""
_PIPED = 120
"""Characters in a line of sentences that do not go to a terminal."""


def print_heading(name: str) -> None:
    """Print the name of a run above what is said of it."""
    from rich.cells import cell_len

    heading = cleaned(name)
    put(f"{heading}\n{'═' * cell_len(heading)}\n")


def print_story(title: str, story: Story) -> None:
    """Print the story of a run: how it stands, then NOW, WHY and NEXT."""
    width = _width()
    put(f"{fill(cleaned(title, _LONGEST), width)}\n")
    put(f"{fill(f'{SIGNS[story.verdict]} {story.standing.label}: {cleaned(story.headline, _LONGEST)}', width)}\n")
    for part, points in story.parts:
        put(f"\n{part.upper()}\n")
        for point in points:
            words = fill(cleaned(point.words, _LONGEST), width, initial_indent="  * ", subsequent_indent="    ")
            put(f"{words}\n")
            if point.command:
                put(f"    {cleaned(point.command, _LONGEST)}\n")
    if story.traceback:
        put("\nTRACEBACK OF THE FATAL SIGNAL\n")
        lines = story.traceback.splitlines()
        put("".join(f"    {cleaned(line, _LONGEST)}\n" for line in lines[:_MOST_TRACED]))
        if len(lines) > _MOST_TRACED:
            put(f"    … {len(lines) - _MOST_TRACED:,} more lines: --json has them\n")
    for caveat in story.caveats:
        put(f"\n{fill(cleaned(caveat, _LONGEST), width)}\n")


def _width() -> int:
    return get_terminal_size().columns if sys.stdout.isatty() else _PIPED


def print_section(sentences: Iterable[str], table: SectionTable, *, whole: bool = False) -> None:
    """Print the sentences and the brief columns of the first rows; a line on stderr counts those not shown.

    ``whole``: print every row.
    """
    for sentence in sentences:
        put(f"{fill(cleaned(sentence, _LONGEST), _width())}\n")
    shown = table.narrow if whole else table.narrow.first(MOST_LINES)
    if shown.cells:
        cells = [[escaped(spelled(cell)) for cell in row] for row in shown.cells]
        show_table(shown.columns, cells, right=shown.numbers)
    if len(shown.cells) < len(table.cells):
        say(f"{len(table.cells) - len(shown.cells):,} of {len(table.cells):,} rows are not shown: --format csv has all")
