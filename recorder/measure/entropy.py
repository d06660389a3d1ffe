"""Entropy of the joint action and of each head, in nats and against the choice the masks left."""

from __future__ import annotations

import torch
from torch import Tensor

from recorder.measure.ratios import row_count, row_extreme, row_mean, row_sum

JOINT_FIELDS = ("count", "entropy", "choices", "norm_sum")
"""What ``joint_entropy`` returns: samples, mean entropy, samples with a choice, Σ H / Σ_h ln n_valid over those."""

HEAD_FIELDS = ("count", "entropy", "choices", "conditional_sum", "norm_sum", "log_prob_min", "log_prob_max")
"""Rows of what ``head_entropy`` returns; the sums run over samples where the head has a choice."""


def joint_entropy(entropy: Tensor, valid_actions: Tensor | None) -> Tensor:
    """Return ``JOINT_FIELDS`` for joint entropies [N] and valid actions per head [H, N] (None: not categorical)."""
    rows = entropy.unsqueeze(0)
    count, mean = row_count(rows, None), row_mean(rows, None)
    if valid_actions is None:
        nothing = torch.full_like(mean, torch.nan)
        return torch.cat([count, mean, nothing, nothing])
    room = valid_actions.clamp(min=1).to(entropy.dtype).log().sum(0)
    choice = (valid_actions > 1).any(0)
    share = torch.where(choice, entropy / torch.where(choice, room, 1.0), 0.0)
    return torch.cat([count, mean, choice.sum().to(mean.dtype).unsqueeze(0), share.sum().unsqueeze(0)])


def head_entropy(entropy: Tensor | None, log_prob: Tensor, valid_actions: Tensor | None) -> Tensor:
    """Return ``HEAD_FIELDS`` × heads for entropies, new log-probs and valid actions, each [H, N].

    Missing inputs leave NaN, to be read as null.
    """
    nothing = torch.full((log_prob.shape[0],), torch.nan, dtype=log_prob.dtype, device=log_prob.device)
    extremes = [row_extreme(log_prob, None, largest=False), row_extreme(log_prob, None, largest=True)]
    if entropy is None:
        return torch.stack([row_count(log_prob, None), *([nothing] * 4), *extremes])
    mean = row_mean(entropy, None)
    if valid_actions is None:
        return torch.stack([row_count(entropy, None), mean, *([nothing] * 3), *extremes])
    choice = valid_actions > 1
    room = torch.where(choice, valid_actions.to(entropy.dtype), torch.e).log()
    held = [choice.sum(1).to(mean.dtype), row_sum(entropy, choice), row_sum(entropy / room, choice)]
    return torch.stack([row_count(entropy, None), mean, *held, *extremes])


def categorical_entropy(logits: Tensor) -> Tensor:
    """Return the entropy of normalised log-probs [..., K]; actions masked to −1e8 or −Inf add exactly 0."""
    entropy: Tensor = torch.special.entr(logits.exp()).sum(-1)
    return entropy
