"""How the settings of runs differ: everything run.json says, but for what names a run."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from esper_analyze.comparison.cells import Cells
from esper_analyze.detector.signals import Bools, Floats, Ints

SAME = 1e-6
"""Relative difference up to which two settings are the same: some are kept in float32."""
NAMING = ("run_id", "created", "name", "schema_version", "rule_revisions", "notes")
"""Keys that tell runs apart without being a setting."""
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
Difference = tuple[str, tuple[str, ...]]
"""A setting and what each run has for it, ``–`` where run.json does not say."""


def differences(infos: Sequence[Mapping[str, Any]]) -> list[Difference]:
    """Return the settings that are not the same in all runs, hyperparameters first and thresholds last."""
    flat = [dict(_flat(info)) for info in infos]
    names = dict.fromkeys(name for one in flat for name in one)
    found = [(name, tuple(one.get(name, "–") for one in flat)) for name in names]
    return sorted((one for one in found if len(set(one[1])) > 1), key=lambda one: _place(one[0]))


def used(column: str, cells: Cells, rows: Bools, updates: Ints) -> Difference | None:
    """Return how a setting recorded in every update differs between runs, None when no common update shows it.

    Where what is said of all runs is the same, they are given at the first update that differs.
    """
    there = cells.finite | (cells.null & rows)
    values = np.where(cells.finite, cells.value, np.inf)  # null, a bound that is not set, is a value of its own
    most, least = (side(np.where(there, values, fill), axis=0) for side, fill in ((np.max, -np.inf), (np.min, np.inf)))
    shared = there.sum(axis=0) > 1
    with np.errstate(invalid="ignore"):
        other = shared & (most != least) & ~np.isclose(most, least, rtol=SAME, atol=0.0)
    if not cells.finite.any() or not other.any():
        return None
    words = tuple(_course(cells.value[run][there[run]], updates[there[run]]) for run in range(cells.runs))
    if len(set(words)) == 1:
        at = int(other.argmax())
        words = tuple(f"{_number(value)} at update {updates[at]:,}" for value in cells.value[:, at])
    return f"{column}, as used", words


def _course(values: Floats, updates: Ints) -> str:
    """Return the first and the last value, or the first and the one farthest from it where it comes back to it."""
    if not len(values):
        return "–"
    first, last = _number(values[0]), _number(values[-1])
    if first != last:
        return f"{first} → {last}"
    far = int(np.argmax(np.nan_to_num(np.abs(values - values[0]))))
    return first if _number(values[far]) == first else f"{first}, {_number(values[far])} at update {updates[far]:,}"


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "–"


def _place(name: str) -> int:
    order = ("hyperparameters", "algorithm", "framework", "policy", "heads", "seeds", "", "versions", "thresholds")
    first = name.split(".", maxsplit=1)[0]
    return order.index(first if first in order else "")


def _flat(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and (value or not name):
        for key, cell in value.items():
            if name or key not in NAMING:
                yield from _flat(cell, f"{name}.{key}" if name else str(key))
        return
    if value is None:
        return
    told = value if isinstance(value, str) else json.dumps(value)
    yield name, _ADDRESS.sub("", told)  # where a function lies in memory is no setting


def opaque(infos: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the settings that were given as a function: two of them may differ and look the same."""
    found = {name: None for info in infos for name, told in _flat(info) if told.startswith("<function")}
    return list(found)
