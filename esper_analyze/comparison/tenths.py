"""The metrics whose first and last tenths a comparison shows, and those of each run."""

from __future__ import annotations

from esper_analyze.comparison.cells import MetricMatrix
from esper_analyze.runs.tenths import Tenths, tenths_of

TITLES = {
    "episode_return_mean": "return",
    "kl_k3": "KL",
    "entropy": "entropy",
    "explained_variance": "EV",
    "clip_fraction": "clipped",
}
"""Columns of table updates, and their short titles."""


def tenths(cells: MetricMatrix) -> tuple[Tenths | None, ...]:
    """Return each run's tenths of one metric, None for a run that never measured it."""
    return tuple(tenths_of(cells.value[run][cells.measured[run]]) for run in range(cells.runs))
