"""Runs in groups, by a setting or by their labels: means over the runs of a group with 95 % confidence intervals."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from esper_analyze.comparison.settings import AS_USED, settings_of
from esper_analyze.comparison.side_by_side import SideBySide
from esper_analyze.detector.signals import Floats
from esper_analyze.errors import UsageError, did_you_mean
from esper_analyze.wording import many, number

_Z = 1.959964
_T = (12.7062, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.306, 2.26216, 2.22814)
"""0.975 quantiles of the normal distribution, and of Student's t for 1 to 10 degrees of freedom."""
NOT_SET = "–"


@dataclass(frozen=True, slots=True)
class ComparedGroup:
    """Runs that have a value of a setting in common, or a part of their labels: indices in the comparison."""

    name: str
    runs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GroupMean:
    """Mean over those of a group's ``runs`` that have a finite value (``counted``), and its 95 % interval.

    ``low`` and ``high`` are NaN with fewer than two values, the mean too without any.
    """

    mean: float
    low: float
    high: float
    counted: int
    runs: int

    @property
    def words(self) -> str:
        """Mean, interval, and how many runs were counted where some were not."""
        if not self.counted:
            return NOT_SET
        interval = f" ({number(self.low)} – {number(self.high)})" if math.isfinite(self.low) else ""
        return f"{number(self.mean)}{interval}" + (
            "" if self.counted == self.runs else f", {self.counted} of {self.runs}"
        )


def student(freedom: int) -> float:
    """Return the 0.975 quantile of Student's t; above 10 degrees of freedom by expansion (error below 1e-5).

    Abramowitz and Stegun 1964, 26.7.5.
    """
    if freedom <= len(_T):
        return _T[freedom - 1]
    first, second = (_Z**3 + _Z) / 4, (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / 96
    third = (3 * _Z**7 + 19 * _Z**5 + 17 * _Z**3 - 15 * _Z) / 384
    fourth = (79 * _Z**9 + 776 * _Z**7 + 1482 * _Z**5 - 1920 * _Z**3 - 945 * _Z) / 92160
    return _Z + first / freedom + second / freedom**2 + third / freedom**3 + fourth / freedom**4


def mean_of(values: Sequence[float]) -> GroupMean:
    """Return mean and 95 % interval (Student's t) of one value of each run of a group."""
    finite = [value for value in values if math.isfinite(value)]
    nan = float("nan")
    if len(finite) < 2:
        return GroupMean(finite[0] if finite else nan, nan, nan, len(finite), len(values))
    with np.errstate(over="ignore"):
        mean = float(np.mean(finite))
        half = student(len(finite) - 1) * float(np.std(finite, ddof=1)) / math.sqrt(len(finite))
    return GroupMean(mean, mean - half, mean + half, len(finite), len(values))


def mean_curves(values: Floats) -> tuple[Floats, Floats, Floats]:
    """Return mean and edges of its 95 % interval at each update [3 × updates] of ``values`` [runs, updates].

    NaN where no run has a number, the edges where fewer than two have. Where a run has ended or measured nothing, the
    others are counted alone.
    """
    finite = np.isfinite(values)
    count = finite.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mean = np.where(finite, values, 0.0).sum(axis=0) / count
        variance = np.where(finite, values - mean, 0.0)
        variance = (variance**2).sum(axis=0) / (count - 1)
        quantile = np.array([student(max(int(number_of) - 1, 1)) for number_of in count])
        half = np.where(count > 1, quantile * np.sqrt(variance / count), np.nan)
    return mean, mean - half, mean + half


def groups_of(comparison: SideBySide, by: Sequence[str] = (), pattern: str | None = None) -> tuple[ComparedGroup, ...]:
    """Return the groups by settings or by a pattern, none where neither is given. Raises ``UsageError`` for both."""
    if by and pattern is not None:
        raise UsageError("runs are grouped by settings or by a pattern, not by both", hint="give one of them")
    if by:
        used = {name.removesuffix(AS_USED): values for name, values in comparison.settings if name.endswith(AS_USED)}
        return groups_by_setting(comparison.infos, by, used)
    return () if pattern is None else groups_by_label(comparison.labels, pattern)


def groups_by_setting(
    infos: Sequence[Mapping[str, Any]], names: Sequence[str], used: Mapping[str, Sequence[str]]
) -> tuple[ComparedGroup, ...]:
    """Return the groups of runs with the same values of the settings ``names``, in order of these.

    A name is that of a setting in run.json, its last part is enough where only one ends so; ``used`` are values by run
    of settings that were recorded in every update, for those that run.json does not have. Raises ``UsageError`` for an
    unknown name, and where all runs have the same values.
    """
    flat = [settings_of(info) for info in infos]
    last_parts = {_last_part(name) for setting in flat for name in setting}
    for name in used:
        if name in last_parts:
            continue
        for setting, value in zip(flat, used[name], strict=True):
            setting[name] = value
    known = list(dict.fromkeys(name for setting in flat for name in setting))
    full = [_resolved(name, known) for name in names]
    values = [tuple(setting.get(name, NOT_SET) for name in full) for setting in flat]
    if len(set(values)) == 1:
        same = ", ".join(f"{name} is {value}" for name, value in zip(names, values[0], strict=True))
        differ = [name for name in known if len({setting.get(name) for setting in flat}) > 1]
        hint = f"settings that differ: {', '.join(differ[:8])}" if differ else "no setting in run.json differs"
        raise UsageError(f"{same} in all {many(len(infos), 'run')}", hint=hint)
    labels = [
        ", ".join(_titled(name, value, names) for name, value in zip(names, of_run, strict=True)) for of_run in values
    ]
    ordered = sorted(
        dict.fromkeys(zip(values, labels, strict=True)), key=lambda entry: [_order(value) for value in entry[0]]
    )
    return tuple(ComparedGroup(label, _members(values, of_group)) for of_group, label in ordered)


def groups_by_label(labels: Sequence[str], pattern: str) -> tuple[ComparedGroup, ...]:
    """Return the groups of runs in whose labels ``pattern`` matches the same text: its groups, else the whole match.

    Raises ``UsageError`` for a pattern that is none, and where fewer than two groups come of it.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"the pattern {pattern!r} is not a regular expression: {error}",
            hint="'^(.*)-seed' names what comes before -seed",
        ) from None
    found = [_matched(compiled.search(label)) for label in labels]
    names = sorted(dict.fromkeys(found), key=_order)
    if len(names) < 2:
        raise UsageError(
            f"the pattern {pattern!r} matches {'the same text in all runs' if names[0] != NOT_SET else 'in no run'}",
            hint=f"it is searched in their labels ({', '.join(labels[:4])}); (…) says which part names a group",
        )
    return tuple(ComparedGroup(name, _members(found, name)) for name in names)


def _matched(match: re.Match[str] | None) -> str:
    if match is None:
        return NOT_SET
    parts = [part for part in match.groups() if part is not None]
    return " ".join(parts) if parts else match[0]


def _members(values: Sequence[object], of_group: object) -> tuple[int, ...]:
    return tuple(run for run, value in enumerate(values) if value == of_group)


def _titled(name: str, value: str, names: Sequence[str]) -> str:
    return value if len(names) == 1 else f"{name.rsplit('.', maxsplit=1)[-1]} {value}"


def _resolved(name: str, known: Sequence[str]) -> str:
    """Return the full name of a setting. Raises ``UsageError`` where none or several are meant."""
    if name in known:
        return name
    known = [full for full in known if not full.startswith("thresholds.")]  # of the detector: by their full names only
    ending = [full for full in known if _last_part(full) == name]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise UsageError(f"several settings are called {name}", hint=f"give one of: {', '.join(ending)}")
    short = {_last_part(full): full for full in known}
    raise UsageError(
        f"there is no setting {name!r} in these runs{did_you_mean(name, list(short))}",
        hint="`esper-analyze compare` lists the settings that differ",
    )


def _last_part(name: str) -> str:
    return name.rsplit(".", maxsplit=1)[-1]


def _order(value: str) -> tuple[bool, float, str]:
    """Sort numbers by size, before texts; what is not set comes last."""
    try:
        return False, float(value), value
    except ValueError:
        return True, float(value == NOT_SET), value
