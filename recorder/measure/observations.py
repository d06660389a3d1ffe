"""Observations of one rollout, feature by feature, beside those of the rollout before."""

from __future__ import annotations

import torch
from torch import Tensor

FEATURE_FIELDS = ("finite", "mean", "variance", "least", "most")
FIELDS = (
    "observation_mean",
    "observation_std",
    "observation_min",
    "observation_max",
    "observation_nonfinite_fraction",
    "observation_constant_fraction",
    "observation_shift",
)
DEFINED_FIELDS = ("any_finite", "shift_defined")


def feature_statistics(observations: Tensor) -> Tensor:
    """Return ``FEATURE_FIELDS`` [5, F] in float64 for observations [N, F], over the finite values of each feature.

    A feature without one has 0 finite values, and NaN.
    """
    x = observations.double()
    finite = x.isfinite()
    count = finite.sum(0)
    least = torch.where(finite, x, torch.inf).amin(0)
    most = torch.where(finite, x, -torch.inf).amax(0)
    mean = (torch.where(finite, x, 0.0).sum(0) / count).clamp(least, most)  # equal numbers have no spread
    variance = torch.where(finite, x - mean, 0.0).square().sum(0) / count
    nothing = torch.where(count > 0, 0.0, torch.nan)
    return torch.stack([count.double(), mean + nothing, variance + nothing, least + nothing, most + nothing])


def observation_statistics(now: Tensor, before: Tensor | None, steps: int) -> Tensor:
    """Return ``FIELDS`` and ``DEFINED_FIELDS`` for feature statistics [5, F] of ``steps`` timesteps.

    ``observation_shift``: the mean over features of the squared Hellinger distance between normal distributions with
    the mean and variance of each in ``before`` [5, F] and in ``now``, in [0, 1]: 1 − √(2σσ'∕(σ² + σ'²)) ·
    exp(−(μ − μ')² ∕ 4(σ² + σ'²)). Where both variances are 0 it is 0 for equal means, else 1. Features without finite
    values in either are left out.
    """
    finite, mean, variance, least, most = now
    known = finite > 0
    total = finite.sum()
    middle = torch.where(known, mean * finite, 0.0).sum() / total
    spread = torch.where(known, (variance + (mean - middle).square()) * finite, 0.0).sum() / total
    cells = [
        middle,
        spread.sqrt(),
        torch.where(known, least, torch.inf).amin(),
        torch.where(known, most, -torch.inf).amax(),
        1 - total / (steps * len(finite)),
        (~known | (least == most)).double().mean(),
    ]
    shift, defined = torch.full_like(total, torch.nan), torch.zeros_like(total)
    if before is not None:
        both = known & (before[0] > 0)
        distance = hellinger(mean, variance, before[1], before[2])
        shift = torch.where(both, distance, 0.0).sum() / both.sum()
        defined = both.any().double()
    return torch.stack([*cells, shift, (total > 0).double(), defined])


def hellinger(mean: Tensor, variance: Tensor, other_mean: Tensor, other_variance: Tensor) -> Tensor:
    """Return the squared Hellinger distances of normal distributions, each argument [F]."""
    together = variance + other_variance
    overlap = (2 * (variance * other_variance).sqrt() / together).sqrt()
    overlap = overlap * (-(mean - other_mean).square() / (4 * together)).exp()
    return torch.where(together > 0, 1 - overlap, (mean != other_mean).double())
