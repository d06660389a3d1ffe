"""Comparisons made of numbers, without recorded runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from esper_analyze.comparison.cells import MetricMatrix
from esper_analyze.comparison.divergence import find_divergences
from esper_analyze.comparison.ends import end_differences
from esper_analyze.comparison.metrics import METRICS, Metric
from esper_analyze.comparison.settings import SettingDifference
from esper_analyze.comparison.side_by_side import ComparedMetric, SideBySide
from esper_analyze.comparison.tenths import TITLES, tenths
from esper_analyze.detector.signals import Bools, Floats

LABELS = ("a", "b", "c", "d", "e", "f", "g", "h")
BY_COLUMN: dict[str, Metric] = {metric.column: metric for metric in METRICS if metric.table == "updates"}


def cells(values: Floats, rows: Bools | None = None) -> MetricMatrix:
    """Return cells that were measured where there is a number or ±Inf, and else null where a run has a row."""
    null = np.isnan(values)
    return MetricMatrix(values, np.isinf(values), null if rows is None else null & rows)


def compared(metric: Metric | str, values: Floats, subject: str = "", *, rows: Bools | None = None) -> ComparedMetric:
    """Judge one metric, as a comparison does; ``rows`` says which updates a run has, else all."""
    one = BY_COLUMN[metric] if isinstance(metric, str) else metric
    matrix = cells(np.asarray(values, float), rows)
    judged = find_divergences(matrix, log=one.log, least=one.least, sparse=one.sparse)
    return ComparedMetric(one, subject, matrix, judged, end_differences(matrix, log=one.log, least=one.least))


def comparison(
    metrics: Sequence[ComparedMetric],
    *,
    infos: Sequence[Mapping[str, Any]] | None = None,
    settings: Sequence[SettingDifference] = (),
    exact: Mapping[str, Floats] | None = None,
    **facts: Any,
) -> SideBySide:
    """Return a comparison of ``metrics``; runs are called a, b and so on, and have every update from 10 on."""
    shape = metrics[0].cells.value.shape
    ready: dict[str, Any] = {"not_common": (), "functions": (), "tables": (), "worst": ("ok",) * shape[0]}
    ready["tenths"] = {one.name: tenths(one.cells) for one in metrics if one.name in TITLES}
    return SideBySide(
        **{
            "labels": LABELS[: shape[0]],
            "infos": tuple(infos or [{} for _ in range(shape[0])]),
            "updates": 10 + np.arange(shape[1]),
            "rows": np.ones(shape, bool),
            "metrics": tuple(metrics),
            "settings": tuple(settings),
            "exact": tuple((name, cells(np.asarray(rows, float))) for name, rows in (exact or {}).items()),
            **ready,
            **facts,
        }
    )


def still(runs: int, updates: int = 40, value: float = 100.0) -> Floats:
    """Return runs that all have one value throughout."""
    return np.full((runs, updates), value)


def parting(runs: int, updates: int = 40, **starts: int) -> Floats:
    """Return runs at 100, of which those named go to 500 at a column."""
    values = still(runs, updates)
    for label, start in starts.items():
        values[LABELS.index(label), start:] = 500.0
    return values
