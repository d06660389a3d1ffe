"""Rows that answer a question in plain: named columns, cells as measured, spelled the same on page and terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from esper_analyze.terminal import LONGEST, cleaned
from esper_analyze.wording import number

Cell = object
"""None where nothing was measured, a number as it was (NaN and ±Inf too), a word, or a ``Mark``."""
_WORST_FIRST = ("critical", "warning", "info", "no_data", "not_applicable", "ok")
MOST_ROWS = 24
"""Rows shown on the page and in Markdown; report.json has all."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A word with its verdict, and a sign for the eye: a coloured chip on the page; data have the word alone."""

    verdict: str
    word: str
    sign: str = ""

    def __str__(self) -> str:
        """Return sign and word."""
        return f"{self.sign} {self.word}".lstrip()


@dataclass(frozen=True, slots=True)
class SectionTable:
    """``columns`` name the cells of each row; ``brief`` are (column, heading) of a narrow table, empty for all."""

    columns: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]
    brief: tuple[tuple[str, str], ...] = ()

    @property
    def narrow(self) -> SectionTable:
        """The same rows as people read them: brief columns only, under their headings."""
        brief = self.brief or tuple((name, name.replace("_", " ")) for name in self.columns)
        indices = [self.columns.index(name) for name, _ in brief]
        headings = tuple(heading for _, heading in brief)
        return SectionTable(headings, tuple(tuple(row[position] for position in indices) for row in self.cells))

    @property
    def shown(self) -> SectionTable:
        """The first rows as the page and Markdown show them."""
        return self.first(MOST_ROWS).narrow

    @property
    def numbers(self) -> tuple[str, ...]:
        """Columns that hold numbers and nothing else."""
        return tuple(name for index, name in enumerate(self.columns) if _numeric(row[index] for row in self.cells))

    def first(self, count: int) -> SectionTable:
        """Return the first ``count`` rows."""
        return replace(self, cells=self.cells[:count])

    @property
    def worst_first(self) -> SectionTable:
        """The rows by the verdict of their first mark, those alike in the order they had."""
        return replace(self, cells=tuple(sorted(self.cells, key=lambda row: _WORST_FIRST.index(_verdicts(row)[0]))))

    def having(self, *verdicts: str) -> SectionTable:
        """Return the rows with a mark of one of ``verdicts``."""
        return replace(self, cells=tuple(row for row in self.cells if set(verdicts) & set(_verdicts(row))))

    def labelled(self, column: str, label: str) -> SectionTable:
        """Return the rows with a first ``column`` that holds ``label``."""
        return SectionTable((column, *self.columns), tuple((label, *row) for row in self.cells))

    def records(self) -> Iterator[dict[str, Cell]]:
        """Return each row by column, marks as their words."""
        for row in self.cells:
            yield {name: plain(cell) for name, cell in zip(self.columns, row, strict=True)}


def _verdicts(row: Sequence[Cell]) -> list[str]:
    return [cell.verdict for cell in row if isinstance(cell, Mark)]


def _numeric(cells: Iterable[Cell]) -> bool:
    measured = [cell for cell in cells if cell is not None]
    return bool(measured) and all(isinstance(cell, (int, float)) and not isinstance(cell, bool) for cell in measured)


def spelled(cell: Cell, longest: int = LONGEST) -> str:
    """Return a cell as people read it: – for nothing, NaN and ±Inf in words, short numbers."""
    if cell is None:
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return number(cell)
    return cleaned(cell, longest)


def plain(cell: Cell) -> Cell:
    """Return a cell as data: a mark as its word, anything else as it is."""
    return cell.word if isinstance(cell, Mark) else cell
