"""Whether anything changes the parameters between two updates: a sample of them is compared, and no device is read."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from recorder.measure.spread import spread_on

ELEMENTS = 64
"""Elements of each tensor in the sample, evenly spaced: all of a bias or an output layer of few actions."""


class BetweenUpdates:
    """A sample of the trainable parameters as an update left them, or the recorder found them, until one begins."""

    def __init__(self) -> None:
        self._before: Tensor | None = None
        self._sampled: tuple[object, ...] = ()
        self._shift: Tensor | None = None

    def cells(self) -> dict[str, Tensor]:
        """Return the relative distance as the cell of its column; empty where it is not known."""
        return {} if self._shift is None else {"parameter_shift_between_updates": self._shift}

    def end(self, parameters: Iterable[Tensor]) -> None:
        """Keep a sample of the parameters as an update ends, or as the recording begins."""
        self._shift, tensors = None, _whole(parameters)
        self._sampled = _identity(tensors)
        self._before = _sample(tensors) if tensors else None

    def begin(self, parameters: Iterable[Tensor], other_steps: int) -> None:
        """Compare as the next update begins; not where an optimizer took ``other_steps`` since."""
        if self._before is None or other_steps:
            return
        tensors = _whole(parameters)
        if _identity(tensors) == self._sampled:
            self._shift = relative_distance(_sample(tensors), self._before)
        self._before = None  # last: Ctrl-C may repeat the call


def relative_distance(now: Tensor, before: Tensor) -> Tensor:
    """Return ‖now − before‖ ∕ max(‖now‖, ‖before‖) [1] in float64, these of finite elements.

    0 if each element is the same, NaN included.
    """
    same = (now == before) | (now.isnan() & before.isnan())
    distance = torch.where(same, 0.0, now - before).norm()
    sizes = [torch.where(part.isfinite(), part, 0.0).norm() for part in (now, before)]
    return torch.where(same.all(), 0.0, distance / torch.maximum(*sizes)).reshape(1)


def _whole(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Return the trainable real parameters that lie whole on one device: not those sharded over several."""
    trainable = [tensor for tensor in parameters if tensor.requires_grad and not hasattr(tensor, "to_local")]
    real = [
        tensor for tensor in trainable if tensor.numel() and not tensor.is_complex() and tensor.layout is torch.strided
    ]
    return [tensor for tensor in real if tensor.device == real[0].device]


def _identity(tensors: Iterable[Tensor]) -> tuple[object, ...]:
    return tuple((id(tensor), tensor.shape, tensor.device) for tensor in tensors)


def _sample(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([_elements(tensor.detach()).double() for tensor in tensors])


def _elements(tensor: Tensor) -> Tensor:
    """Return up to ``ELEMENTS`` elements [E]; a tensor that is not contiguous is not copied whole."""
    if tensor.numel() <= ELEMENTS:
        return tensor.reshape(-1)
    chosen = spread_on(tensor.numel(), ELEMENTS, tensor.device)
    if tensor.is_contiguous():
        return tensor.view(-1)[chosen]
    elements: Tensor = tensor[torch.unravel_index(chosen, tensor.shape)]
    return elements
