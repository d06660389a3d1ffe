"""Strict JSON out: a NaN or infinite number becomes the text "NaN", "Infinity" or "-Infinity", null stays null.

JSON has no token for them; as text they stay apart from null and from numbers, and ``float(text)`` reads them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass


def plain(value: object) -> object:
    """Return ``value`` as strict JSON can hold it; what JSON does not know becomes text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else number_word(value)
    if isinstance(value, Mapping):
        return {str(name): plain(cell) for name, cell in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(cell) for cell in value]
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    return str(value)


def number_word(value: float) -> str:
    """Return the text that stands for a non-finite number."""
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def strict_json(value: object) -> str:
    """Return ``value`` as JSON text, ASCII only, ending in a newline."""
    return json.dumps(plain(value), indent=1, allow_nan=False) + "\n"
