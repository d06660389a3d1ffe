"""Value function, returns and advantages of one rollout, before the update."""

from __future__ import annotations

import torch
from torch import Tensor

TINY_STD = 1e-12
"""Below this standard deviation, relative to the largest magnitude, skewness and kurtosis are undefined."""

QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
MOMENTS = ("mean", "std", "min", "max", "skewness", "kurtosis")
FIELDS = (
    "rollout_samples",
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
    "rollout_samples",
    *(f"advantage_{name}" for name in MOMENTS),
    "advantage_positive_fraction",
    "advantage_moments_defined",
)


TD_FIELDS = ("td_error_mean", "td_error_std", "bellman_error")


def td_errors(values: Tensor, rewards: Tensor, ends: Tensor, last_values: Tensor, gamma: float) -> Tensor:
    """Return r + γ·V(s') − V(s) of a rollout [T, B]; V(s') is 0 where the episode ended with that step.

    ``ends`` [T, B] is true there; ``last_values`` [B] are the values of the states after the last step.
    """
    ahead = torch.cat([values[1:], last_values.reshape(1, -1).to(values)])
    return rewards + gamma * ahead * (1 - ends.to(values.dtype)) - values


def td_statistics(errors: Tensor) -> Tensor:
    """Return ``TD_FIELDS`` for TD errors of any shape: mean, standard deviation (population), mean |error|."""
    errors = errors.reshape(-1).double()
    return torch.stack([errors.mean(), errors.std(correction=0), errors.abs().mean()])


def value_statistics(values: Tensor, returns: Tensor) -> Tensor:
    """Return ``FIELDS`` for values and returns [N]; a ``_defined`` field of 0 says that its number is null."""
    both = torch.stack([values.reshape(-1), returns.reshape(-1)]).double()
    error = both[1] - both[0]
    moments, defined, centred = _moments(both)
    value_std, return_std = moments[0, 1], moments[1, 1]
    variance = centred[1].square().mean()
    errors = torch.stack([error.var(correction=0), error.square().mean().sqrt()])
    together, spread = (centred[0] * centred[1]).mean(), value_std * return_std
    flags = torch.stack([variance != 0, spread != 0, *defined]).double()
    samples = variance.new_full((), values.numel())
    head = torch.stack([samples, 1 - errors[0] / variance, variance, errors[1] / return_std, together / spread])
    quantiles = _quantiles(torch.stack([error, both[1]]), QUANTILES)
    return torch.cat([head, moments.reshape(-1), quantiles[0], quantiles[1, 1:4], flags])


def advantage_statistics(advantages: Tensor) -> Tensor:
    """Return ``ADVANTAGE_FIELDS`` for advantages [N] before normalisation."""
    rows = advantages.reshape(1, -1).double()
    moments, defined, _ = _moments(rows)
    samples = rows.new_full((1,), rows.shape[1])
    return torch.cat([samples, moments[0], torch.stack([(rows > 0).double().mean(), defined[0].double()])])


def _moments(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``MOMENTS`` of each row, whether the last two exist, and the rows less their means.

    Moments are the population's; kurtosis is in excess of the normal's 3.
    """
    low, high = rows.aminmax(dim=-1, keepdim=True)
    mean = rows.mean(-1, keepdim=True).clamp(low, high)  # rounding must not give equal numbers a spread
    centred = rows - mean
    squares = centred.square()
    std = squares.mean(-1, keepdim=True).sqrt()
    scaled = centred / std
    third = (scaled * scaled.square()).mean(-1, keepdim=True)
    fourth = scaled.square().square().mean(-1, keepdim=True) - 3
    defined = ~(std <= TINY_STD * torch.maximum(high, -low)).squeeze(-1)
    return torch.cat([mean, std, low, high, third, fourth], dim=-1), defined, centred


def _quantiles(rows: Tensor, quantiles: tuple[float, ...]) -> Tensor:
    """Return linearly interpolated quantiles of each row; NaN where it holds a NaN."""
    ordered = rows.sort(dim=-1).values  # NaN comes last
    picked = []
    for q in quantiles:
        place = q * (rows.shape[-1] - 1)
        low = int(place)
        high = min(low + 1, rows.shape[-1] - 1)
        picked.append(torch.lerp(ordered[..., low], ordered[..., high], place - low))
    return torch.stack(picked, dim=-1) + torch.where(ordered[..., -1:].isnan(), torch.nan, 0.0)
