"""One update's inner loop as it happens: minibatches, and the gradients of the optimizer steps between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from recorder.batch import Batch, Capture, Measurements, measure
from recorder.gradients_seen import Reader, Seen
from recorder.parameters import ParameterMap

KEEP_ELEMENTS = 1 << 22
"""Log-probs kept before they are measured, over all minibatches and heads."""


@dataclass(slots=True)
class Minibatch:
    """What is known of one minibatch without measuring, then the gradients and the optimizer steps that followed."""

    epoch: int
    clip_range: float | None
    clip_norm: float | None = None
    pre_clip: list[Tensor] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    post_clip: list[Tensor] = field(default_factory=list)
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Looks:
    """Looks at the same gradients, stacked: ``norms {name}`` and ``rows {name} {k}`` of the transfer are theirs."""

    name: str
    like: Seen
    places: tuple[int, ...]  # minibatch of each look


class InnerLoop:
    """The minibatches of the update in progress."""

    def __init__(self, parameters: ParameterMap | None, reader: Reader | None, heads: int) -> None:
        self.parameters = parameters
        self.minibatches: list[Minibatch] = []
        self.measurements: list[Measurements] = []
        self.batches: list[Batch] = []
        self.looks: list[Looks] = []
        self._reader = reader
        self._heads = heads
        self._waiting: dict[tuple[object, ...], list[tuple[int, Capture]]] = {}
        self._kept = 0

    def add(self, capture: Capture, epoch: int) -> None:
        """Take up a minibatch; it is measured later, together with others of its shape."""
        self._waiting.setdefault(capture.shape(), []).append((len(self.minibatches), capture))
        self.minibatches.append(Minibatch(epoch, capture.clip_range))
        self._kept += capture.samples * self._heads
        if self._kept >= KEEP_ELEMENTS:
            self._measure_waiting()

    def _measure_waiting(self) -> None:
        waiting, self._waiting, self._kept = self._waiting, {}, 0
        for members in waiting.values():
            captures = [capture for _, capture in members]
            batch = captures[0].together(captures)
            self.batches.append(batch)
            self.measurements.append(measure(batch, [place for place, _ in members]))

    def see_gradients(self, parameters: Sequence[Tensor], scale: Tensor | None = None) -> Seen | None:
        """Measure the gradients of ``parameters``, before anything changes them; None when they are not the model's."""
        if self._reader is None or not self.minibatches:
            return None
        plan = self._reader.plan(parameters)
        if not plan.ours:
            return None
        seen = self._reader.see(plan, scale=scale)
        self.minibatches[-1].seen.append(seen)
        return seen

    def see_clip(self, total: Tensor | None, max_norm: float | None) -> None:
        """Note the norm before clipping (None: of what was seen) and the bound it was held against."""
        minibatch = self.minibatches[-1]
        norms = minibatch.seen[-1].norms if minibatch.seen else None
        if total is None and norms is not None:
            total = torch.linalg.vector_norm(norms)
        if total is not None:
            minibatch.pre_clip.append(total.detach())
        minibatch.clip_norm = max_norm

    def see_step(self, parameters: Sequence[Tensor]) -> bool:
        """Measure the gradients an optimizer step is about to take; return whether they are the model's."""
        if self._reader is None or not self.minibatches:
            return False
        if not self._reader.plan(parameters).ours:
            return False
        minibatch = self.minibatches[-1]
        minibatch.steps += 1
        norm = self._reader.post_clip(parameters)
        if norm is not None:
            minibatch.post_clip.append(norm)
        return True

    def tensors(self) -> dict[str, Tensor]:
        """Return all measurements of the update under names that ``recorder.reduce`` reads."""
        self._measure_waiting()
        tensors = {f"packed {place}": one.packed for place, one in enumerate(self.measurements)}
        tensors |= self._look_tensors()
        for name in ("pre_clip", "post_clip"):
            norms = [_together(getattr(one, name)) for one in self.minibatches if getattr(one, name)]
            if norms:
                tensors[name] = _stacked(norms)
        return tensors

    def _look_tensors(self) -> dict[str, Tensor]:
        """Return the norms of looks at the same gradients, stacked."""
        tensors: dict[str, Tensor] = {}
        alike: dict[tuple[int, tuple[int, ...] | None], list[tuple[int, Seen]]] = {}
        for place, minibatch in enumerate(self.minibatches):
            for seen in minibatch.seen:
                alike.setdefault((id(seen.plan), seen.present), []).append((place, seen))
        for number, members in enumerate(alike.values()):
            first, name = members[0][1], str(number)
            self.looks.append(Looks(name, first, tuple(place for place, _ in members)))
            norms = [seen.norms for _, seen in members if seen.norms is not None]
            if norms:
                tensors[f"norms {name}"] = _stacked(norms)
            for k in range(len(first.rows)):
                tensors[f"rows {name} {k}"] = torch.stack([seen.rows[k] for _, seen in members])
            elements = [seen.elements for _, seen in members if seen.elements is not None]
            if elements:
                tensors[f"elements {name}"] = torch.stack(elements).sum(0)
        return tensors


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    if len({tensor.dtype for tensor in tensors}) > 1:
        tensors = [tensor.double() for tensor in tensors]
    return torch.stack(list(tensors))


def _together(norms: Sequence[Tensor]) -> Tensor:
    """Join the norms of separate clip calls or optimizers; a single one stays as it is, to the last bit."""
    return norms[0].reshape(()) if len(norms) == 1 else torch.linalg.vector_norm(_stacked([n.double() for n in norms]))
