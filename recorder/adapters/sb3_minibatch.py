"""The losses of an SB3 minibatch, by the same operations in the same order as SB3's own ``train``.

They are taken again because ``train`` keeps them in local variables; agreement is exact and tested.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class MinibatchLosses:
    """One minibatch without padding: inputs [N] and the losses as SB3 computes them."""

    log_prob: Tensor
    old_log_prob: Tensor
    entropy: Tensor | None
    values: Tensor
    clip_range: float
    policy_loss: Tensor
    value_loss: Tensor
    entropy_loss: Tensor
    loss: Tensor


def padding_index(buffer: Any, data: Any, samples: int, device: torch.device) -> Tensor | None:
    """Return the positions of the ``samples`` that are no padding, None where nothing is padded.

    The sequence starts are known on the host, so no device is asked.
    """
    starts = getattr(buffer, "seq_start_indices", None)
    if getattr(data, "mask", None) is None or starts is None:
        return None
    longest = len(data.advantages) // len(starts)
    lengths = np.diff(np.append(starts, samples))
    inside = np.arange(longest)[None, :] < lengths[:, None]
    return torch.as_tensor(np.flatnonzero(inside)).to(device, non_blocking=True)


def losses_of(
    model: Any, data: Any, values: Tensor, log_prob: Tensor, entropy: Tensor | None, keep: Tensor | None
) -> MinibatchLosses:
    """Return the losses of one minibatch; ``keep`` indexes what is no padding."""
    advantages, returns, old_values = data.advantages, data.returns, data.old_values
    old_log_prob = data.old_log_prob
    if keep is not None:
        advantages, returns, old_values = advantages[keep], returns[keep], old_values[keep]
        old_log_prob, values, log_prob = old_log_prob[keep], values[keep], log_prob[keep]
        entropy = None if entropy is None else entropy[keep]
    clip_range = float(model.clip_range(model._current_progress_remaining))
    if model.normalize_advantage and len(advantages) > 1:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    ratio = torch.exp(log_prob - old_log_prob)
    clipped = advantages * torch.clamp(ratio, 1 - clip_range, 1 + clip_range)
    policy_loss = -torch.min(advantages * ratio, clipped).mean()
    predicted = values
    if model.clip_range_vf is not None:
        bound = model.clip_range_vf(model._current_progress_remaining)
        predicted = old_values + torch.clamp(values - old_values, -bound, bound)
    recurrent = keep is not None
    value_loss = torch.mean((returns - predicted) ** 2) if recurrent else functional.mse_loss(returns, predicted)
    entropy_loss = torch.mean(log_prob) if entropy is None else -torch.mean(entropy)
    loss = policy_loss + model.ent_coef * entropy_loss + model.vf_coef * value_loss
    return MinibatchLosses(
        log_prob, old_log_prob, entropy, values, clip_range, policy_loss, value_loss, entropy_loss, loss
    )
