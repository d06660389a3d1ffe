"""Whether anything changes the parameters between two updates: a sample of them is compared, and no device is read."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

ELEMENTS = 64
"""Elements of each tensor in the sample, evenly spaced: all of a bias or an output layer of few actions."""


class BetweenUpdates:
    """A sample of the trainable parameters as an update left them, or the recorder found them, until one begins."""

    def __init__(self) -> None:
        self._before: Tensor | None = None
        self._sampled: tuple[int, ...] = ()
        self._shift: Tensor | None = None

    def cells(self) -> dict[str, Tensor]:
        """Return the relative distance as the cell of its column; empty where it is not known."""
        return {} if self._shift is None else {"parameter_shift_between_updates": self._shift}

    def end(self, parameters: Iterable[Tensor]) -> None:
        """Keep a sample of the parameters as an update ends, or as the recording begins."""
        self._shift, tensors = None, _plain(parameters)
        self._sampled = tuple(map(id, tensors))
        self._before = _sample(tensors) if tensors else None

    def begin(self, parameters: Iterable[Tensor], other_steps: int) -> None:
        """Compare as the next update begins; not where an optimizer took ``other_steps`` since."""
        before, self._before = self._before, None
        if before is None or other_steps:
            return
        tensors = _plain(parameters)
        if tuple(map(id, tensors)) == self._sampled:
            self._shift = relative_distance(_sample(tensors), before)


def relative_distance(now: Tensor, before: Tensor) -> Tensor:
    """Return ‖now − before‖ ∕ ‖before‖ [1] in float64: 0 where each element is the same, NaN included."""
    same = (now == before) | (now.isnan() & before.isnan())
    distance = torch.where(same, 0.0, now - before).norm()
    return torch.where(same.all(), 0.0, distance / before.norm()).reshape(1)


def _plain(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Return the trainable parameters that lie whole on one device: not those sharded over several."""
    trainable = [one for one in parameters if one.requires_grad and not hasattr(one, "to_local")]
    return [one for one in trainable if one.device == trainable[0].device and one.numel()]


def _sample(tensors: Iterable[Tensor]) -> Tensor:
    flat = [tensor.detach().reshape(-1) for tensor in tensors]
    return torch.cat([row[:: max(1, len(row) // ELEMENTS)][:ELEMENTS] for row in flat]).double()
