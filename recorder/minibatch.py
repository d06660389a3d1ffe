"""Minibatches handed over by the loop, measured many at a time: the cost of an operation is paid once for all.

What a minibatch hands over is kept by reference until the update ends (or until ``KEEP_ELEMENTS`` are kept), then
minibatches of one shape are stacked and measured together. Nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from recorder.measure import entropy as entropies
from recorder.measure import ratios

LOSSES = ("policy_loss", "value_loss", "entropy_loss", "total_loss")
KEEP_ELEMENTS = 1 << 22
"""Log-probs kept by reference before they are measured, over all minibatches and heads."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one minibatch hands over, padding left out; log-probs and entropies are [N] per head."""

    heads: tuple[str, ...]
    log_prob: Mapping[str, Tensor]
    old_log_prob: Mapping[str, Tensor]
    joint_log_ratio: Tensor | None = None
    entropy: Mapping[str, Tensor] | None = None
    joint_entropy: Tensor | None = None
    valid_actions: Tensor | None = None  # [H, N], 0 for a head that is not categorical
    all_categorical: bool = True
    relevant: Mapping[str, Tensor] | None = None
    values: Tensor | None = None
    clip_range: float | None = None
    losses: Mapping[str, Tensor | float] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """Number of samples."""
        return self.log_prob[self.heads[0]].numel()

    def shape(self) -> tuple[object, ...]:
        """Return what minibatches must share to be measured together."""
        first = self.log_prob[self.heads[0]]
        given = (self.joint_log_ratio, self.entropy, self.joint_entropy, self.valid_actions, self.values)
        there = tuple(one is not None for one in given)
        relevant = tuple(self.relevant or ())
        size = None if self.values is None else self.values.numel()
        losses = tuple((name, isinstance(loss, Tensor)) for name, loss in self.losses.items())
        return (first.numel(), first.device, there, relevant, size, losses, self.clip_range, self.all_categorical)

    def kept(self, keep: Tensor) -> Sample:
        """Return the sample without its padding; ``keep`` is boolean [N]."""
        place = keep.reshape(-1).nonzero(as_tuple=True)[0]
        return Sample(
            self.heads,
            _picked(self.log_prob, place),
            _picked(self.old_log_prob, place),
            None if self.joint_log_ratio is None else self.joint_log_ratio.reshape(-1)[place],
            None if self.entropy is None else _picked(self.entropy, place),
            None if self.joint_entropy is None else self.joint_entropy.reshape(-1)[place],
            None if self.valid_actions is None else self.valid_actions[:, place],
            self.all_categorical,
            None if self.relevant is None else _picked(self.relevant, place),
            self.values,
            self.clip_range,
            self.losses,
        )


def _picked(tensors: Mapping[str, Tensor], place: Tensor) -> dict[str, Tensor]:
    return {name: tensor.reshape(-1)[place] for name, tensor in tensors.items()}


@dataclass(frozen=True, slots=True)
class Measurements:
    """Minibatches measured together: ``packed`` [cells, M] holds what ``layout`` names, one after the other."""

    packed: Tensor
    layout: tuple[tuple[str, tuple[int, ...]], ...]
    sources: tuple[str, ...]  # names of the counts under "nonfinite"
    losses: tuple[str, ...]  # names of the numbers under "losses"
    count: int
    entropy_known: bool
    choices_known: bool
    joint_choices_known: bool


def measure(samples: Sequence[Sample]) -> Measurements:
    """Return the device scalars of minibatches that share a ``shape``."""
    first, m = samples[0], len(samples)
    new = _stacked(samples, [sample.log_prob for sample in samples])
    old = _stacked(samples, [sample.old_log_prob for sample in samples])
    entropy = None
    if first.entropy is not None:
        entropy = _stacked(samples, [sample.entropy or {} for sample in samples])
    joint = _rows([sample.joint_log_ratio for sample in samples])
    total = _rows([sample.joint_entropy for sample in samples])
    if total is None and entropy is not None:
        total = entropy.sum(0)
    valid = None
    if first.valid_actions is not None:
        valid = torch.stack([s.valid_actions for s in samples if s.valid_actions is not None], dim=1)
    losses = _losses(samples, new)
    held, raw = ratios.log_ratios(joint, new - old)
    sources, nonfinite = _nonfinite(samples, new, old, entropy, losses)
    parts = {
        "ratio": ratios.ratio_statistics(held, raw, first.clip_range, _weight(samples, new)),
        "heads": entropies.head_entropy(entropy, new, valid),
        "losses": losses,
        "nonfinite": nonfinite,
    }
    if total is not None:
        parts["joint"] = entropies.joint_entropy(total, valid if first.all_categorical else None)
    return Measurements(
        packed=torch.cat([part.reshape(-1, m).double() for part in parts.values()]),
        layout=tuple((name, tuple(part.shape[:-1])) for name, part in parts.items()),
        sources=sources,
        losses=tuple(first.losses),
        count=m,
        entropy_known=entropy is not None,
        choices_known=valid is not None and entropy is not None,
        joint_choices_known=valid is not None and first.all_categorical and total is not None,
    )


def _stacked(samples: Sequence[Sample], tensors: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """Return [H, M, N] in float32 (float64 where the loop computes in it)."""
    heads = samples[0].heads
    flat = [one[head].reshape(-1) for head in heads for one in tensors]
    stacked = torch.stack(flat).reshape(len(heads), len(samples), -1)
    return stacked if stacked.dtype in (torch.float32, torch.float64) else stacked.float()


def _rows(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """Return [M, N], None when the minibatches lack it."""
    rows = [tensor.reshape(-1) for tensor in tensors if tensor is not None]
    if not rows:
        return None
    stacked = torch.stack(rows)
    return stacked if stacked.dtype in (torch.float32, torch.float64) else stacked.float()


def _losses(samples: Sequence[Sample], like: Tensor) -> Tensor:
    """Return [losses given, M] in float64."""
    rows = []
    for name in samples[0].losses:
        cells = [sample.losses[name] for sample in samples]
        tensors = [cell.reshape(()) for cell in cells if isinstance(cell, Tensor)]
        row = torch.stack(tensors) if tensors else torch.tensor(cells, dtype=torch.float64)
        rows.append(row.to(device=like.device, dtype=torch.float64))
    return torch.stack(rows) if rows else like.new_zeros((0, len(samples)), dtype=torch.float64)


def _weight(samples: Sequence[Sample], new: Tensor) -> Tensor | None:
    """Boolean [1 + H, M, N]: the joint counts every sample, a head those where it is relevant."""
    if not samples[0].relevant:
        return None
    weight = torch.ones((1 + new.shape[0], *new.shape[1:]), dtype=torch.bool, device=new.device)
    for place, head in enumerate(samples[0].heads, start=1):
        rows = [sample.relevant[head].reshape(-1) for sample in samples if sample.relevant and head in sample.relevant]
        if rows:
            weight[place] = torch.stack(rows).bool()
    return weight


def _nonfinite(
    samples: Sequence[Sample], new: Tensor, old: Tensor, entropy: Tensor | None, losses: Tensor
) -> tuple[tuple[str, ...], Tensor]:
    """Name what is looked at and count its NaN and ±Inf per minibatch: the finiteness gate, read later."""
    heads = samples[0].heads
    names = [f"log_prob[{head}]" for head in heads] + [f"old_log_prob[{head}]" for head in heads]
    counts = [(~new.isfinite()).sum(-1), (~old.isfinite()).sum(-1)]
    if entropy is not None:
        names += [f"entropy[{head}]" for head in heads]
        counts.append((~entropy.isfinite()).sum(-1))
    values = _rows([sample.values for sample in samples])
    if values is not None:
        names.append("values")
        counts.append((~values.isfinite()).sum(-1, keepdim=True).reshape(1, -1))
    names += list(samples[0].losses)
    counts.append((~losses.isfinite()).long())
    return tuple(names), torch.cat(counts).double()
