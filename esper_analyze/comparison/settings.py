"""How the settings of runs differ: everything in run.json but the fields that identify a run."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from esper_analyze.comparison.cells import MetricMatrix
from esper_analyze.detector.signals import Bools, Floats, Ints

SAME = 1e-6
"""Relative difference up to which two settings are equal: some are stored in float32."""
NAMING = ("run_id", "created", "name", "schema_version", "rule_revisions", "notes", "argv", "host")
"""Keys that identify a run and are not settings."""
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
AS_USED = ", as used"
"""After the name of a setting that was recorded in every update."""
SettingDifference = tuple[str, tuple[str, ...]]
"""A setting and its value in each run, ``–`` where run.json has none."""


def settings_of(info: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings in run.json by name, "hyperparameters.gamma", as texts."""
    return dict(_flat(info))


def differences(infos: Sequence[Mapping[str, Any]]) -> list[SettingDifference]:
    """Return the settings that are not the same in all runs, hyperparameters first and thresholds last."""
    flat = [settings_of(info) for info in infos]
    names = dict.fromkeys(name for setting in flat for name in setting)
    by_name = [(name, tuple(setting.get(name, "–") for setting in flat)) for name in names]
    return sorted(
        (setting for setting in by_name if len(set(setting[1])) > 1), key=lambda setting: _order_of_group(setting[0])
    )


def used(column: str, cells: MetricMatrix, rows: Bools, updates: Ints) -> SettingDifference | None:
    """Return how a setting recorded in every update differs between runs, None when no common update shows it.

    Where the summaries of all runs are equal, their values at the first differing update are returned.
    """
    there = cells.finite | (cells.null & rows)
    values = np.where(cells.finite, cells.value, np.inf)  # null, a bound that is not set, is a distinct value
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
    return column + AS_USED, words


def _course(values: Floats, updates: Ints) -> str:
    """Return first and last value, or, where they are equal, the first and the one farthest from it."""
    if not len(values):
        return "–"
    first, last = _number(values[0]), _number(values[-1])
    if first != last:
        return f"{first} → {last}"
    far = int(np.argmax(np.nan_to_num(np.abs(values - values[0]))))
    return first if _number(values[far]) == first else f"{first}, {_number(values[far])} at update {updates[far]:,}"


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "–"


def _order_of_group(name: str) -> int:
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
    text = value if isinstance(value, str) else json.dumps(value)
    yield name, _ADDRESS.sub("", text)  # a function's address in memory is not a setting


def opaque(infos: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the settings that are functions: two different ones may look equal."""
    names = {name: None for info in infos for name, text in _flat(info) if text.startswith("<function")}
    return list(names)
