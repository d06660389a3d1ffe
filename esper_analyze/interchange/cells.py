"""One cell of a foreign file as one cell of ours: a missing one is null, NaN stays NaN, nonsense is refused."""

from __future__ import annotations

import math

from esper_analyze.schema.column import Column, Kind

_LARGEST = 1 << 63
_WORDS = {"nan": math.nan, "inf": math.inf, "infinity": math.inf, "-inf": -math.inf, "-infinity": -math.inf}


class CellError(ValueError):
    """A cell that cannot be what its column holds."""


def real(cell: object) -> float | None:
    """Return ``cell`` as a float, None when it is empty. Words for NaN and ±Inf are read as such."""
    if cell is None or isinstance(cell, float):
        return cell
    if isinstance(cell, (bool, int)):
        try:
            return float(cell)
        except OverflowError as error:
            raise CellError(f"{str(cell)[:20]}… is out of range") from error
    if not isinstance(cell, str):
        raise CellError(f"{type(cell).__name__} is not a number")
    text = cell.strip()
    if not text:
        return None
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return float(text)
    except ValueError as error:
        raise CellError(f"{text[:40]!r} is not a number") from error


def whole_number(cell: object) -> int | None:
    """Return ``cell`` as a whole number, None when it is empty; a fraction, NaN or Inf is none."""
    if isinstance(cell, int) and not isinstance(cell, bool):
        return _bounded(cell)
    if isinstance(cell, str):
        try:
            cell = int(cell)  # a float holds no whole number beyond 2**53 exactly
        except ValueError:
            pass
        else:
            return _bounded(cell)
    number = real(cell)
    if number is None:
        return None
    if not math.isfinite(number) or number != int(number):
        raise CellError(f"{number!r} is not a whole number")
    return _bounded(int(number))


def _bounded(number: int) -> int:
    if not -_LARGEST <= number < _LARGEST:
        raise CellError(f"{str(number)[:20]}… is out of range")
    return number


def flag(cell: object) -> bool | None:
    """Return ``cell`` as true or false, None when it is empty."""
    if cell is None or isinstance(cell, bool):
        return cell
    if isinstance(cell, str) and cell.strip().lower() in ("true", "false"):
        return cell.strip().lower() == "true"
    number = real(cell)
    if number is None:
        return None
    if number not in (0.0, 1.0):
        raise CellError(f"{number!r} is neither true nor false")
    return bool(number)


def fitted(column: Column, cell: object) -> object:
    """Return ``cell`` as ``column`` holds it. Raises ``CellError``."""
    if column.kind is Kind.FLOAT:
        return real(cell)
    if column.kind is Kind.INT:
        return whole_number(cell)
    if column.kind is Kind.BOOL:
        return flag(cell)
    if column.kind is Kind.CHOICE:
        return _choice(column, cell)
    text = "" if cell is None else str(cell)
    return text if text or column.required else None  # a CSV has one empty cell for null and for no letters


def _choice(column: Column, cell: object) -> str | None:
    """Return one of the column's words; a number is its position among them, as TensorBoard files have it."""
    if cell is None or cell == "":
        return None
    if isinstance(cell, str) and cell in column.choices:
        return cell
    index = whole_number(cell)
    if index is None or not 0 <= index < len(column.choices):
        raise CellError(f"{str(cell)[:40]!r} is none of {', '.join(column.choices)}")
    return column.choices[index]
