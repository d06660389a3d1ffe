"""Statistics over the elements of gradients: moments, extremes, magnitude histogram, signs; per atom of the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

EDGES = (1e-6, 1e-4, 1e-2, 1.0)
"""Where the bins of the magnitude histogram meet; a value on an edge belongs to the bin above."""
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


def segments(sizes: Sequence[int], device: torch.device) -> Tensor:
    """Return which segment each element of a flat tensor belongs to, for segments of these sizes."""
    index = torch.arange(len(sizes), device=device)
    return index.repeat_interleave(torch.tensor(sizes).to(device, non_blocking=True), output_size=sum(sizes))


def element_statistics(flat: Tensor, segment: Tensor, count: int) -> Tensor:
    """Return ``FIELDS`` [count, F] in float64 for the segments of a flat tensor [P]; ``segment`` [P] numbers them."""
    g = flat.double()
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
    below = [(~nan) & one for one in bins]
    return torch.stack([*below, nan, infinite, size > LARGE, g > 0], dim=1).double()
