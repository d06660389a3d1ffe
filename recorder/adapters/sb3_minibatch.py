"""One SB3 minibatch as it passes by, and many of them measured together when the update ends.

The losses are taken by the same operations in the same order as in SB3's own ``train``, which keeps them in local
variables; agreement is exact and tested. Tensors are kept by reference: SB3 makes new ones for every minibatch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recorder.adapters.sb3_policy import PolicyLayout
from recorder.batch import Batch, Capture
from recorder.measure.entropy import categorical_entropy

ROWS_TOGETHER = 4096
"""Rows up to this long are averaged many at a time; torch splits longer ones among threads when they come alone."""


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """What SB3's loss depends on, as in effect for one minibatch."""

    clip_range: float
    clip_range_vf: float | None
    normalize_advantage: bool
    ent_coef: float
    vf_coef: float


@dataclass(frozen=True, slots=True)
class Sb3Capture:
    """One minibatch: what the buffer gave, and what ``evaluate_actions`` made of it (padding still in)."""

    layout: PolicyLayout
    settings: Hyperparameters
    indices: np.ndarray[Any, Any]
    data: Any
    starts: np.ndarray[Any, Any] | None  # sequence starts among the indices, where sequences are padded
    actions: Tensor
    values: Tensor
    log_prob: Tensor
    entropy: Tensor | None
    logits: tuple[Tensor, ...]  # per factored head
    old_heads: Callable[[], Tensor]  # rollout log-probs per head, [H, envs·steps]
    steps: int  # of one environment's rollout

    @property
    def samples(self) -> int:
        """Samples without padding."""
        return len(self.indices)

    @property
    def clip_range(self) -> float | None:
        """Ratio clip range in effect."""
        return self.settings.clip_range

    def shape(self) -> tuple[object, ...]:
        """Return what captures must share to be measured together."""
        return (Sb3Capture, len(self.indices), self.settings, self.entropy is None, self.starts is None)

    @staticmethod
    def together(captures: Sequence[Capture]) -> Batch:
        """Return captures of one shape as a batch."""
        return _batch([capture for capture in captures if isinstance(capture, Sb3Capture)])


def padding_index(starts: np.ndarray[Any, Any], samples: int, padded: int, device: torch.device) -> Tensor:
    """Return the positions of the ``samples`` among ``padded`` rows that are no padding.

    The sequence starts are known on the host, so no device is asked.
    """
    longest = padded // len(starts)
    lengths = np.diff(np.append(starts, samples))
    inside = np.arange(longest)[None, :] < lengths[:, None]
    return torch.as_tensor(np.flatnonzero(inside)).to(device, non_blocking=True)


class _Stacker:
    """Stacks the captures' tensors into rows [M, N], padding left out."""

    def __init__(self, captures: Sequence[Sb3Capture]) -> None:
        self.captures = captures
        self.keep = [_kept(capture) for capture in captures]

    def __call__(self, tensors: Sequence[Tensor]) -> Tensor:
        rows = [one if keep is None else one[keep] for one, keep in zip(tensors, self.keep, strict=True)]
        return torch.stack(rows)


def _kept(capture: Sb3Capture) -> Tensor | None:
    if capture.starts is None:
        return None
    padded = len(capture.data.advantages)
    return padding_index(capture.starts, len(capture.indices), padded, capture.log_prob.device)


def _batch(captures: Sequence[Sb3Capture]) -> Batch:
    first, stack = captures[0], _Stacker(captures)
    heads = first.layout.heads
    new, values = stack([one.log_prob for one in captures]), stack([one.values.flatten() for one in captures])
    old = stack([one.data.old_log_prob for one in captures])
    entropy = None if first.entropy is None else stack([one.entropy for one in captures if one.entropy is not None])
    index = torch.as_tensor(np.stack([one.indices for one in captures])).to(new.device, non_blocking=True)
    actions = stack([one.actions.reshape(len(one.actions), -1) for one in captures])
    heads_new, heads_old, heads_entropy = new.unsqueeze(0), old.unsqueeze(0), None
    if first.layout.factored:
        heads_new, heads_entropy = _head_tensors(captures, stack, actions)
        heads_old = first.old_heads()[:, index]
    elif entropy is not None:
        heads_entropy = entropy.unsqueeze(0)
    discrete = bool(first.layout.factored) or heads.kind(heads.names[0]) == "categorical"
    return Batch(
        heads=heads.names,
        log_prob=heads_new,
        old_log_prob=heads_old,
        joint_log_ratio=new - old,
        entropy=heads_entropy,
        joint_entropy=entropy,
        valid_actions=_valid_actions(captures, stack),
        all_categorical=len(heads.categorical) == len(heads.names),
        values=values,
        clip_range=first.clip_range,
        losses=losses_of(first.settings, stack, new, old, entropy, values),
        actions=actions.movedim(-1, 0) if discrete else None,
        advantages=stack([one.data.advantages for one in captures]),
        index=index,
        env=index // first.steps,
        step=index % first.steps,
    )


def _head_tensors(captures: Sequence[Sb3Capture], stack: _Stacker, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probs of the actions taken and entropies, each [H, M, N]."""
    chosen = actions.long()
    new, entropy = [], []
    for place in range(len(captures[0].logits)):
        logits = stack([one.logits[place] for one in captures])
        new.append(logits.gather(-1, chosen[..., place : place + 1]).squeeze(-1))
        entropy.append(categorical_entropy(logits))
    return torch.stack(new), torch.stack(entropy)


def _valid_actions(captures: Sequence[Sb3Capture], stack: _Stacker) -> Tensor | None:
    layout, first = captures[0].layout, captures[0]
    if not layout.heads.categorical:
        return None
    masks = getattr(first.data, "action_masks", None)
    if masks is None:
        shape = (len(captures), len(first.indices))
        sizes = [layout.heads.sizes[name] for name in layout.heads.categorical]
        return torch.stack([torch.full(shape, size, device=first.log_prob.device) for size in sizes])
    together = stack([one.data.action_masks.reshape(len(one.data.action_masks), -1) for one in captures]).bool()
    sizes = list(layout.factored or (together.shape[-1],))
    return torch.stack([part.sum(-1) for part in torch.split(together, sizes, dim=-1)])


def losses_of(
    settings: Hyperparameters, stack: _Stacker, new: Tensor, old: Tensor, entropy: Tensor | None, values: Tensor
) -> dict[str, Tensor]:
    """Return the losses of each minibatch [M] by name."""
    captures = stack.captures
    advantages, returns = stack([one.data.advantages for one in captures]), stack([c.data.returns for c in captures])
    if settings.normalize_advantage and advantages.shape[1] > 1:
        advantages = (advantages - _means(advantages).unsqueeze(1)) / (_stds(advantages).unsqueeze(1) + 1e-8)
    ratio = torch.exp(new - old)
    clipped = advantages * torch.clamp(ratio, 1 - settings.clip_range, 1 + settings.clip_range)
    policy_loss = -_means(torch.min(advantages * ratio, clipped))
    if settings.clip_range_vf is not None:
        bound, before = settings.clip_range_vf, stack([one.data.old_values for one in captures])
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


def _means(rows: Tensor) -> Tensor:
    """Return the mean of each row as torch would take it of that row alone."""
    return rows.mean(-1) if rows.shape[1] <= ROWS_TOGETHER else torch.stack([row.mean() for row in rows])


def _stds(rows: Tensor) -> Tensor:
    """Return the standard deviation of each row as torch would take it of that row alone (not so for very short)."""
    return rows.std(-1) if 8 <= rows.shape[1] <= ROWS_TOGETHER else torch.stack([row.std() for row in rows])
