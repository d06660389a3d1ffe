"""One update's inner loop as it happens: minibatches, and the gradients of the optimizer steps between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recorder.measure import gradients
from recorder.minibatch import KEEP_ELEMENTS, Measurements, Sample, measure
from recorder.parameters import ParameterMap

Flags = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Minibatch:
    """What is known of one minibatch without measuring, then the gradients and the optimizer steps that followed."""

    epoch: int
    samples: int
    clip_range: float | None
    pre_clip: list[Tensor] = field(default_factory=list)
    clip_norm: float | None = None
    norms: Tensor | None = None  # [pieces]
    seen: Flags | None = None  # [pieces], True where the clip call got the parameter
    missing: Flags | None = None  # [pieces], True where it was seen and its grad was None
    elements: Tensor | None = None  # [NaN count, Inf count]
    post_clip: list[Tensor] = field(default_factory=list)
    steps: int = 0


class InnerLoop:
    """The minibatches of the update in progress."""

    def __init__(self, parameters: ParameterMap | None) -> None:
        self.parameters = parameters
        self.minibatches: list[Minibatch] = []
        self.measurements: list[Measurements] = []
        self._waiting: list[Sample] = []
        self._kept = 0
        self._elements = sum(p.numel() for p in parameters.parameters) if parameters else 0

    def add(self, sample: Sample, epoch: int) -> None:
        """Take up a minibatch; it is measured later, together with others of its shape."""
        if self._waiting and self._waiting[0].shape() != sample.shape():
            self._measure_waiting()
        self.minibatches.append(Minibatch(epoch, sample.samples, sample.clip_range))
        self._waiting.append(sample)
        self._kept += sample.samples * len(sample.heads)
        if self._kept >= KEEP_ELEMENTS:
            self._measure_waiting()

    def _measure_waiting(self) -> None:
        waiting, self._waiting, self._kept = self._waiting, [], 0
        if waiting:
            self.measurements.append(measure(waiting))

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
        self._measure_waiting()
        found = self.minibatches
        tensors = {f"packed {place}": one.packed for place, one in enumerate(self.measurements)}
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
