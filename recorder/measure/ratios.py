"""Probability ratios and KL from old and new log-probs: rows × minibatches × samples.

Rows are the joint, then each head.

With log r = log π_new − log π_old: k1 = −log r, k2 = ½ log² r, k3 = r − 1 − log r estimate KL(old‖new) from
samples of the old policy (Schulman 2020, "Approximating KL divergence"). k3 is taken as expm1(log r) − log r.

The last five fields are the moments from which the correlation of log r with the raw advantage follows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recorder.measure.joined import COVARIANCE, MAXIMUM, MEAN, MINIMUM, SUM, VARIANCE

HEAD_CLAMP = 20.0
"""A head's log-ratio is held within ±20: exp stays finite in float32 with room for products."""
JOINT_CLAMP = 30.0
"""The joint log-ratio is held within ±30."""

FIELDS = (
    "count",
    "k1",
    "k2",
    "k3",
    "ratio_mean",
    "ratio_var",
    "ratio_max",
    "ratio_min",
    "clip_fraction",
    "clip_positive",
    "clip_negative",
    "nonfinite",
    "clamped",
    "log_ratio_abs_max",
    "log_ratio_mean",
    "log_ratio_var",
    "advantage_mean",
    "advantage_var",
    "covariance",
    "used_mean",
    "used_var",
    "raw_mean",
    "raw_var",
    "used_covariance",
)
JOINS = dict.fromkeys(FIELDS, MEAN) | {
    "count": SUM,
    "ratio_var": VARIANCE,
    "ratio_max": MAXIMUM,
    "ratio_min": MINIMUM,
    "nonfinite": SUM,
    "clamped": SUM,
    "log_ratio_abs_max": MAXIMUM,
    "log_ratio_var": VARIANCE,
    "advantage_var": VARIANCE,
    "covariance": COVARIANCE,
    "used_var": VARIANCE,
    "raw_var": VARIANCE,
    "used_covariance": COVARIANCE,
}
"""Rows of what ``ratio_statistics`` returns, each over the counted samples of one minibatch."""


def log_ratios(joint: Tensor | None, heads: Tensor, relevant: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return clamped and unclamped log-ratios, [1 + H, ...], the joint first.

    ``heads`` is [H, ...]; ``joint`` [...] is the framework's own joint log-ratio where it has one; ``relevant`` is
    boolean [H, ...] (None: every head matters everywhere). The joint is the sum of the clamped heads that matter at
    that sample, 0 where none does; where none of these reached its clamp, the framework's own number replaces that sum,
    so that it agrees with the framework bit for bit.
    """
    clamped = heads.clamp(-HEAD_CLAMP, HEAD_CLAMP)
    total = joint_sum(clamped, relevant)
    unclamped = joint_sum(heads, relevant) if joint is None else joint
    free = clamped == heads if relevant is None else (clamped == heads) | ~relevant
    joined = torch.where(free.all(0), unclamped, total).clamp(-JOINT_CLAMP, JOINT_CLAMP)
    return torch.cat([joined.unsqueeze(0), clamped]), torch.cat([unclamped.unsqueeze(0), heads])


def joint_sum(heads: Tensor, relevant: Tensor | None) -> Tensor:
    """Return the sum [...] of ``heads`` [H, ...] over the heads that are ``relevant`` (None: all)."""
    return heads.sum(0) if relevant is None else torch.where(relevant, heads, 0.0).sum(0)


def ratio_statistics(
    clamped: Tensor,
    raw: Tensor,
    clip_range: float | Tensor | None,
    weight: Tensor | None,
    advantages: Tensor | None = None,
    used: Tensor | None = None,
    rounding: Tensor | float = 0.0,
) -> Tensor:
    """Return ``FIELDS`` × [R, M] for clamped (``clamped``) and unclamped (``raw``) log-ratios [R, M, N].

    R rows are the joint, then each head; M minibatches of N samples. ``weight`` is a boolean [R, M, N] of samples
    that count (None: all); a head that met its clamp counts in the joint row only where that head counts. A row with
    count 0 holds NaN, to be read as null. Without a clip range the clip rows are NaN. ``advantages``: raw ones [M, N];
    without them the moments are NaN, with them the result is float64. ``used``: those that the loss uses [M, N], for
    moments with the raw ones that are the same in every row; a standard deviation of the raw ones up to ``rounding``
    [M] counts as 0 in them.
    """
    ratio = clamped.exp()
    mean = mean_of(ratio, weight)
    if clip_range is None:
        clip = positive = negative = torch.full_like(mean, torch.nan)
    else:
        above, below = ratio - 1 > clip_range, 1 - ratio > clip_range
        positive, negative = mean_of(above.to(ratio.dtype), weight), mean_of(below.to(ratio.dtype), weight)
        clip = mean_of((above | below).to(ratio.dtype), weight)
    met = (clamped != raw) & ~raw.isnan()
    if weight is not None:
        met = met & weight
    met = torch.cat([met.any(0, keepdim=True), met[1:]])
    rows = [
        count_of(clamped, weight),
        -mean_of(clamped, weight),
        mean_of(clamped.square(), weight) / 2,
        mean_of(clamped.expm1() - clamped, weight),
        mean,
        mean_of((ratio - mean.unsqueeze(-1)).square(), weight),
        extreme_of(ratio, weight, largest=True),
        extreme_of(ratio, weight, largest=False),
        clip,
        positive,
        negative,
        sum_of((~raw.isfinite()).to(clamped.dtype), weight),
        sum_of(met.to(clamped.dtype), weight),
        extreme_of(raw.abs(), weight, largest=True),
    ]
    if advantages is None:
        return torch.stack([*rows, *[torch.full_like(mean, torch.nan)] * 10])
    moments = _moments(clamped, advantages, weight)
    if used is None:
        return torch.cat([torch.stack(rows).double(), moments, torch.full_like(moments, torch.nan)])
    of_used = _moments(used.unsqueeze(0), advantages, None if weight is None else weight[:1])
    of_used[3] = torch.where(of_used[3] <= rounding**2, 0.0, of_used[3])
    return torch.cat([torch.stack(rows).double(), moments, of_used.expand_as(moments)])


def _moments(log_ratio: Tensor, advantages: Tensor, weight: Tensor | None) -> Tensor:
    """Return means, population variances and covariance of log-ratios [R, M, N] and advantages [M, N]: [5, R, M].

    In float64: squares of large advantages do not overflow, and centred numbers keep their digits.
    """
    rows = 1 if weight is None else len(log_ratio)
    x, y = log_ratio.double(), advantages.double().expand(rows, *advantages.shape)
    x_mean, y_mean = mean_of(x, weight), mean_of(y, weight)
    x, y = x - x_mean.unsqueeze(-1), y - y_mean.unsqueeze(-1)
    moments = [x_mean, mean_of(x.square(), weight), y_mean, mean_of(y.square(), weight), mean_of(x * y, weight)]
    return torch.stack(torch.broadcast_tensors(*moments))


def count_of(x: Tensor, weight: Tensor | None) -> Tensor:
    """Return how many samples (last axis) count."""
    if weight is None:
        return torch.full(x.shape[:-1], float(x.shape[-1]), dtype=x.dtype, device=x.device)
    return weight.sum(-1).to(x.dtype)


def sum_of(x: Tensor, weight: Tensor | None) -> Tensor:
    """Return sums over the samples (last axis) that count."""
    return x.sum(-1) if weight is None else torch.where(weight, x, 0.0).sum(-1)


def mean_of(x: Tensor, weight: Tensor | None) -> Tensor:
    """Return means over the samples (last axis) that count; NaN where none does."""
    return x.mean(-1) if weight is None else torch.where(weight, x, 0.0).sum(-1) / weight.sum(-1)


def extreme_of(x: Tensor, weight: Tensor | None, *, largest: bool) -> Tensor:
    """Return maxima or minima over the samples (last axis) that count; ∓Inf where none does. NaN wins over all."""
    if weight is not None:
        x = torch.where(weight, x, -torch.inf if largest else torch.inf)
    return x.amax(-1) if largest else x.amin(-1)
