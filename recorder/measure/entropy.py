"""Entropy of the joint action and of each head, in nats and relative to the valid actions."""

from __future__ import annotations

import torch
from torch import Tensor

from recorder.measure.joined import MAXIMUM, MEAN, MINIMUM, SUM
from recorder.measure.ratios import count_of, extreme_of, mean_of, sum_of

JOINT_FIELDS = ("count", "entropy", "choices", "norm_sum")
"""What ``joint_entropy`` returns: samples, mean entropy, samples with a choice, Σ H / Σ_h ln n_valid over those."""

HEAD_FIELDS = (
    "count",
    "entropy",
    "choices",
    "conditional_sum",
    "norm_sum",
    "log_prob_min",
    "log_prob_max",
    "entropy_min",
    "entropy_max",
)
"""Rows of what ``head_entropy`` returns; the sums run over samples where the head has a choice."""

JOINT_JOINS = {"count": SUM, "entropy": MEAN, "choices": SUM, "norm_sum": SUM}
HEAD_JOINS = JOINT_JOINS | {
    "conditional_sum": SUM,
    "entropy_min": MINIMUM,
    "entropy_max": MAXIMUM,
    "log_prob_min": MINIMUM,
    "log_prob_max": MAXIMUM,
}


def joint_entropy(entropy: Tensor, valid_actions: Tensor | None, counted: Tensor | None) -> Tensor:
    """Return ``JOINT_FIELDS`` × [M] for joint entropies [M, N] and valid actions [H, M, N] (None: not categorical).

    ``counted``: boolean [M, N], False on padding; None counts all.
    """
    count, mean = count_of(entropy, counted), mean_of(entropy, counted)
    if valid_actions is None:
        nothing = torch.full_like(mean, torch.nan)
        return torch.stack([count, mean, nothing, nothing])
    room = valid_actions.clamp(min=1).to(entropy.dtype).log().sum(0)
    choice = _counted((valid_actions > 1).any(0), counted)
    share = torch.where(choice, entropy / torch.where(choice, room, 1.0), 0.0)
    return torch.stack([count, mean, choice.sum(-1).to(mean.dtype), share.sum(-1)])


def head_entropy(
    entropy: Tensor | None, log_prob: Tensor, valid_actions: Tensor | None, counted: Tensor | None
) -> Tensor:
    """Return ``HEAD_FIELDS`` × [H, M] for entropies, new log-probs and valid actions, each [H, M, N].

    ``counted``: boolean [M, N], False on padding; None counts all. NaN for missing inputs, read as null.
    """
    weight = None if counted is None else counted.expand(log_prob.shape)
    extremes = [extreme_of(log_prob, weight, largest=False), extreme_of(log_prob, weight, largest=True)]
    nothing = torch.full_like(extremes[0], torch.nan)
    if entropy is None:
        return torch.stack([count_of(log_prob, weight), *([nothing] * 4), *extremes, nothing, nothing])
    extremes += [extreme_of(entropy, weight, largest=False), extreme_of(entropy, weight, largest=True)]
    mean = mean_of(entropy, weight)
    if valid_actions is None:
        return torch.stack([count_of(entropy, weight), mean, *([nothing] * 3), *extremes])
    choice = _counted(valid_actions > 1, counted)
    room = torch.where(choice, valid_actions.to(entropy.dtype), torch.e).log()
    sums = [choice.sum(-1).to(mean.dtype), sum_of(entropy, choice), sum_of(entropy / room, choice)]
    return torch.stack([count_of(entropy, weight), mean, *sums, *extremes])


def _counted(choice: Tensor, counted: Tensor | None) -> Tensor:
    return choice if counted is None else choice & counted


def categorical_entropy(logits: Tensor) -> Tensor:
    """Return the entropy of normalised log-probs [..., K]; actions masked to −1e8 or −Inf add exactly 0."""
    entropy: Tensor = torch.special.entr(logits.exp()).sum(-1)
    return entropy
