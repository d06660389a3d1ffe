"""Direction of gradients: alignment of minibatches, of updates, of losses; and how far parameters moved.

All are sums over the elements of an atom, so that the host can combine any group of atoms.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recorder.measure.elements import Segments

MOST_ELEMENTS = 1 << 16
"""A larger tensor is represented by at most this many evenly spaced elements in directions and ‖Δθ‖/‖θ‖."""


def spacing(elements: int) -> int:
    """Return n where ``thinned`` takes every n-th element of a tensor with this many."""
    return max(-(-elements // MOST_ELEMENTS), 1)


def thinned(tensor: Tensor) -> Tensor:
    """Return all elements [E], or evenly spaced ones of a tensor with more than ``MOST_ELEMENTS``; a copy."""
    flat = tensor.detach().reshape(-1)
    return flat[:: spacing(flat.numel())].clone()


def squares_by_segment(vectors: Tensor, segments: Segments) -> Tensor:
    """Return Σ x² [K, segments] over the segments of vectors [K, P], in float64."""
    return dots_by_segment(vectors, vectors, segments)


def dots_by_segment(a: Tensor, b: Tensor, segments: Segments) -> Tensor:
    """Return Σ a·b [K, segments] over the segments of vectors [K, P], in float64."""
    if a.device.type == "cpu":  # segment by segment: index_add costs ten times as much
        parts = [torch.split(vectors, list(segments.sizes), dim=1) for vectors in (a, b)]
        return torch.stack([(x.double() * y.double()).sum(1) for x, y in zip(*parts, strict=True)], dim=1)
    products = a.double() * b.double()
    return products.new_zeros((len(products), len(segments.sizes))).index_add_(1, segments.index, products)


def mean_vector(vectors: Tensor) -> Tensor:
    """Return the mean [P] of vectors [K, P] in float64."""
    return vectors.mean(0, dtype=torch.float64)
