"""Labels of a run in ``labels.toml``: that it is healthy, or which fault begins when.

``healthy = true``, or one table ``[[fault]]`` for each fault: ``name``, ``onset`` (first update with the fault),
``rules`` (any of them counts as a detection), and optionally ``until`` (last update in which a detection counts)
and ``hard`` (it must be detected in the update of its onset).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esper_analyze.errors import DamagedError, did_you_mean
from esper_analyze.storage.layout import LABELS_FILE
from esper_analyze.storage.limits import LARGEST_TEXT
from esper_analyze.storage.run_files import read_file, why_unreadable

_KEYS = ("healthy", "fault")
_FAULT_KEYS = ("name", "onset", "until", "rules", "hard")
_NEXT = "labels.toml holds healthy = true, or [[fault]] tables with name, onset and rules"


class LabelsError(DamagedError):
    """An invalid labels file; the message names file, key and the nearest valid name."""


@dataclass(frozen=True, slots=True)
class LabelledFault:
    """One fault: detected when any of ``rules`` begins to alarm in an update from ``onset`` to ``until``.

    ``until`` None means the run's end.
    """

    name: str
    onset: int
    rules: tuple[str, ...]
    until: int | None = None
    hard: bool = False

    def covers(self, update: int) -> bool:
        """Return whether a detection at ``update`` counts."""
        return self.onset <= update and (self.until is None or update <= self.until)


@dataclass(frozen=True, slots=True)
class Labels:
    """The faults of one run; none means that the run is healthy."""

    faults: tuple[LabelledFault, ...] = ()

    @property
    def first_onset(self) -> int | None:
        """The first update with a fault; None for a healthy run."""
        return min((fault.onset for fault in self.faults), default=None)


def read_labels(run_dir: Path, rules: Iterable[str]) -> Labels | None:
    """Return the labels of the run in ``run_dir``, None without a file; ``rules`` are the names a fault may list.

    Raises ``LabelsError``.
    """
    file = run_dir / LABELS_FILE
    try:
        content = tomllib.loads(read_file(file, LARGEST_TEXT).decode())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LabelsError(f"{file} {why_unreadable(error)}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LabelsError(f"{file} is not TOML: {error}", hint=_NEXT) from error
    try:
        return _labels(content, tuple(rules))
    except ValueError as error:
        raise LabelsError(f"{file}: {error}", hint=_NEXT) from error


def _labels(content: Mapping[str, Any], rules: Sequence[str]) -> Labels:
    _check_keys(content, _KEYS, "")
    healthy = _flag(content.get("healthy", False), "healthy")
    tables = content.get("fault", [])
    if not isinstance(tables, list) or not all(isinstance(entry, dict) for entry in tables):
        raise ValueError("fault must be one or more tables [[fault]]")
    if healthy and tables:
        raise ValueError("healthy = true and [[fault]] exclude each other")
    if not healthy and not tables:
        raise ValueError("it has neither healthy = true nor any [[fault]]")
    faults = tuple(_fault(table, f"fault {index}: ", rules) for index, table in enumerate(tables, start=1))
    names = [fault.name for fault in faults]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two faults are called {name!r}")
    return Labels(faults)


def _fault(table: Mapping[str, Any], where: str, rules: Sequence[str]) -> LabelledFault:
    _check_keys(table, _FAULT_KEYS, where)
    for name in ("name", "onset", "rules"):
        if name not in table:
            raise ValueError(f"{where}{name} is missing")
    if not isinstance(table["name"], str) or not table["name"]:
        raise ValueError(f"{where}name must be a text, not {table['name']!r}")
    where = f"fault {table['name']!r}: "
    onset = _update(table["onset"], f"{where}onset", 0)
    until = None if table.get("until") is None else _update(table["until"], f"{where}until", onset)
    hard = _flag(table.get("hard", False), f"{where}hard")
    return LabelledFault(table["name"], onset, _rules(table["rules"], where, rules), until, hard)


def _check_keys(table: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    for name in table:
        if name not in names:
            raise ValueError(f"{where}there is no key {name!r}{did_you_mean(name, names)}")


def _flag(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{where} must be true or false, not {value!r}")
    return value


def _update(value: object, where: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{where} must be an update, a whole number of at least {least}, not {value!r}")
    return value


def _rules(value: object, where: str, rule_names: Sequence[str]) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{where}rules must be a list of rule names, not {value!r}")
    for name in value:
        if not isinstance(name, str):
            raise ValueError(f"{where}rules must hold names, not {name!r}")
        if name not in rule_names:
            raise ValueError(f"{where}rules: there is no rule {name!r}{did_you_mean(name, rule_names)}")
    return tuple(dict.fromkeys(value))
