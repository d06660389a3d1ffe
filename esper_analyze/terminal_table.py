"""Tables that fit a terminal: cells break between words and inside names at their joints, never within a word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

BETWEEN = 2
"""Columns of the terminal between two columns of a table."""
LONGEST_PIECE = 24
"""Letters without a joint that are kept together; longer ones, such as hashes, are broken anywhere."""
_PIECE = re.compile(r"[^\s_/:]*[\s_/:]+|[^\s_/:]+")  # no joint within a number


def print_table(
    console: Console, titles: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()
) -> None:
    """Print a table; where not even broken cells fit side by side, each row as a list, title by title."""
    from rich.text import Text

    cells = [[Text.from_markup(cell) for cell in row] for row in rows]
    columns = list(zip([Text(title) for title in titles], *cells, strict=True))
    widths = _widths(columns, console.width - BETWEEN * len(titles))
    if widths is None:
        _print_lists(console, titles, cells)
    else:
        _print_columns(console, titles, cells, widths, right)


def _widths(columns: Sequence[Sequence[Text]], room: int) -> list[int] | None:
    """Return the width of each column, None when there is no room."""
    wanted = [max(cell.cell_len for cell in column) for column in columns]
    if sum(wanted) <= room:
        return wanted
    least = [max(_longest_piece(cell.plain) for cell in column) for column in columns]
    if sum(least) > room:
        return None
    short = [most - few for most, few in zip(wanted, least, strict=True)]
    share = (room - sum(least)) / max(sum(short), 1)
    return [few + int(share * missing) for few, missing in zip(least, short, strict=True)]


def _longest_piece(text: str) -> int:
    return min(max((len(piece.rstrip()) for piece in _PIECE.findall(text)), default=0), LONGEST_PIECE)


def broken(text: Text, width: int) -> Text:
    """Return ``text`` in lines of at most ``width``, broken at its joints where it has any."""
    from rich.text import Text

    edges, begin, end = [], 0, 0
    for piece in _PIECE.finditer(text.plain):
        if piece.end() - begin - _blank(piece[0]) > width and piece.start() > begin:
            edges.append(piece.start())
            begin = piece.start()
        end = piece.end()
    lines = text.divide(edges) if end else [text]
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)


def _blank(piece: str) -> int:
    return len(piece) - len(piece.rstrip())


def _print_columns(
    console: Console,
    titles: Sequence[str],
    cells: Sequence[Sequence[Text]],
    widths: Sequence[int],
    right: Sequence[str],
) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, BETWEEN - 1, 0, 0), min_width=1)
    for title, width in zip(titles, widths, strict=True):
        justify: Literal["right", "left"] = "right" if title in right else "left"
        table.add_column(title, justify=justify, overflow="fold", width=width)
    for row in cells:
        table.add_row(*(broken(cell, width) for cell, width in zip(row, widths, strict=True)))
    console.print(table)


def _print_lists(console: Console, titles: Sequence[str], cells: Sequence[Sequence[Text]]) -> None:
    """Print each row as its pairs of title and cell, as many on a line as fit, then an empty line."""
    for row in cells:
        for line in _packed(titles, row, max(console.width, 1)):
            console.print(line, overflow="fold")
        console.print()


def _packed(titles: Sequence[str], row: Sequence[Text], width: int) -> list[Text]:
    """Return the pairs of a row in lines; all but the first are indented. A longer pair has lines of its own."""
    from rich.text import Text

    lines: list[Text] = []
    for title, cell in zip(titles, row, strict=True):
        pair = Text.assemble((title, "dim"), " ", cell)
        if lines and lines[-1].cell_len + BETWEEN + pair.cell_len <= width:
            lines[-1].append(" " * BETWEEN).append(pair)
            continue
        indent = " " * BETWEEN if lines else ""
        lines += [Text(indent).append(part) for part in broken(pair, width - len(indent)).split("\n")]
    return lines
