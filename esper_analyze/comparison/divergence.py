"""When a run diverges from others: it leaves their range around that update by more than noise, and stays outside.

The others' range at update t is taken over t ± 0.3 t updates, so that a run which learns the same a little sooner or
later does not diverge. Noise is estimated from each run's early update-to-update steps. Of five or more others a fifth
at each end is left out, and the band reaches at least to Tukey's fence, so that several faulty runs in a group do not
hide each other.

Measured with ``python -m tests.bench.parting`` (see docs): none of 18,000 series of stationary noise that keeps up to
0.9 of each value diverges; a random walk does, as it should.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from esper_analyze.comparison.cells import MetricMatrix, early_values
from esper_analyze.comparison.windows import order_statistic_of_others, windowed_least
from esper_analyze.detector.signals import Bools, Floats, Ints

SIGMAS = 6.0
"""Standard deviations of noise beyond the others' range that make a divergence."""
STRETCH, HITS = 5, 4
"""A run has diverged when ``HITS`` of the next ``STRETCH`` updates lie outside the band, on the same side."""
LEAST_EARLY = 6
"""Finite early values needed to estimate the noise of a run."""
RELATIVE = 0.01
"""The least noise assumed, as a share of a metric's early size: divergences below 6 % of it do not count."""
DROPPED = 5
"""One in so many others is left out at each end."""
FENCE = 1.5
"""Interquartile ranges beyond the quartiles (Tukey 1977): the band of four or more others reaches at least there."""
FEW = 4


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where one run leaves the others. ``kind``: ``beyond``, ``nonfinite`` or ``missing``; ``index``: the column.

    ``size`` is the distance of the first value from the others' band, in standard deviations of noise; Inf for the
    kinds ``nonfinite`` and ``missing``.
    """

    index: int
    kind: str
    size: float = float("inf")


@dataclass(frozen=True, slots=True)
class DivergenceResult:
    """One metric's divergences: the first of each run (None: it stays), and the noise (NaN: unknown).

    ``pending`` are runs that do not diverge, but whose last values lie outside: too few to know whether it lasts.
    """

    divergences: tuple[Divergence | None, ...]
    noise: float
    pending: tuple[Divergence | None, ...]


def find_divergences(
    cells: MetricMatrix, *, log: bool = False, least: float = 0.0, sparse: bool = False
) -> DivergenceResult:
    """Return where each run leaves the others.

    ``least`` is a difference, on the scale judged, that never counts. A run with NaN, +Inf or -Inf where others have
    something else diverges at once; one that stops measuring what others still measure, when that lasts, unless the
    metric is ``sparse`` (sometimes null in healthy runs).
    """
    values = cells.scaled(log=log)
    noise = _noise(values, log=log, least=least)
    candidates: list[list[Divergence]] = [[] for _ in range(cells.runs)]
    facts = {"nonfinite": _nonfinite(cells)} | ({} if sparse else {"missing": _missing(cells)})
    for kind, where in facts.items():
        for run in np.flatnonzero(where.any(axis=1)).tolist():
            candidates[run].append(Divergence(int(where[run].argmax()), kind))
    pending: list[Divergence | None] = [None] * cells.runs
    if np.isfinite(noise):
        pending = _pending(values, noise)
        for run, divergence in enumerate(_beyond(values, noise)):
            candidates[run] += [divergence] if divergence else []
    divergences = tuple(min(of_run, key=lambda p: p.index, default=None) for of_run in candidates)
    waiting = (
        last_values if divergence is None else None
        for last_values, divergence in zip(pending, divergences, strict=True)
    )
    return DivergenceResult(divergences, noise, tuple(waiting))


def run_noise(values: Floats, *, level: bool = False) -> float:
    """Return the noise (standard deviation) of one run's early values; NaN when there are too few.

    From medians of steps of 1 and of a quarter of the window: a jump in the window does not count as noise, a slow
    swing does. A steady rise counts too, unless ``level`` asks for the noise around it.
    """
    early = early_values(values)
    if len(early) < LEAST_EARLY:
        return float("nan")
    steps = [early[lag:] - early[:-lag] for lag in (1, max(2, len(early) // 4))]
    rises = [float(np.median(step)) if level else 0.0 for step in steps]
    sizes = [float(np.median(np.abs(step - rise))) for step, rise in zip(steps, rises, strict=True)]
    return max(sizes) / (0.6745 * math.sqrt(2))


def _noise(values: Floats, *, log: bool, least: float) -> float:
    """Return the noise of a difference between two runs.

    With few others to show how differently runs learn, the speed of learning counts as noise.
    """
    each = np.array([run_noise(row, level=len(values) > FEW) for row in values])
    each = each[np.isfinite(each)]
    if not len(each):
        return float("nan")
    early = np.concatenate([early_values(row) for row in values])
    size = 1.0 if log else float(np.median(np.abs(early)))
    combined = float(np.hypot(*each)) if len(each) == 2 else float(np.sqrt(2) * np.median(each))
    return max(combined, RELATIVE * size, least / SIGMAS, np.finfo(float).tiny)


def _beyond(values: Floats, noise: float) -> list[Divergence | None]:
    low, high = bands(values, noise)
    sides = [_lasting(values < low), _lasting(values > high)]
    with np.errstate(over="ignore"):
        excess = np.maximum(low - values, values - high) / noise
    firsts: list[Divergence | None] = []
    for run in range(len(values)):
        starts = [int(side[run].argmax()) for side in sides if side[run].any()]
        at = min(starts, default=None)
        firsts.append(None if at is None else Divergence(at, "beyond", float(excess[run, at])))
    return firsts


def _pending(values: Floats, noise: float) -> list[Divergence | None]:
    """Return where each run's last values leave the band, all on the same side up to its end."""
    low, high = bands(values, noise)
    pending: list[Divergence | None] = [None] * len(values)
    for run, series in enumerate(values):
        places = np.flatnonzero(np.isfinite(series))
        for excess in (low[run] - series, series - high[run]):
            inside = np.flatnonzero(~(excess[places] > 0))
            ending = places[inside[-1] + 1 :] if len(inside) else places
            if len(ending):
                pending[run] = Divergence(int(ending[0]), "beyond", float(excess[ending[0]] / noise))
    return pending


def bands(values: Floats, noise: float) -> tuple[Floats, Floats]:
    """Return lower and upper edge of the other runs' band [runs, updates]; ∓Inf where too few of them continue."""
    least, most = windowed_least(values), windowed_least(-values)
    there = np.isfinite(least)
    others: Ints = there.sum(axis=0) - there
    low, high = _edge(least, most, others, noise), -_edge(most, least, others, noise)
    few = others < min(2, len(values) - 1)
    return np.where(few, -np.inf, low), np.where(few, np.inf, high)


def _edge(least: Floats, most: Floats, others: Ints, noise: float) -> Floats:
    """Return the lower edge: ``least`` are windowed least values, ``most`` the windowed least of the negated ones."""
    edge = order_statistic_of_others(least, others // DROPPED) - SIGMAS * noise
    enough = others >= FEW
    quarter = np.maximum(others - 1, 0) // 4
    first, third = order_statistic_of_others(least, quarter), -order_statistic_of_others(most, quarter)
    with np.errstate(invalid="ignore"):
        fence = first - FENCE * (third - first)
    return np.where(enough, np.minimum(edge, fence), edge)


def _lasting(beyond: Bools) -> Bools:
    """Return where a lasting stretch begins."""
    runs, updates = beyond.shape
    so_far = np.concatenate([np.zeros((runs, 1), np.int64), np.cumsum(beyond, axis=1)], axis=1)
    end = np.minimum(np.arange(updates) + STRETCH, updates)
    lasting: Bools = beyond & (so_far[:, end] - so_far[:, :-1] >= HITS)
    return lasting


def _nonfinite(cells: MetricMatrix) -> Bools:
    """Where a run has NaN, +Inf or -Inf, and most of the others that measured anything have something else."""
    differs = np.zeros(cells.value.shape, bool)
    for kind in cells.kinds:
        same = kind.sum(axis=0) - kind
        measured = cells.measured.sum(axis=0) - cells.measured
        differs |= kind & (measured - same > same)
    return differs


def _missing(cells: MetricMatrix) -> Bools:
    """Where a run begins to have rows without a measurement, and most of the others with rows have one."""
    measured = cells.measured
    with_it = measured.sum(axis=0) - measured
    without = cells.null.sum(axis=0) - cells.null
    begins: Bools = _lasting(cells.null & (with_it > without)) & cells.has_measurements[:, None]
    return begins
