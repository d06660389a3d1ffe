"""When a run parts from others: outside everything they do at about that time, by more than noise, and to stay.

What the others do at an update is their range from 0.3 of the updates so far before it to as much after it: a run that
learns the same a little sooner or later does not part. Noise is what the runs themselves do from update to update
early on. Of five or more others the fifth part at each end is left out, and the band reaches as far as Tukey's fence,
so that several faulty runs in a group do not hide each other.

Measured with ``python -m tests.bench.parting`` (see README): none of 18,000 series of stationary noise that keeps up to
0.9 of each value parts; a random walk does, as it should.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from esper_analyze.comparison.cells import Cells, early_values
from esper_analyze.comparison.windows import of_others, windowed_least
from esper_analyze.detector.signals import Bools, Floats, Ints

SIGMAS = 6.0
"""Standard deviations of noise beyond the others' range that make a parting."""
STRETCH, HITS = 5, 4
"""A run has parted when ``HITS`` of ``STRETCH`` updates from then on lie beyond, on the same side."""
LEAST_EARLY = 6
"""Finite early values without which the noise of a run is not known."""
RELATIVE = 0.01
"""Noise below this share of a metric's early size is taken for as much: partings below 6 % of it do not count."""
DROPPED = 5
"""One in so many others, at each end, is not asked."""
FENCE = 1.5
"""Interquartile ranges beyond the quartiles (Tukey 1977): the band of four or more others reaches at least there."""
FEW = 4


@dataclass(frozen=True, slots=True)
class Parting:
    """Where one run leaves the others. ``kind``: ``beyond``, ``nonfinite`` or ``missing``; places are columns.

    ``size`` is how far the first value lies beyond the others' band, in standard deviations of noise; Inf for facts.
    """

    place: int
    kind: str
    size: float = float("inf")


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of one metric: the first parting of each run (None: it stays), and the noise (NaN: unknown).

    ``pending`` are runs that do not part, but whose last values lie beyond: too few of them to know whether it lasts.
    """

    partings: tuple[Parting | None, ...]
    noise: float
    pending: tuple[Parting | None, ...]


def judge(cells: Cells, *, log: bool = False, least: float = 0.0, sparse: bool = False) -> Judged:
    """Return where each run leaves the others.

    ``least`` is a difference, on the scale judged, that never counts. Facts come first: a run with NaN, +Inf or -Inf
    where others have something else parts at once; one that ceases to measure what others go on measuring when it stays
    so, unless the metric is ``sparse``: null now and then in sound runs.
    """
    values = cells.scaled(log=log)
    noise = _noise(values, log=log, least=least)
    found: list[list[Parting]] = [[] for _ in range(cells.runs)]
    facts = {"nonfinite": _nonfinite(cells)} | ({} if sparse else {"missing": _missing(cells)})
    for kind, where in facts.items():
        for run in np.flatnonzero(where.any(axis=1)).tolist():
            found[run].append(Parting(int(where[run].argmax()), kind))
    pending: list[Parting | None] = [None] * cells.runs
    if np.isfinite(noise):
        pending = _pending(values, noise)
        for run, parting in enumerate(_beyond(values, noise)):
            found[run] += [parting] if parting else []
    partings = tuple(min(one, key=lambda p: p.place, default=None) for one in found)
    waiting = (own if parting is None else None for own, parting in zip(pending, partings, strict=True))
    return Judged(partings, noise, tuple(waiting))


def run_noise(values: Floats, *, level: bool = False) -> float:
    """Return the noise (standard deviation) of one run's early values; NaN when there are too few.

    From medians of steps of 1 and of a quarter of the window: a jump in the window does not count as noise, a slow
    swing does. A steady rise counts, too, unless only what is left beside it is asked for (``level``).
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

    Where few others tell how differently runs learn, the speed of learning counts as noise.
    """
    each = np.array([run_noise(row, level=len(values) > FEW) for row in values])
    each = each[np.isfinite(each)]
    if not len(each):
        return float("nan")
    early = np.concatenate([early_values(row) for row in values])
    size = 1.0 if log else float(np.median(np.abs(early)))
    own = float(np.hypot(*each)) if len(each) == 2 else float(np.sqrt(2) * np.median(each))
    return max(own, RELATIVE * size, least / SIGMAS, np.finfo(float).tiny)


def _beyond(values: Floats, noise: float) -> list[Parting | None]:
    low, high = bands(values, noise)
    sides = [_lasting(values < low), _lasting(values > high)]
    with np.errstate(over="ignore"):
        excess = np.maximum(low - values, values - high) / noise
    found: list[Parting | None] = []
    for run in range(len(values)):
        places = [int(side[run].argmax()) for side in sides if side[run].any()]
        at = min(places, default=None)
        found.append(None if at is None else Parting(at, "beyond", float(excess[run, at])))
    return found


def _pending(values: Floats, noise: float) -> list[Parting | None]:
    """Return where each run's last values begin to lie beyond, all on the same side and to its very end."""
    low, high = bands(values, noise)
    found: list[Parting | None] = [None] * len(values)
    for run, own in enumerate(values):
        places = np.flatnonzero(np.isfinite(own))
        for excess in (low[run] - own, own - high[run]):
            inside = np.flatnonzero(~(excess[places] > 0))
            ending = places[inside[-1] + 1 :] if len(inside) else places
            if len(ending):
                found[run] = Parting(int(ending[0]), "beyond", float(excess[ending[0]] / noise))
    return found


def bands(values: Floats, noise: float) -> tuple[Floats, Floats]:
    """Return lower and upper edge of what the other runs do [runs, updates]; ∓Inf where too few of them go on."""
    least, most = windowed_least(values), windowed_least(-values)
    there = np.isfinite(least)
    others: Ints = there.sum(axis=0) - there
    low, high = _edge(least, most, others, noise), -_edge(most, least, others, noise)
    few = others < min(2, len(values) - 1)
    return np.where(few, -np.inf, low), np.where(few, np.inf, high)


def _edge(least: Floats, most: Floats, others: Ints, noise: float) -> Floats:
    """Return the lower edge: ``least`` are windowed least values, ``most`` the windowed least of the negated ones."""
    edge = of_others(least, others // DROPPED) - SIGMAS * noise
    enough = others >= FEW
    quarter = np.maximum(others - 1, 0) // 4
    first, third = of_others(least, quarter), -of_others(most, quarter)
    with np.errstate(invalid="ignore"):
        fence = first - FENCE * np.maximum(third - first, 1.35 * noise)
    return np.where(enough, np.minimum(edge, fence), edge)


def _lasting(beyond: Bools) -> Bools:
    """Return where a stretch begins that lasts."""
    runs, updates = beyond.shape
    so_far = np.concatenate([np.zeros((runs, 1), np.int64), np.cumsum(beyond, axis=1)], axis=1)
    end = np.minimum(np.arange(updates) + STRETCH, updates)
    lasting: Bools = beyond & (so_far[:, end] - so_far[:, :-1] >= HITS)
    return lasting


def _nonfinite(cells: Cells) -> Bools:
    """Where a run has NaN, +Inf or -Inf, and most of the others that measured anything have something else."""
    found = np.zeros(cells.value.shape, bool)
    for own in cells.kinds:
        same = own.sum(axis=0) - own
        measured = cells.measured.sum(axis=0) - cells.measured
        found |= own & (measured - same > same)
    return found


def _missing(cells: Cells) -> Bools:
    """Where a run begins to have rows without a measurement, and most of the others with rows have one."""
    measured = cells.measured
    with_it = measured.sum(axis=0) - measured
    without = cells.null.sum(axis=0) - cells.null
    found: Bools = _lasting(cells.null & (with_it > without)) & cells.known[:, None]
    return found
