"""Many rows of one table as columns, so that the training thread does no work per row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Block:
    """``rows`` rows; ``cells`` maps a column to an array or list of that length, or to one value for all rows.

    A column left out, and the value None, are null. NaN in an array is a measured NaN; see ``nullable``.
    """

    rows: int
    cells: Mapping[str, Any]

    def __len__(self) -> int:
        return self.rows

    def numbers(self, name: str) -> np.ndarray[Any, Any] | None:
        """Return a column as an array if it holds numbers without nulls, else None."""
        cell = self.cells.get(name)
        if isinstance(cell, np.ndarray):
            return None if isinstance(cell, np.ma.MaskedArray) or len(cell) != self.rows else cell
        if isinstance(cell, (bool, int, float)):
            return np.full(self.rows, cell)
        return None

    def column(self, name: str, kind: pa.DataType) -> pa.Array:
        """Return a column as Arrow. Raises ``pa.ArrowException`` or ``ValueError`` when it does not fit."""
        cell = self.cells.get(name)
        if cell is None:
            return pa.nulls(self.rows, kind)
        if isinstance(cell, (np.ndarray, list, tuple)):
            if len(cell) != self.rows:
                raise ValueError(f"column {name!r} has {len(cell)} cells for {self.rows} rows")
            return pa.array(cell, kind)
        return pa.repeat(pa.scalar(cell, kind), self.rows)

    def as_rows(self) -> list[dict[str, Any]]:
        """Return the rows as one dict each."""
        columns = {}
        for name, cell in self.cells.items():
            if isinstance(cell, (np.ndarray, list, tuple)):
                columns[name] = cell.tolist() if isinstance(cell, np.ndarray) else list(cell)
            else:
                columns[name] = [cell] * self.rows
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def nullable(values: np.ndarray[Any, Any], valid: np.ndarray[Any, Any]) -> Any:
    """Return ``values`` with null where not ``valid``: the array itself if all are valid, None if none is."""
    if valid.all():
        return values
    if not valid.any():
        return None
    return np.ma.array(values, mask=~valid)


Rows = Sequence[Mapping[str, object]] | Block
