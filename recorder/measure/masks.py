"""Action masks: how much choice the heads had over the rollout, each timestep once."""

from __future__ import annotations

import torch
from torch import Tensor

FIELDS = ("steps", "minimum", "mean", "maximum", "single", "learnable", "relevant", "effective")
"""Rows of what ``mask_statistics`` returns: steps, valid actions per step, then shares of steps."""


def mask_statistics(valid_actions: Tensor, relevant: Tensor | None) -> Tensor:
    """Return ``FIELDS`` × heads for valid actions [H, N] and causal masks [H, N] (None: not passed, rows NaN)."""
    counts = valid_actions.to(torch.float64)
    choice = (valid_actions > 1).to(torch.float64)
    nothing = torch.full_like(counts[:, 0], torch.nan)
    rows = [
        torch.full_like(nothing, counts.shape[1]),
        counts.amin(1),
        counts.mean(1),
        counts.amax(1),
        (valid_actions == 1).to(torch.float64).mean(1),
        choice.mean(1),
        nothing if relevant is None else relevant.to(torch.float64).mean(1),
        nothing if relevant is None else (choice * relevant).mean(1),
    ]
    return torch.stack(rows)
