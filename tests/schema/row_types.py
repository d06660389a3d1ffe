"""Write the types of rows from the declared tables: ``python -m tests.schema.row_types``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from esper_analyze.schema import TABLES, Column, Kind, Table, row_types

FILE = Path(row_types.__file__)
BLOCKS = ("steps", "layers", "slots", "transitions", "tensors", "episodes")
"""Tables whose rows are recorded as columns."""
ASSIGNED = ("rank", "seq")
"""Cells that the store adds."""

_CELL = {Kind.FLOAT: "float", Kind.INT: "int", Kind.BOOL: "bool", Kind.TEXT: "str", Kind.CHOICE: "str"}
_CELLS = {Kind.FLOAT: "Floats", Kind.INT: "Ints", Kind.BOOL: "Flags", Kind.TEXT: "Words", Kind.CHOICE: "Words"}
_HEAD = '''"""Types of the rows of every table, for mypy: written by ``python -m tests.schema.row_types``.

A cell left out is null, as None is. ``rank`` and ``seq`` are added by the store. For some tables there are also types
of their rows as columns, for ``esper_analyze.storage.block.Block``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]] | Sequence[float | None] | float | None
Ints = npt.NDArray[np.integer[Any]] | Sequence[int | None] | int | None
Flags = npt.NDArray[np.bool_] | Sequence[bool | None] | bool | None
Words = Sequence[str | None] | str | None
'''


def source() -> str:
    """Return the text of ``esper_analyze/schema/row_types.py``."""
    return "\n".join([_HEAD, *(line for table in TABLES for line in _table(table))])


def _table(table: Table) -> Iterator[str]:
    name = "".join(word.capitalize() for word in table.name.split("_"))
    columns = [column for column in table.columns if column.name not in ASSIGNED]
    yield f"\nclass {name}Row(TypedDict, total=False):"
    yield f'    """A row of table ``{table.name}``."""\n'
    yield from (f"    {column.name}: {_cell(column)}" for column in columns)
    yield ""
    if table.name in BLOCKS:
        yield f"\nclass {name}Columns(TypedDict, total=False):"
        yield f'    """Rows of table ``{table.name}``: a value for each row, or one for all."""\n'
        yield from (f"    {column.name}: {_CELLS[column.kind]}" for column in columns)
        yield ""


def _cell(column: Column) -> str:
    return _CELL[column.kind] if column.required else f"{_CELL[column.kind]} | None"


if __name__ == "__main__":
    FILE.write_text(source(), encoding="utf-8")
