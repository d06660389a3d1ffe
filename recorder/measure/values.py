"""Value function, returns and advantages of one rollout, before the update."""

from __future__ import annotations

import torch
from torch import Tensor

LOW_VARIANCE = 1e-8
"""Below this Var(R) explained variance says nothing."""
TINY_STD = 1e-12
"""Below this standard deviation, relative to the largest magnitude, skewness and kurtosis are undefined."""

QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
MOMENTS = ("mean", "std", "min", "max", "skewness", "kurtosis")
FIELDS = (
    "explained_variance",
    "return_variance",
    "value_nrmse",
    "value_return_correlation",
    *(f"value_{name}" for name in MOMENTS),
    *(f"return_{name}" for name in MOMENTS),
    *(f"value_error_p{round(100 * q):02d}" for q in QUANTILES),
    "return_p10",
    "return_p50",
    "return_p90",
    "explained_variance_defined",
    "value_return_correlation_defined",
    "value_moments_defined",
    "return_moments_defined",
)
ADVANTAGE_FIELDS = (
    *(f"advantage_{name}" for name in MOMENTS),
    "advantage_positive_fraction",
    "advantage_moments_defined",
)


def value_statistics(values: Tensor, returns: Tensor) -> Tensor:
    """Return ``FIELDS`` for values and returns [N]; a ``_defined`` field of 0 says that its number is null."""
    values, returns = values.reshape(-1).double(), returns.reshape(-1).double()
    error = returns - values
    variance = returns.var(correction=0)
    error_variance = error.var(correction=0)
    value_std, return_std = values.std(correction=0), variance.sqrt()
    together = ((values - values.mean()) * (returns - returns.mean())).mean()
    varies = (variance != 0).double()
    value_moments, value_defined = _moments(values)
    return_moments, return_defined = _moments(returns)
    both = value_std * return_std
    return torch.cat(
        [
            torch.stack([1 - error_variance / variance, variance]),
            torch.stack([error.square().mean().sqrt() / return_std, together / both]),
            value_moments,
            return_moments,
            _quantiles(error, QUANTILES),
            _quantiles(returns, (0.1, 0.5, 0.9)),
            torch.stack([varies, (both != 0).double(), value_defined, return_defined]),
        ]
    )


def advantage_statistics(advantages: Tensor) -> Tensor:
    """Return ``ADVANTAGE_FIELDS`` for advantages [N] before normalisation."""
    advantages = advantages.reshape(-1).double()
    moments, defined = _moments(advantages)
    return torch.cat([moments, torch.stack([(advantages > 0).double().mean(), defined])])


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``MOMENTS`` of x (population; kurtosis in excess of the normal's 3) and whether the last two exist."""
    mean, std = x.mean(), x.std(correction=0)
    scaled = (x - mean) / std
    defined = ~(std <= TINY_STD * x.abs().amax())
    third, fourth = scaled.pow(3).mean(), scaled.pow(4).mean() - 3
    return torch.stack([mean, std, x.amin(), x.amax(), third, fourth]), defined.double()


def _quantiles(x: Tensor, quantiles: tuple[float, ...]) -> Tensor:
    """Return linearly interpolated quantiles; NaN when x holds a NaN."""
    ordered = x.sort().values
    broken = torch.where(x.isnan().any(), torch.nan, 0.0)
    picked = []
    for q in quantiles:
        place = q * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        picked.append(torch.lerp(ordered[low], ordered[high], place - low))
    return torch.stack(picked) + broken
