"""Gradient snapshots of modules, taken on request; snapshots of one kind are measured together later."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

from esper_analyze.schema.constants import VANISHING
from recorder.capture.update_buffer import KEEP_ELEMENTS
from recorder.measure.gradients import SMALL, device_norms, host_norms
from recorder.measure.slots import module_statistics

MAX_SNAPSHOTS = 100_000
"""Snapshots kept in one update: a loop that never calls ``update`` must not fill the memory."""


@dataclass(frozen=True, slots=True)
class ModuleGradients:
    """The gradients of a module, and facts known without reading the device.

    ``tensors``: number of trainable parameters; ``gradients``: the existing ones; ``elements``: in these gradients.
    """

    tensors: int
    gradients: tuple[Tensor, ...]
    elements: int


def trained_gradients(parts: nn.Module | Iterable[Tensor], leave: Iterable[Tensor] = ()) -> ModuleGradients:
    """Return the gradients of the trainable parameters of ``parts``, each once, except those in ``leave``.

    Parameters without elements are ignored.
    """
    listed = parts.parameters() if isinstance(parts, nn.Module) else parts
    out = {id(parameter) for parameter in leave}
    trained = [p for p in dict.fromkeys(listed) if p.requires_grad and id(p) not in out and p.numel()]
    gradients = tuple([gradient for parameter in trained if (gradient := parameter.grad) is not None])
    return ModuleGradients(len(trained), gradients, sum([gradient.numel() for gradient in gradients]))


class _BatchKey(NamedTuple):
    """The key that snapshots must share to be measured together."""

    small: bool
    sizes: tuple[int, ...]  # elements of each gradient
    dtype: torch.dtype
    device: torch.device
    exploding: float
    scaled: bool


@dataclass(frozen=True, slots=True)
class _ModuleSnapshot:
    number: int
    numbers: Tensor  # all elements [E] of small gradients, else the norms [T]
    scale: Tensor | None


@dataclass(frozen=True, slots=True)
class _MeasuredBatch:
    numbers: tuple[int, ...]
    statistics: Tensor


class ModuleSnapshots:
    """The gradient snapshots of modules in one update, numbered in order.

    Small gradients on a device are copied: one operation now, and the norms of many snapshots together later, cost
    less than norms now. Norms of large gradients, and of those in host memory, are computed at once.
    """

    def __init__(self) -> None:
        self.count = 0
        self._waiting: dict[_BatchKey, list[_ModuleSnapshot]] = {}
        self._measured: dict[tuple[int, ...], _MeasuredBatch] = {}
        self._buffered = 0
        self._streams: set[torch.cuda.Stream] = set()

    def take(self, module: ModuleGradients, exploding: float, scale: Tensor | None) -> int:
        """Take a snapshot of the gradients of ``module``, at least one; return its number.

        ``exploding`` is the norm above which a tensor counts as exploded, ``scale`` the loss scale they still carry.
        """
        if self.count >= MAX_SNAPSHOTS:
            raise RuntimeError(f"{MAX_SNAPSHOTS} snapshots without update(): call it after each inner loop")
        gradients, number, layout = module.gradients, self.count, layout_of(module.gradients)
        small = module.elements <= SMALL and layout is GradientLayout.ALIKE
        numbers = torch.cat([gradient.reshape(-1) for gradient in gradients]) if small else _norms(gradients, layout)
        sizes = tuple([gradient.numel() for gradient in gradients])
        kind = _BatchKey(small, sizes, numbers.dtype, numbers.device, exploding, scale is not None)
        self.note(numbers)
        self._waiting.setdefault(kind, []).append(_ModuleSnapshot(number, numbers, scale))
        self.count, self._buffered = number + 1, self._buffered + numbers.numel()
        if self._buffered >= KEEP_ELEMENTS:
            self._measure_waiting()
        return number

    def note(self, tensor: Tensor) -> None:
        """Record which stream writes a tensor that is read later: environments may have their own streams."""
        if tensor.device.type == "cuda":
            self._streams.add(torch.cuda.current_stream(tensor.device))

    def join(self, tensors: Iterable[Tensor]) -> None:
        """Make the current stream wait for the writers of ``tensors``. The host does not wait."""
        for tensor in (each for each in tensors if self._streams and each.device.type == "cuda"):
            now = torch.cuda.current_stream(tensor.device)
            others = self._streams - {now}
            for stream in others:
                now.wait_stream(stream)
            if others:
                tensor.record_stream(now)

    def _measure_waiting(self) -> None:
        """Measure the waiting snapshots. Ctrl-C may interrupt anywhere: the rest is measured at the next call."""
        for kind, snapshots in list(self._waiting.items()):
            self.join([snapshot.numbers for snapshot in snapshots])
            norms = torch.stack([snapshot.numbers for snapshot in snapshots])
            if kind.small:
                spans = torch.split(norms, list(kind.sizes), dim=1)
                norms = torch.stack([vector_norm(span, dim=1, dtype=torch.float64) for span in spans], dim=1)
            scales = [snapshot.scale.reshape(()) for snapshot in snapshots if snapshot.scale is not None]
            if scales:
                norms = norms.double() / torch.stack(scales).to(norms.device).double()[:, None]
            statistics = module_statistics(norms, VANISHING, kind.exploding)
            self.note(statistics)
            numbers = tuple([snapshot.number for snapshot in snapshots])
            self._measured[numbers] = _MeasuredBatch(numbers, statistics)
            del self._waiting[kind]
        self._buffered = 0

    def tensors(self) -> tuple[list[tuple[int, ...]], list[Tensor]]:
        """Return, by batch measured together, the snapshot numbers and their ``FIELDS`` [snapshots, fields]."""
        self._measure_waiting()
        measured = list(self._measured.values())
        self.join([batch.statistics for batch in measured])
        return [batch.numbers for batch in measured], [batch.statistics for batch in measured]


class GradientLayout(Enum):
    """How gradients may be measured: together (dense, of one kind), so but in host memory, or one by one."""

    ALIKE = 1
    ON_HOST = 2
    MIXED = 3


def layout_of(gradients: Sequence[Tensor]) -> GradientLayout:
    """Return how ``gradients`` may be measured. Raises ``TypeError`` for shards of gradients."""
    kinds = {(gradient.dtype, gradient.device, gradient.layout, type(gradient)) for gradient in gradients}
    if any(kind is not Tensor and kind.__name__ == "DTensor" for *_, kind in kinds):
        raise TypeError("a gradient is sharded over ranks (DTensor): a shard has not the norm of the gradient")
    if len(kinds) > 1 or gradients[0].layout is not torch.strided:
        return GradientLayout.MIXED
    return GradientLayout.ON_HOST if gradients[0].device.type == "cpu" else GradientLayout.ALIKE


def _norms(gradients: Sequence[Tensor], layout: GradientLayout) -> Tensor:
    """Return L2 norms [T] without over- or underflow; on the host via float32, which is many times faster."""
    if layout is not GradientLayout.ON_HOST:
        return device_norms(gradients).norms
    exact = gradients[0].dtype in (torch.float32, torch.float64)
    return host_norms(gradients if exact else [gradient.float() for gradient in gradients]).norms
