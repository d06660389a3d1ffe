"""Standard deviations of Gaussian heads."""

from __future__ import annotations

import torch
from torch import Tensor

from recorder.measure.ratios import extreme_of, mean_of

STD_FIELDS = ("std_min", "std_mean", "std_max", "std_nonpositive", "std_min_dimension")
"""Rows of what ``std_statistics`` returns."""


def std_statistics(std: Tensor, counted: Tensor | None) -> Tensor:
    """Return ``STD_FIELDS`` × [M] of standard deviations [M, N, A], or [M, 1, A] where all samples have the same.

    ``counted``: boolean [M, N], False on padding; None counts all. NaN is the smallest of all, and not positive.
    """
    by_dimension = std.movedim(-1, 1)
    weight = None if counted is None or std.shape[1] == 1 else counted.unsqueeze(1).expand(by_dimension.shape)
    smallest, dimension = extreme_of(by_dimension, weight, largest=False).min(-1)
    return torch.stack(
        [
            smallest,
            mean_of(by_dimension, weight).mean(-1),
            extreme_of(by_dimension, weight, largest=True).amax(-1),
            mean_of((~(by_dimension > 0)).to(std.dtype), weight).mean(-1),
            dimension.to(std.dtype),
        ]
    )
