"""One update's inner loop as it happens: device scalars per minibatch and per optimizer step, nothing waited for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recorder.measure import entropy as entropies
from recorder.measure import gradients, ratios
from recorder.parameters import ParameterMap

Flags = npt.NDArray[np.bool_]

LOSSES = ("policy_loss", "value_loss", "entropy_loss", "total_loss")


@dataclass(slots=True)
class Minibatch:
    """Measurements of one minibatch, then of the gradients and the optimizer step that followed it."""

    epoch: int
    samples: int
    packed: Tensor  # everything in ``layout``, one after the other, float64
    layout: tuple[tuple[str, tuple[int, ...]], ...]
    losses_given: tuple[bool, ...]
    sources: tuple[str, ...]  # names of the counts under "nonfinite"
    clip_range: float | Tensor | None
    entropy_known: bool
    choices_known: bool
    joint_choices_known: bool
    pre_clip: list[Tensor] = field(default_factory=list)
    clip_norm: float | None = None
    norms: Tensor | None = None  # [pieces]
    seen: Flags | None = None  # [pieces], True where the clip call got the parameter
    missing: Flags | None = None  # [pieces], True where it was seen and its grad was None
    elements: Tensor | None = None  # [NaN count, Inf count]
    post_clip: list[Tensor] = field(default_factory=list)
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """What one minibatch hands over; log-probs and entropies are [N] per head, masks [N, K]."""

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
    valid: Tensor | None = None  # [N] bool: samples that are no padding
    clip_range: float | Tensor | None = None
    losses: Mapping[str, Tensor | float | None] = field(default_factory=dict)
    epoch: int = 0


def measure(sample: Sample) -> Minibatch:
    """Return the device scalars of one minibatch. Runs without gradient and does not wait."""
    new, old = _stack(sample.log_prob, sample.heads), _stack(sample.old_log_prob, sample.heads)
    joint = None if sample.joint_log_ratio is None else sample.joint_log_ratio.detach().float().reshape(-1)
    entropy = None if sample.entropy is None else _stack(sample.entropy, sample.heads)
    valid_actions = sample.valid_actions
    total = _joint_entropy(sample.joint_entropy, entropy)
    if sample.valid is not None:
        keep = sample.valid.reshape(-1).nonzero(as_tuple=True)[0]
        new, old = new[:, keep], old[:, keep]
        joint, total = (None if x is None else x[keep] for x in (joint, total))
        entropy, valid_actions = (None if x is None else x[:, keep] for x in (entropy, valid_actions))
    held, raw = ratios.log_ratios(joint, new - old)
    sources, nonfinite = _nonfinite(sample, new, old, entropy)
    parts = {
        "ratio": ratios.ratio_statistics(held, raw, sample.clip_range, _weight(sample, held)),
        "heads": entropies.head_entropy(entropy, new, valid_actions),
        "losses": torch.stack([_scalar(sample.losses.get(name), new) for name in LOSSES]),
        "nonfinite": nonfinite,
    }
    if total is not None:
        parts["joint"] = entropies.joint_entropy(total, valid_actions if sample.all_categorical else None)
    return Minibatch(
        epoch=sample.epoch,
        samples=new.shape[1],
        packed=torch.cat([part.reshape(-1).double() for part in parts.values()]),
        layout=tuple((name, tuple(part.shape)) for name, part in parts.items()),
        losses_given=tuple(sample.losses.get(name) is not None for name in LOSSES),
        sources=sources,
        clip_range=sample.clip_range,
        entropy_known=entropy is not None,
        choices_known=valid_actions is not None and entropy is not None,
        joint_choices_known=valid_actions is not None and sample.all_categorical and total is not None,
    )


def _stack(tensors: Mapping[str, Tensor], heads: Sequence[str]) -> Tensor:
    return torch.stack([tensors[head].detach().float().reshape(-1) for head in heads])


def _joint_entropy(joint: Tensor | None, heads: Tensor | None) -> Tensor | None:
    if joint is not None:
        return joint.detach().float().reshape(-1)
    return None if heads is None else heads.sum(0)


def _weight(sample: Sample, held: Tensor) -> Tensor | None:
    """Boolean [1 + H, N]: the joint counts every sample, a head those where it is relevant."""
    if not sample.relevant:
        return None
    everywhere = torch.ones_like(held[0], dtype=torch.bool)
    rows = [everywhere]
    for head in sample.heads:
        given = sample.relevant.get(head)
        row = everywhere if given is None else given.detach().reshape(-1).bool()
        if sample.valid is not None and given is not None:
            row = row[sample.valid.reshape(-1)]
        rows.append(row)
    return torch.stack(rows)


def _scalar(value: Tensor | float | None, like: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().to(device=like.device, dtype=torch.float64).reshape(())
    return torch.tensor(float("nan") if value is None else value, dtype=torch.float64, device=like.device)


def _nonfinite(sample: Sample, new: Tensor, old: Tensor, entropy: Tensor | None) -> tuple[tuple[str, ...], Tensor]:
    """Name what is looked at and count its NaN and ±Inf: the finiteness gate, read later."""
    names = [f"log_prob[{head}]" for head in sample.heads] + [f"old_log_prob[{head}]" for head in sample.heads]
    counts = [(~new.isfinite()).sum(1), (~old.isfinite()).sum(1)]
    if entropy is not None:
        names += [f"entropy[{head}]" for head in sample.heads]
        counts.append((~entropy.isfinite()).sum(1))
    if sample.values is not None:
        names.append("values")
        counts.append((~sample.values.detach().isfinite()).sum().reshape(1))
    for name in LOSSES:
        if sample.losses.get(name) is not None:
            names.append(name)
            counts.append((~_scalar(sample.losses[name], new).isfinite()).sum().reshape(1))
    return tuple(names), torch.cat(counts).double()


class InnerLoop:
    """The minibatches of the update in progress."""

    def __init__(self, parameters: ParameterMap | None) -> None:
        self.parameters = parameters
        self.minibatches: list[Minibatch] = []
        self._elements = sum(p.numel() for p in parameters.parameters) if parameters else 0

    def see_gradients(self, clipped: Sequence[Tensor]) -> None:
        """Measure the gradients of ``clipped`` parameters, before anything changes them."""
        if not self.minibatches or self.parameters is None:
            return
        minibatch = self.minibatches[-1]
        wanted = {id(parameter) for parameter in clipped}
        seen = np.array([id(piece.parameter) in wanted for piece in self.parameters.pieces])
        found = [piece.gradient() if there else None for piece, there in zip(self.parameters.pieces, seen, strict=True)]
        norms = gradients.gradient_norms(found, self.parameters.parameters[0])
        missing = seen & np.array([gradient is None for gradient in found])
        if minibatch.norms is None or minibatch.missing is None or minibatch.seen is None:
            minibatch.norms, minibatch.seen, minibatch.missing = norms, seen, missing
        else:  # actor and critic are clipped by calls of their own
            minibatch.norms = torch.where(torch.from_numpy(seen).to(norms.device), norms, minibatch.norms)
            minibatch.missing = np.where(seen, missing, minibatch.missing)
            minibatch.seen = seen | minibatch.seen
        if self._elements <= gradients.COUNT_ELEMENTS_UP_TO:
            counts = gradients.nonfinite_elements([p.grad for p in self.parameters.parameters if id(p) in wanted])
            if counts is not None:
                minibatch.elements = counts if minibatch.elements is None else minibatch.elements + counts

    def see_clip(self, total: Tensor | None, max_norm: float | None) -> None:
        """Note the whole-model norm before clipping and the bound it was held against."""
        if not self.minibatches:
            return
        minibatch = self.minibatches[-1]
        if total is None and minibatch.norms is not None:
            total = torch.linalg.vector_norm(minibatch.norms)
        if total is not None:
            minibatch.pre_clip.append(total.detach().double().reshape(()))
        minibatch.clip_norm = max_norm

    def see_step(self, parameters: Sequence[Tensor]) -> None:
        """Measure the gradients an optimizer step is about to take."""
        if not self.minibatches:
            return
        minibatch = self.minibatches[-1]
        minibatch.steps += 1
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if grads:
            minibatch.post_clip.append(torch.nn.utils.get_total_norm(grads).detach().double().reshape(()))

    def tensors(self) -> dict[str, Tensor]:
        """Return all measurements of the update under names that ``recorder.reduce`` reads."""
        found = self.minibatches
        tensors = {}
        if found:
            tensors["packed"] = torch.cat([minibatch.packed for minibatch in found])
        norms = [minibatch.norms for minibatch in found if minibatch.norms is not None]
        if norms:
            tensors["norms"] = torch.stack(norms)
        elements = [minibatch.elements for minibatch in found if minibatch.elements is not None]
        if elements:
            tensors["elements"] = torch.stack(elements).sum(0)
        for name in ("pre_clip", "post_clip"):
            norms = [_together(getattr(minibatch, name)) for minibatch in found if getattr(minibatch, name)]
            if norms:
                tensors[name] = torch.stack(norms)
        return tensors


def _together(norms: Sequence[Tensor]) -> Tensor:
    """Join the norms of separate clip calls or optimizers; a single one stays as it is, to the last bit."""
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(list(norms)))
