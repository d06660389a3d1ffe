"""How the settings of runs differ: everything run.json says, but for what names a run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

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
