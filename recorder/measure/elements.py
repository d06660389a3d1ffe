"""Statistics over the elements of gradients: moments, extremes, magnitude histogram, signs; per atom of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

EDGES = (1e-6, 1e-4, 1e-2, 1.0)
"""Edges of the magnitude histogram; a value on an edge belongs to the bin above."""
LARGE = 10.0
"""|g| above this counts as large."""

_SINGLE = tuple(
    float(np.float32(edge) if float(np.float32(edge)) >= edge else np.nextafter(np.float32(edge), np.float32(np.inf)))
    for edge in EDGES
)
_EDGES = {torch.float32: _SINGLE, torch.float64: EDGES}
"""The smallest number of each dtype that is not below the edge: float32 has no 0.01."""

FIELDS = (
    "sum",
    "squares",
    "zero",
    "below_1e_6",
    "1e_6_to_1e_4",
    "1e_4_to_1e_2",
    "1e_2_to_1",
    "1_and_above",
    "nan",
    "inf",
    "large",
    "positive",
    "min",
    "max",
)
"""Columns of what ``element_statistics`` returns: sum, Σ (g − mean)², counts, extremes."""


_Numbers = np.ndarray[Any, Any]
CHUNK = 1 << 14
"""Elements of a large tensor processed together: they and intermediate results stay in the processor's caches."""


@dataclass(frozen=True)
class Segments:
    """Consecutive segments of a flat tensor."""

    sizes: Sequence[int]
    device: torch.device

    @cached_property
    def index(self) -> Tensor:
        """Which segment each element belongs to."""
        index = torch.arange(len(self.sizes), device=self.device)
        sizes = torch.tensor(self.sizes).to(self.device, non_blocking=True)
        return index.repeat_interleave(sizes, output_size=sum(self.sizes))


def element_statistics(flat: Tensor, segments: Segments) -> Tensor:
    """Return ``FIELDS`` [segments, F] in float64 for the segments of a flat tensor [P]."""
    g, segment, count = flat.double(), segments.index, len(segments.sizes)
    sizes = g.new_zeros(count).index_add_(0, segment, torch.ones_like(g))
    total = g.new_zeros(count).index_add_(0, segment, g)
    centred = g - (total / sizes)[segment]
    counted = g.new_zeros((count, 10)).index_add_(0, segment, _indicators(g))
    low = g.new_full((count,), torch.inf).scatter_reduce_(0, segment, g, "amin")
    high = g.new_full((count,), -torch.inf).scatter_reduce_(0, segment, g, "amax")
    squares = g.new_zeros(count).index_add_(0, segment, centred.square())
    return torch.cat([torch.stack([total, squares], dim=1), counted, torch.stack([low, high], dim=1)], dim=1)


def element_statistics_of_one(gradient: Tensor) -> Tensor:
    """Return ``FIELDS`` [F] in float64 of one large tensor, without a copy of it in float64."""
    g = gradient.detach().reshape(-1)
    if g.dtype not in _EDGES:
        g = g.float()
    return host_statistics(g) if g.device.type == "cpu" else device_statistics(g)


def device_statistics(g: Tensor) -> Tensor:
    """Return ``FIELDS`` of a flat float32 or float64 tensor without reading it on the host."""
    mean = g.mean(dtype=torch.float64)
    size = torch.abs(g)
    below = [(size < edge).sum(dtype=torch.float64) for edge in _EDGES[g.dtype]]
    zero, inf, nan = (x.sum(dtype=torch.float64) for x in (size == 0, size == torch.inf, g.isnan()))
    finite = g.numel() - nan - inf
    bins = [zero, below[0] - zero, below[1] - below[0], below[2] - below[1], below[3] - below[2], finite - below[3]]
    counts = [nan, inf, (size > LARGE).sum(dtype=torch.float64), (g > 0).sum(dtype=torch.float64)]
    low, high = g.aminmax()
    squares = torch.linalg.vector_norm(g - mean.to(g.dtype), dtype=torch.float64).square()
    return torch.stack([mean * g.numel(), squares, *bins, *counts, low.double(), high.double()])


def host_statistics(g: Tensor) -> Tensor:
    """Return ``FIELDS`` of a flat float32 or float64 tensor in host memory, a few elements at a time.

    Operations on the entire tensor would allocate memory for each result, which costs more than reading it.
    """
    kind = g.numpy().dtype.type
    bounds = [kind(edge) for edge in (*_EDGES[g.dtype], np.inf, LARGE, 0)]
    room = torch.empty(min(CHUNK, g.numel()), dtype=g.dtype)
    counts, extremes = np.zeros(9), []
    with np.errstate(all="ignore"):
        mean, squares = float(g.mean(dtype=torch.float64)), 0.0
        for part in torch.split(g, CHUNK):
            numbers, free = part.numpy(), room[: len(part)]
            counts += _counts(numbers, free.numpy(), bounds)
            np.subtract(numbers, kind(mean), out=free.numpy())
            squares += float(torch.linalg.vector_norm(free, dtype=torch.float64)) ** 2
            extremes += [numbers.min(), numbers.max()]
        zero, *below, inf, large, positive, nan = counts.tolist()
        bins = [zero, below[0] - zero, *np.diff(below), g.numel() - nan - inf - below[3]]
        statistics = [mean * g.numel(), squares, *bins, nan, inf, large, positive, np.min(extremes), np.max(extremes)]
        return torch.tensor(np.array(statistics, np.float64))


def _counts(g: _Numbers, size: _Numbers, bounds: Sequence[Any]) -> list[int]:
    """Count zeros, those below each edge, Inf, large, positive, NaN; ``size`` is overwritten with the magnitudes."""
    *edges, infinite, large, zero = bounds
    np.abs(g, out=size)
    flags = [
        size == zero,
        *(size < edge for edge in edges),
        size == infinite,
        size > large,
        g > zero,
        np.isnan(g),
    ]
    return [int(np.count_nonzero(flag)) for flag in flags]


def _indicators(g: Tensor) -> Tensor:
    """Return [P, 10]: zero, the bins above it, NaN, Inf, large, positive."""
    size = g.abs()
    at_least = [size >= edge for edge in EDGES]
    infinite, nan = size == torch.inf, g.isnan()
    bins = [
        size == 0,
        (size > 0) & ~at_least[0],
        at_least[0] & ~at_least[1],
        at_least[1] & ~at_least[2],
        at_least[2] & ~at_least[3],
        at_least[3] & ~infinite,
    ]
    below = [(~nan) & flag for flag in bins]
    return torch.stack([*below, nan, infinite, size > LARGE, g > 0], dim=1).double()
