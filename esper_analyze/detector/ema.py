"""Exponential moving averages, vectorised, bitwise equal for every cut of the updates into batches.

With β the momentum, the average after j more values is βʲ·(a + Σᵢ (1 − β)·xᵢ·β⁻ⁱ). The sum is taken within blocks that
are anchored to how many values came before, always in the same order; one by one or all at once gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np

from esper_analyze.detector.rule import Memory
from esper_analyze.detector.signals import Bools, Floats

LONGEST_BLOCK = 64
SMALLEST_POWER = 1e-60
"""Bound on β to the power of a block's length: its inverse multiplies values, which must not overflow by it."""


def ema_memory(name: str, rows: int) -> Mapping[str, Callable[[int], np.ndarray[Any, Any]]]:
    """Return the memory that ``ema_baseline`` of ``rows`` metrics at once needs under ``name``."""
    return {
        f"{name}_anchor": lambda k: np.zeros((rows, k)),
        f"{name}_sum": lambda k: np.zeros((rows, k)),
        f"{name}_count": lambda k: np.zeros((rows, k), np.int64),
    }


@lru_cache(maxsize=64)
def _powers(keep: float) -> tuple[Floats, Floats]:
    """Return βʲ for j = 0 … length, and (1 − β)·β⁻ʲ for j = 1 … length."""
    length = LONGEST_BLOCK
    if keep**length < SMALLEST_POWER:
        length = max(int(math.log(SMALLEST_POWER) / math.log(keep)), 1) if keep > SMALLEST_POWER else 0
    decay = keep ** np.arange(length + 1, dtype=np.float64)
    return decay, (1.0 - keep) / decay[1:]


def ema_baseline(values: Floats, usable: Bools, memory: Memory, name: str, *, keep: float, warmup: int) -> Floats:
    """Return the EMA before each value [n, r, k], as its baseline; NaN for the first ``warmup`` values.

    The first ``warmup`` values make a bias-corrected mean (m / (1 − βᵗ), Kingma & Ba 2015); the plain recurrence
    continues from it. Values that are not ``usable`` are ignored. The memory under ``name`` is updated in place.
    """
    state = memory[f"{name}_anchor"], memory[f"{name}_sum"], memory[f"{name}_count"]
    if len(values) == 1:
        return _single_update(values[0], usable[0], *state, keep, warmup)
    baselines = np.full(values.shape, np.nan)
    for r, k in np.ndindex(values.shape[1:]):
        rows = np.flatnonzero(usable[:, r, k])
        baselines[rows, r, k] = _many_updates(values[rows, r, k], *state, (r, k), keep, warmup)
    return baselines


def _single_update(
    values: Floats, usable: Bools, anchor: Floats, total: Floats, count: Any, keep: float, warmup: int
) -> Floats:
    """Return what a single update is held against, all subjects at once."""
    decay, weight = _powers(keep)
    number = int(count.flat[0]) if count.size else 0
    if len(weight) and number >= warmup and np.count_nonzero(usable & (count == number)) == count.size:
        return _in_step(values, anchor, total, count, (number - warmup) % len(weight), decay, weight)
    length = max(len(weight), 1)
    warm = usable & (count >= warmup)
    offset = np.where(warm, (count - warmup) % length, 0)
    baselines = np.where(warm, decay[offset] * (anchor + total) if len(weight) else anchor, np.nan)
    with np.errstate(all="ignore"):
        if len(weight):
            np.copyto(total, total + values * weight[offset], where=warm)
            full = warm & (offset == length - 1)
            np.copyto(anchor, decay[length] * (anchor + total), where=full)
            np.copyto(total, 0.0, where=full)
        else:
            np.copyto(anchor, values, where=warm)
        cold = usable & ~warm
        if np.count_nonzero(cold):
            np.copyto(anchor, keep * anchor + (1.0 - keep) * values, where=cold)
            np.copyto(anchor, anchor / (1.0 - keep**warmup), where=cold & (count == warmup - 1))
    count += usable
    return np.asarray(baselines)[None, :]


def _in_step(
    values: Floats, anchor: Floats, total: Floats, count: Any, offset: int, decay: Floats, weight: Floats
) -> Floats:
    """Return the same if all subjects have had equally many values, ``offset`` of them in the sum."""
    baselines: Floats = decay[offset] * (anchor + total)
    with np.errstate(all="ignore"):
        total += values * weight[offset]
        if offset == len(weight) - 1:
            anchor[:] = decay[-1] * (anchor + total)
            total[:] = 0.0
    count += 1
    return baselines[None, :]


def _many_updates(
    values: Floats, anchors: Floats, totals: Floats, counts: Any, at: tuple[int, int], keep: float, warmup: int
) -> Floats:
    """Return the same for all usable values of one subject."""
    decay, weight = _powers(keep)
    anchor, total, count = float(anchors[at]), float(totals[at]), int(counts[at])
    cold = min(max(warmup - count, 0), len(values))
    for value in values[:cold].tolist():
        anchor = keep * anchor + (1.0 - keep) * value
    if cold and count + cold == warmup:
        anchor /= 1.0 - keep**warmup
    count += cold
    warm = values[cold:]
    baselines = np.full(len(values), np.nan)
    if len(warm) and not len(weight):
        baselines[cold:] = np.concatenate([[anchor], warm[:-1]])
        anchor = float(warm[-1])
    elif len(warm):
        baselines[cold:], anchor, total = _blocks(warm, anchor, total, (count - warmup) % len(weight), decay, weight)
    anchors[at], totals[at], counts[at] = anchor, total, count + len(warm)
    return baselines


def _blocks(
    values: Floats, anchor: float, total: float, offset: int, decay: Floats, weight: Floats
) -> tuple[Floats, float, float]:
    """Return the baseline of each value, then anchor and sum after the last; ``offset`` values are in the sum."""
    length = len(weight)
    blocks = -(-(offset + len(values)) // length)
    padded = np.zeros(blocks * length)
    padded[offset : offset + len(values)] = values
    with np.errstate(all="ignore"):
        terms = padded.reshape(blocks, length) * weight
        if offset:
            terms[0, offset - 1] = total
        sums = np.cumsum(terms, axis=1)
        ends = sums[:, -1].tolist()
        last = float(decay[length])
        anchored = np.array(list(accumulate(ends, lambda average, end: last * (average + end), initial=anchor)))
        before = np.concatenate([np.zeros((blocks, 1)), sums[:, :-1]], axis=1)
        baselines = (decay[:length] * (anchored[:-1, None] + before)).reshape(-1)[offset : offset + len(values)]
    stop = offset + len(values)
    if stop == blocks * length:
        return baselines, float(anchored[-1]), 0.0
    return baselines, float(anchored[-2]), float(sums[-1, stop % length - 1])
