"""Labels of a run in ``labels.toml``, or of many runs in one file: that a run is healthy, or which fault begins when.

``healthy = true``, or one table ``[[fault]]`` for each fault: ``name``, ``onset`` (first update with the fault),
``rules`` (any of them counts as a detection, and names the cause), and optionally ``until`` (last update in which a
detection counts), ``hard`` (it must be detected in the update of its onset) and ``harm`` (share of the return that
was lost to it, 0 to 1). ``healthy = false`` without a fault: nothing was put in, but the training went badly.

Optionally ``change`` (a harmless change that was put in), ``twin`` (path of the same training without fault or change)
and ``groups`` (by which results are also counted, such as ``groups = {task = "pole"}``). A file for many runs has such
a table for each, under the run's path; paths in it are relative to its folder.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from esper_analyze.errors import DamagedError, did_you_mean
from esper_analyze.storage.layout import LABELS_FILE
from esper_analyze.storage.limits import LARGEST_TEXT
from esper_analyze.storage.run_files import read_file, why_unreadable

_KEYS = ("healthy", "fault", "change", "twin", "groups")
_FAULT_KEYS = ("name", "onset", "until", "rules", "hard", "harm")
_NEXT = "labels.toml holds healthy = true, or [[fault]] tables with name, onset and rules"
_NEXT_OF_MANY = "it holds a table for each run, named by its path, with the keys of labels.toml"
HARMFUL = 0.15
"""Share of the return that a fault costs at least to count as one that did harm."""


class LabelsError(DamagedError):
    """An invalid labels file; the message names file, key and the nearest valid name."""


@dataclass(frozen=True, slots=True)
class LabelledFault:
    """One fault: detected when any of ``rules`` begins to alarm in an update from ``onset`` to ``until``.

    ``until`` None means the run's end. ``harm`` is the share of the return that was lost to it, None if unknown.
    """

    name: str
    onset: int
    rules: tuple[str, ...]
    until: int | None = None
    hard: bool = False
    harm: float | None = None

    @property
    def did_harm(self) -> bool:
        """Whether it is known to have done harm."""
        return self.harm is not None and self.harm >= HARMFUL

    def covers(self, update: int) -> bool:
        """Return whether a detection at ``update`` counts."""
        return self.onset <= update and (self.until is None or update <= self.until)


@dataclass(frozen=True, slots=True)
class Labels:
    """The faults of one run, and how it went.

    ``healthy``: without faults, that it went well. ``change`` names a harmless change that was put in, ``twin`` is the
    run of the same training without fault or change, ``groups`` name what it is counted by.
    """

    faults: tuple[LabelledFault, ...] = ()
    healthy: bool = True
    change: str = ""
    twin: Path | None = None
    groups: Mapping[str, str] = field(default_factory=dict)

    @property
    def first_onset(self) -> int | None:
        """The first update with a fault; None for a run without."""
        return min((fault.onset for fault in self.faults), default=None)

    def healthy_at(self, update: int) -> bool:
        """Return whether ``update`` is healthy: before the first fault, or in a run without that went well."""
        return self.healthy if self.first_onset is None else update < self.first_onset

    @property
    def sound(self) -> bool:
        """Whether nothing was put in and the training went well."""
        return self.healthy and not self.faults and not self.change


def read_labels(run_dir: Path, rules: Iterable[str]) -> Labels | None:
    """Return the labels of the run in ``run_dir``, None without a file; ``rules`` are the names a fault may list.

    Raises ``LabelsError``.
    """
    file = run_dir / LABELS_FILE
    if not os.path.lexists(file):
        return None
    content = _parsed(file, is_json=False)
    try:
        return _labels(content, tuple(rules), run_dir)
    except ValueError as error:
        raise LabelsError(f"{file}: {error}", hint=_NEXT) from error


def read_labels_of_many(file: Path, rules: Iterable[str]) -> dict[Path, Labels]:
    """Return the labels of every run in a TOML or JSON file by the run's resolved path. Raises ``LabelsError``."""
    content, names = _parsed(file, is_json=file.suffix.lower() == ".json"), tuple(rules)
    if not isinstance(content, dict):
        raise LabelsError(f"{file} must hold a table for each run", hint=_NEXT_OF_MANY)
    labels: dict[Path, Labels] = {}
    for name, table in content.items():
        run_dir = (file.parent / name).resolve()
        if not run_dir.is_dir():
            raise LabelsError(f"{file}: there is no run {name!r} in {file.parent}", hint=_NEXT_OF_MANY)
        if run_dir in labels:
            raise LabelsError(f"{file}: run {name!r} has labels twice", hint=_NEXT_OF_MANY)
        try:
            if not isinstance(table, dict):
                raise ValueError(f"it must be a table, not {table!r:.80}")
            labels[run_dir] = _labels(table, names, file.parent)
        except ValueError as error:
            raise LabelsError(f"{file}: run {name!r}: {error}", hint=_NEXT_OF_MANY) from error
    return labels


def _parsed(file: Path, *, is_json: bool) -> Any:
    hint = _NEXT if file.name == LABELS_FILE else _NEXT_OF_MANY
    try:
        text = read_file(file, LARGEST_TEXT).decode()
        return json.loads(text) if is_json else tomllib.loads(text)
    except OSError as error:
        raise LabelsError(f"{file} {why_unreadable(error)}", hint=hint) from error
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LabelsError(f"{file} is not {'JSON' if is_json else 'TOML'}: {error}", hint=hint) from error


def _labels(content: Mapping[str, Any], rules: Sequence[str], folder: Path) -> Labels:
    """Return the labels in a table; a twin's path is relative to ``folder``. Raises ``ValueError``."""
    _check_keys(content, _KEYS, "")
    healthy = _flag(content.get("healthy", False), "healthy")
    tables = content.get("fault", [])
    if not isinstance(tables, list) or not all(isinstance(entry, dict) for entry in tables):
        raise ValueError("fault must be one or more tables [[fault]]")
    change = _text(content.get("change", ""), "change")
    if healthy and tables:
        raise ValueError("healthy = true and [[fault]] exclude each other")
    if change and tables:
        raise ValueError("change and [[fault]] exclude each other")
    if "healthy" not in content and not tables:
        raise ValueError("it has neither healthy = true nor any [[fault]]")
    faults = tuple(_fault(table, f"fault {index}: ", rules) for index, table in enumerate(tables, start=1))
    names = [fault.name for fault in faults]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two faults are called {name!r}")
    twin = _text(content.get("twin", ""), "twin")
    return Labels(faults, healthy, change, (folder / twin).resolve() if twin else None, _groups(content))


def _groups(content: Mapping[str, Any]) -> dict[str, str]:
    groups = content.get("groups", {})
    if not isinstance(groups, dict):
        raise ValueError(f"groups must be a table of texts, not {groups!r:.80}")
    return {name: _text(value, f"groups.{name}") for name, value in groups.items()}


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
    harm = None if table.get("harm") is None else _harm(table["harm"], where)
    return LabelledFault(table["name"], onset, _rules(table["rules"], where, rules), until, hard, harm)


def _harm(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value <= 1.0:
        raise ValueError(f"{where}harm must be the share of the return that was lost, 0 to 1, not {value!r}")
    return float(value)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where} must be a text, not {value!r:.80}")
    return value


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
