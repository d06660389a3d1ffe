"""A run at first sight: whether it got better, and its four courses with the incidents behind them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.detector.conditions.stand_ins import KL_LOGGED
from esper_analyze.detector.signals import Floats
from esper_analyze.reports.render.sparkline import Sparkline, sparkline
from esper_analyze.reports.sections.returns import fall_of
from esper_analyze.runs.log_source import is_log
from esper_analyze.runs.series import Series, all_series
from esper_analyze.runs.tenths import Tenths, tenths_of
from esper_analyze.wording import many, number

if TYPE_CHECKING:
    from esper_analyze.detector.incidents import Incident
    from esper_analyze.replay.evidence import Evidence

SHOWN = {
    "episode_return_mean": "Episode return",
    "kl_k3": "KL (k3), nats",
    "entropy": "Entropy, nats",
    "explained_variance": "Explained variance",
}
"""Columns of table updates, and their titles."""
SIZE = (200, 48)
_SEVERITY = ("", "warning", "critical")
_ERRORS = 2.0
"""Standard errors by which the last tenth must differ from the first."""
_LEAST = 3
"""Updates in a tenth from which on its standard error is known."""


@dataclass(frozen=True, slots=True)
class Course:
    """One metric over the run: its tenths in words, its line, and where incidents were open, in pixels."""

    title: str
    words: str
    line: Sparkline
    shaded: tuple[tuple[int, int, str], ...]
    """Left edge, width and verdict."""


@dataclass(frozen=True, slots=True)
class FirstSight:
    """Whether the run got better, in a sentence, and its courses."""

    answer: str
    courses: tuple[Course, ...]


def frame(evidence: Evidence) -> FirstSight:
    """Return the first sight of a run; a metric that was never measured has no course."""
    by_name = all_series(evidence.run, "updates", [*SHOWN, *KL_LOGGED])
    logged = next((name for name in KL_LOGGED if is_log(evidence.run.info) and not by_name[name].empty), "kl_k3")
    if by_name["kl_k3"].empty and logged != "kl_k3":
        by_name["kl_k3"] = by_name[logged]
    titles = SHOWN if logged == "kl_k3" else {**SHOWN, "kl_k3": "KL, nats"}
    courses = [_course(evidence, title, by_name[name]) for name, title in titles.items()]
    return FirstSight(better(by_name["episode_return_mean"]), tuple(one for one in courses if one is not None))


def better(returns: Series) -> str:
    """Say whether returns rose from the first to the last tenth of the updates, by more than their standard error."""
    values = returns.value[returns.finite]
    ends = tenths_of(values)
    if ends is None:
        return "Did it get better? Not known: no return of an episode was recorded."
    course = f"from {number(ends.first)} in the first {_tenth(ends.updates)} to {number(ends.last)} in the last."
    nonfinite = int(returns.nonfinite.sum())
    broken = f" In {many(nonfinite, 'update')} they were NaN or infinite." if nonfinite else ""
    return f"Did it get better? {_change(values, ends)} {course}{broken}{fall_of(returns)}"


def _change(values: Floats, ends: Tenths) -> str:
    if ends.updates < _LEAST:
        return "Too short to tell: returns went"
    parts = (values[: ends.updates], values[-ends.updates :])
    with np.errstate(over="ignore"):
        error = math.sqrt(sum(float(part.var(ddof=1)) for part in parts) / ends.updates)
    if abs(ends.last - ends.first) <= _ERRORS * error:
        return "No clear change: returns went"
    return "Yes: returns rose" if ends.last > ends.first else "No: returns fell"


def _tenth(updates: int) -> str:
    return f"tenth ({many(updates, 'update')} with episodes)"


def _course(evidence: Evidence, title: str, series: Series) -> Course | None:
    finite = series.value[series.finite]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    line = sparkline(series, low, high if high > low else low + 1.0, SIZE)
    ends = tenths_of(series.value[~series.null])
    if line is None or ends is None:
        return None
    return Course(title, ends.words, line, _shaded(evidence.replay.incidents, series))


def _shaded(incidents: Iterable[Incident], series: Series) -> tuple[tuple[int, int, str], ...]:
    """Return the stretches of pixels where alarms were open, each with the worst verdict there."""
    first, last = int(series.update[0]), max(int(series.update[-1]), int(series.update[0]) + 1)
    worst = np.zeros(SIZE[0], np.int8)
    for incident in incidents:
        if incident.peak_verdict in _SEVERITY:
            open_from, open_until = np.clip([incident.start - first, incident.end - first], 0, last - first)
            pixels = (SIZE[0] - 4) / (last - first)
            here = slice(2 + int(pixels * open_from), 2 + int(pixels * open_until) + 1)
            worst[here] = np.maximum(worst[here], _SEVERITY.index(incident.peak_verdict))
    edges = np.flatnonzero(np.diff(np.concatenate([[-1], worst, [-1]])))
    return tuple(
        (int(begin), int(end - begin), _SEVERITY[worst[begin]])
        for begin, end in itertools.pairwise(edges)
        if worst[begin]
    )
