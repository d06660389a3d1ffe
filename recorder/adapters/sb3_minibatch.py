"""Capture of SB3 minibatches, measured together when the update ends.

The losses are computed by the same operations in the same order as in SB3's own ``train``, which keeps them in local
variables; agreement is exact and tested. Tensors are kept by reference: SB3 creates new ones for every minibatch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recorder.adapters.sb3_policy import PolicyLayout
from recorder.capture.batch import Capture, CaptureBatch
from recorder.measure.entropy import categorical_entropy

ROWS_TOGETHER = 4096
"""Rows up to this length are averaged together; torch splits longer single rows among threads."""


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """Inputs of SB3's loss in effect for one minibatch."""

    clip_range: float
    clip_range_vf: float | None
    normalize_advantage: bool
    ent_coef: float
    vf_coef: float


class RolloutRows:
    """The rollout of one update in SB3's buffer, one row a timestep; minibatches index into it.

    Read when the update ends; ``old_heads`` returns the rollout's log-probs per head [H, envs·steps].
    """

    def __init__(self, buffer: Any, old_heads: Callable[[], Tensor], device: torch.device) -> None:
        self.buffer, self.old_heads, self.device = buffer, old_heads, device
        self.steps, self.envs = int(buffer.buffer_size), int(buffer.n_envs)

    def __call__(self, name: str) -> Tensor:
        """Return an array of the buffer as SB3's minibatches have it, [envs·steps] or [envs·steps, k]."""
        rows = getattr(self.buffer, name)
        if len(rows) != self.steps * self.envs:  # never sampled from, so never flattened
            rows = rows.swapaxes(0, 1)
        return torch.as_tensor(rows.reshape(self.steps * self.envs, -1)).to(self.device, non_blocking=True)

    def scalars(self, name: str) -> Tensor:
        """Return an array of the buffer that has one number a timestep."""
        return self(name)[:, 0]


@dataclass(slots=True)
class Sb3Capture:
    """One minibatch: its rows of the buffer, and the outputs of ``evaluate_actions`` (padding included)."""

    layout: PolicyLayout
    settings: Hyperparameters
    rollout: RolloutRows
    indices: np.ndarray[Any, Any]
    starts: np.ndarray[Any, Any] | None  # sequence starts among the indices, where sequences are padded
    values: Tensor
    log_prob: Tensor
    entropy: Tensor | None
    logits: tuple[Tensor, ...]  # per factored head
    std: Tensor | None = None  # [padded rows, dimensions] of a Gaussian head

    @property
    def samples(self) -> int:
        """Samples without padding."""
        return len(self.indices)

    @property
    def clip_range(self) -> float | None:
        """Ratio clip range in effect."""
        return self.settings.clip_range

    def shape(self) -> tuple[object, ...]:
        """Return the key that captures must share to be measured together."""
        return (
            Sb3Capture,
            len(self.indices),
            id(self.settings),
            self.entropy is None,
            self.starts is None,
            self.std is None,
        )

    @staticmethod
    def together(captures: Sequence[Capture]) -> CaptureBatch:
        """Return captures of one shape as a batch."""
        return _batch([capture for capture in captures if isinstance(capture, Sb3Capture)])


def padding_index(starts: np.ndarray[Any, Any], samples: int, padded: int, device: torch.device) -> Tensor:
    """Return the indices of the ``samples`` among ``padded`` rows that are not padding.

    The sequence starts are known on the host, so no device is read.
    """
    longest = padded // len(starts)
    lengths = np.diff(np.append(starts, samples))
    inside = np.arange(longest)[None, :] < lengths[:, None]
    return torch.as_tensor(np.flatnonzero(inside)).to(device, non_blocking=True)


class _Stacker:
    """Stacks the network's outputs of all captures into rows [M, N] without padding."""

    def __init__(self, captures: Sequence[Sb3Capture]) -> None:
        self.keep = [_unpadded_positions(capture) for capture in captures]
        self.padded = any(keep is not None for keep in self.keep)

    def __call__(self, tensors: Sequence[Tensor]) -> Tensor:
        if self.padded:
            tensors = [
                tensor if keep is None else tensor[keep] for tensor, keep in zip(tensors, self.keep, strict=True)
            ]
        return torch.stack(list(tensors))


def _unpadded_positions(capture: Sb3Capture) -> Tensor | None:
    if capture.starts is None:
        return None
    return padding_index(capture.starts, len(capture.indices), len(capture.log_prob), capture.log_prob.device)


def _batch(captures: Sequence[Sb3Capture]) -> CaptureBatch:
    first, stack = captures[0], _Stacker(captures)
    heads, rollout = first.layout.heads, first.rollout
    new, values = (
        stack([capture.log_prob for capture in captures]),
        stack([capture.values for capture in captures]).squeeze(-1),
    )
    index = torch.as_tensor(np.stack([capture.indices for capture in captures])).to(new.device, non_blocking=True)
    old, actions = rollout.scalars("log_probs")[index], rollout("actions")[index]
    entropy = (
        None
        if first.entropy is None
        else stack([capture.entropy for capture in captures if capture.entropy is not None])
    )
    heads_new, heads_old, heads_entropy = new.unsqueeze(0), old.unsqueeze(0), None
    if first.layout.factored:
        heads_new, heads_entropy = _head_tensors(captures, stack, actions)
        heads_old = rollout.old_heads()[:, index]
    elif entropy is not None:
        heads_entropy = entropy.unsqueeze(0)
    discrete = bool(first.layout.factored) or heads.kind(heads.names[0]) == "categorical"
    advantages = rollout.scalars("advantages")[index]
    return CaptureBatch(
        heads=heads.names,
        log_prob=heads_new,
        old_log_prob=heads_old,
        joint_log_ratio=new - old,
        entropy=heads_entropy,
        joint_entropy=entropy,
        valid_actions=_valid_actions(first.layout, rollout, index),
        all_categorical=len(heads.categorical) == len(heads.names),
        values=values,
        clip_range=first.clip_range,
        losses=losses_of(first, advantages, index, new, old, entropy, values),
        losses_recomputed=True,
        std={} if first.std is None else {heads.names[0]: stack([one.std for one in captures if one.std is not None])},
        actions=actions.movedim(-1, 0) if discrete else None,
        advantages=advantages,
        returns=rollout.scalars("returns")[index],
        old_values=rollout.scalars("values")[index],
        index=index,
        env=index // rollout.steps,
        step=index % rollout.steps,
    )


def _head_tensors(captures: Sequence[Sb3Capture], stack: _Stacker, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probs of the chosen actions, and entropies, each [H, M, N]."""
    chosen = actions.long()
    new, entropy = [], []
    for head in range(len(captures[0].logits)):
        logits = stack([capture.logits[head] for capture in captures])
        new.append(logits.gather(-1, chosen[..., head : head + 1]).squeeze(-1))
        entropy.append(categorical_entropy(logits))
    return torch.stack(new), torch.stack(entropy)


def _valid_actions(layout: PolicyLayout, rollout: RolloutRows, index: Tensor) -> Tensor | None:
    if not layout.heads.categorical:
        return None
    if getattr(rollout.buffer, "action_masks", None) is None:
        sizes = [layout.heads.sizes[name] for name in layout.heads.categorical]
        return torch.stack([torch.full(index.shape, size, device=index.device) for size in sizes])
    masks = rollout("action_masks").bool()
    parts = torch.split(masks, list(layout.factored or (masks.shape[-1],)), dim=-1)
    return torch.stack([part.sum(-1) for part in parts])[:, index]


def losses_of(
    first: Sb3Capture,
    advantages: Tensor,
    index: Tensor,
    new: Tensor,
    old: Tensor,
    entropy: Tensor | None,
    values: Tensor,
) -> dict[str, Tensor]:
    """Return the losses of each minibatch [M] by name; all inputs are [M, N]."""
    settings, rollout = first.settings, first.rollout
    returns = rollout.scalars("returns")[index]
    if settings.normalize_advantage and advantages.shape[1] > 1:
        advantages = (advantages - _means(advantages).unsqueeze(1)) / (_stds(advantages).unsqueeze(1) + 1e-8)
    ratio = torch.exp(new - old)
    clipped = advantages * torch.clamp(ratio, 1 - settings.clip_range, 1 + settings.clip_range)
    policy_loss = -_means(torch.min(advantages * ratio, clipped))
    if settings.clip_range_vf is not None:
        bound, before = settings.clip_range_vf, rollout.scalars("values")[index]
        values = before + torch.clamp(values - before, -bound, bound)
    value_loss = _means((returns - values) ** 2)
    entropy_loss = _means(new) if entropy is None else -_means(entropy)
    loss = policy_loss + settings.ent_coef * entropy_loss + settings.vf_coef * value_loss
    return {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy_loss": entropy_loss,
        "total_loss": loss,
    }


def separate_losses(capture: Sb3Capture, values: Tensor, log_prob: Tensor, entropy: Tensor | None) -> dict[str, Tensor]:
    """Return the losses of one minibatch by name, to be differentiated one by one."""
    with torch.enable_grad():
        stack = _Stacker([capture])
        new, value = stack([log_prob]), stack([values]).squeeze(-1)
        index = torch.as_tensor(capture.indices[None]).to(new.device, non_blocking=True)
        rollout = capture.rollout
        old, advantages = rollout.scalars("log_probs")[index], rollout.scalars("advantages")[index]
        entropies = None if entropy is None else stack([entropy])
        return {
            name: loss.sum() for name, loss in losses_of(capture, advantages, index, new, old, entropies, value).items()
        }


def _means(rows: Tensor) -> Tensor:
    """Return the mean of each row, equal to torch's mean of the single row."""
    return rows.mean(-1) if rows.shape[1] <= ROWS_TOGETHER else torch.stack([row.mean() for row in rows])


def _stds(rows: Tensor) -> Tensor:
    """Return the standard deviation of each row, equal to torch's of the single row (very short rows are separate)."""
    return rows.std(-1) if 8 <= rows.shape[1] <= ROWS_TOGETHER else torch.stack([row.std() for row in rows])
