"""Probability ratios and KL from old and new log-probs: rows (the joint, then each head) × samples.

With log r = log π_new − log π_old: k1 = −log r, k2 = ½ log² r, k3 = r − 1 − log r estimate KL(old‖new) from
samples of the old policy (Schulman 2020, "Approximating KL divergence"). k3 is taken as expm1(log r) − log r.
"""

from __future__ import annotations

import torch
from torch import Tensor

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
)
"""Rows of what ``ratio_statistics`` returns, each over the counted samples of one minibatch."""


def log_ratios(joint: Tensor | None, heads: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return clamped and unclamped log-ratios, [1 + H, N], the joint first.

    ``heads`` is [H, N]; ``joint`` [N] is the framework's own joint log-ratio where it has one. The joint is the
    sum of the clamped heads; where no head met its clamp the framework's own number stands for that sum, so that
    it agrees with the framework to the last bit.
    """
    if heads is None:
        if joint is None:
            raise ValueError("either the joint log-ratio or the heads' must be given")
        raw = joint.unsqueeze(0)
        return raw.clamp(-JOINT_CLAMP, JOINT_CLAMP), raw
    held = heads.clamp(-HEAD_CLAMP, HEAD_CLAMP)
    total = held.sum(0)
    own = heads.sum(0) if joint is None else joint
    free = (held == heads).all(0)
    joined = torch.where(free, own, total).clamp(-JOINT_CLAMP, JOINT_CLAMP)
    return torch.cat([joined.unsqueeze(0), held]), torch.cat([own.unsqueeze(0), heads])


def ratio_statistics(held: Tensor, raw: Tensor, clip_range: float | Tensor | None, weight: Tensor | None) -> Tensor:
    """Return ``FIELDS`` × rows for clamped (``held``) and unclamped (``raw``) log-ratios [R, N].

    ``weight`` is a boolean [R, N] of samples that count (None: all). A row with count 0 holds NaN, to be read as
    null. Without a clip range the clip rows are NaN.
    """
    ratio = held.exp()
    mean = row_mean(ratio, weight)
    if clip_range is None:
        clip = positive = negative = torch.full_like(mean, torch.nan)
    else:
        clip = row_mean(((ratio - 1).abs() > clip_range).to(ratio.dtype), weight)
        positive = row_mean((ratio - 1 > clip_range).to(ratio.dtype), weight)
        negative = row_mean((1 - ratio > clip_range).to(ratio.dtype), weight)
    met = (held != raw) & ~raw.isnan()
    met = torch.cat([met.any(0, keepdim=True), met[1:]])
    rows = [
        row_count(held, weight),
        -row_mean(held, weight),
        row_mean(held.square(), weight) / 2,
        row_mean(held.expm1() - held, weight),
        mean,
        row_mean((ratio - mean.unsqueeze(1)).square(), weight),
        row_extreme(ratio, weight, largest=True),
        row_extreme(ratio, weight, largest=False),
        clip,
        positive,
        negative,
        row_sum((~raw.isfinite()).to(held.dtype), weight),
        row_sum(met.to(held.dtype), weight),
        row_extreme(raw.abs(), weight, largest=True),
    ]
    return torch.stack(rows)


def row_count(x: Tensor, weight: Tensor | None) -> Tensor:
    """Return how many samples of each row count."""
    if weight is None:
        return torch.full((x.shape[0],), float(x.shape[1]), dtype=x.dtype, device=x.device)
    return weight.sum(1).to(x.dtype)


def row_sum(x: Tensor, weight: Tensor | None) -> Tensor:
    """Return row sums over the samples that count."""
    return x.sum(1) if weight is None else torch.where(weight, x, 0.0).sum(1)


def row_mean(x: Tensor, weight: Tensor | None) -> Tensor:
    """Return row means over the samples that count; NaN where none does."""
    return x.mean(1) if weight is None else torch.where(weight, x, 0.0).sum(1) / weight.sum(1)


def row_extreme(x: Tensor, weight: Tensor | None, *, largest: bool) -> Tensor:
    """Return row maxima or minima over the samples that count; ∓Inf where none does. NaN wins over everything."""
    if weight is not None:
        x = torch.where(weight, x, -torch.inf if largest else torch.inf)
    return x.amax(1) if largest else x.amin(1)
