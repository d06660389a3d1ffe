"""What the losses of minibatches should be by PPO's formulas."""

from __future__ import annotations

import torch
from torch import Tensor

from recorder.measure.ratios import sum_of

EXPECTED = ("surrogate_loss", "surrogate_size", "squared_error")
"""−mean(min(r·A, clip(r)·A)) and mean |r·A| (Schulman et al. 2017, equation 7), and mean (V − R)²."""


def surrogate_terms(log_ratio: Tensor, advantages: Tensor, clip_range: float) -> list[Tensor]:
    """Return −min(r·A, clip(r)·A) and |r·A| of each sample, in float64; all [M, N]."""
    ratio, advantages = log_ratio.double().exp(), advantages.double()
    moved, clipped = ratio * advantages, ratio.clamp(1 - clip_range, 1 + clip_range) * advantages
    return [-torch.minimum(moved, clipped), moved.abs()]


def sums_and_count(terms: list[Tensor], counted: Tensor | None) -> Tensor:
    """Return the sums of each of K terms [M, N] over the samples that count, and how many do: [K + 1, M]."""
    return sum_of(torch.stack([*terms, torch.ones_like(terms[0])]), counted)
