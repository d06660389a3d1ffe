"""What one ``Recorder.minibatch`` call hands over, copied at once: the loop may reuse its buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from recorder.batch import Batch, Capture, plain


@dataclass(frozen=True, slots=True)
class Sample:
    """One minibatch of N samples and H heads."""

    heads: tuple[str, ...]
    log_prob: Tensor  # [H, N]
    old_log_prob: Tensor  # [H, N]
    joint_log_ratio: Tensor | None = None
    entropy: Tensor | None = None
    joint_entropy: Tensor | None = None
    valid_actions: Tensor | None = None
    all_categorical: bool = True
    relevant: Tensor | None = None
    counted: Tensor | None = None
    values: Tensor | None = None
    clip_range: float | None = None
    losses: Mapping[str, Tensor | float] = field(default_factory=dict)
    actions: Tensor | None = None
    advantages: Tensor | None = None
    index: Tensor | None = None
    env: Tensor | None = None
    step: Tensor | None = None

    @property
    def samples(self) -> int:
        """Samples, padding included: where it lies is known on the device only."""
        return self.log_prob.shape[1]

    def shape(self) -> tuple[object, ...]:
        """Return what samples must share to be measured together."""
        there = tuple(getattr(self, name) is not None for name in _OPTIONAL)
        losses = tuple((name, isinstance(loss, Tensor)) for name, loss in self.losses.items())
        values = None if self.values is None else self.values.numel()
        return (Sample, self.log_prob.shape, self.log_prob.device, there, values, losses, self.clip_range)

    @staticmethod
    def together(captures: Sequence[Capture]) -> Batch:
        """Return samples of one shape as a batch."""
        samples = [capture for capture in captures if isinstance(capture, Sample)]
        first = samples[0]
        optional: dict[str, Any] = {}
        for name in _OPTIONAL:
            tensors = [getattr(sample, name) for sample in samples]
            optional[name] = None if tensors[0] is None else torch.stack(tensors, dim=tensors[0].dim() - 1)
        return Batch(
            heads=first.heads,
            log_prob=plain(torch.stack([sample.log_prob for sample in samples], dim=1)),
            old_log_prob=plain(torch.stack([sample.old_log_prob for sample in samples], dim=1)),
            all_categorical=first.all_categorical,
            clip_range=first.clip_range,
            losses={name: _cells([sample.losses[name] for sample in samples]) for name in first.losses},
            **{name: _plain_float(tensor) for name, tensor in optional.items()},
        )


_OPTIONAL = (
    "joint_log_ratio",
    "entropy",
    "joint_entropy",
    "valid_actions",
    "relevant",
    "counted",
    "values",
    "actions",
    "advantages",
    "index",
    "env",
    "step",
)


def _plain_float(tensor: Tensor | None) -> Tensor | None:
    return tensor if tensor is None or not tensor.is_floating_point() else plain(tensor)


def _cells(losses: Sequence[Tensor | float]) -> Tensor:
    tensors = [loss.reshape(()) for loss in losses if isinstance(loss, Tensor)]
    return torch.stack(tensors) if tensors else torch.tensor(losses, dtype=torch.float64)
