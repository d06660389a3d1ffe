"""The arguments of one ``Recorder.minibatch`` call, copied at once: the loop may reuse its buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recorder import arguments
from recorder.capture.batch import Capture, CaptureBatch, as_float
from recorder.heads import Heads

BY_HEAD = ("log_prob", "old_log_prob", "entropy")


@dataclass(slots=True)
class MinibatchCapture:
    """One minibatch of N samples, copied by as few operations as possible.

    ``names`` label the rows of ``numbers``: H rows for each of ``BY_HEAD`` that was passed, one for each other name.
    """

    heads: Heads
    names: tuple[str, ...]
    numbers: Tensor  # [rows, N]
    origins: tuple[str, ...]
    has_actions: bool
    integers: Tensor | None  # integers [rows, N]: the actions of all heads if ``has_actions``, then ``origins``
    masks: Tensor | None  # [Σ N·K] of the heads in ``masked``, concatenated
    masked: tuple[str, ...]
    valid_actions: Tensor | None  # [H, N]
    flags: Tensor | None  # boolean [rows, N]: of the heads in ``causal``, then valid samples if ``counted``
    causal: tuple[str, ...]
    counted: bool
    losses: tuple[str, ...]  # their names
    amounts: Tensor | tuple[Tensor | float, ...]  # of the losses: one tensor if they were tensors of one kind
    clip_range: float | None
    widths: tuple[int, ...]
    std: Mapping[str, Tensor]  # by head [N, dimensions], or [1, dimensions]
    losses_recomputed: bool = False  # by an adapter, from what else it hands over
    sized: bool = True  # a head without masks may take all its actions; False: its masks were lost

    @property
    def samples(self) -> int:
        """Number of samples, padding included: only the device knows where it lies."""
        return self.numbers.shape[1]

    def shape(self) -> tuple[object, ...]:
        """Return the key that captures must share to be measured together."""
        masks = None if self.valid_actions is None else self.valid_actions.shape
        layout = (
            self.names,
            self.origins,
            self.has_actions,
            self.masked,
            self.widths,
            masks,
            self.causal,
            self.counted,
            self.losses,
            self.sized,
            tuple((name, std.shape) for name, std in self.std.items()),
        )
        return (MinibatchCapture, self.numbers.shape, self.numbers.device, layout, self.clip_range)

    @staticmethod
    def together(captures: Sequence[Capture]) -> CaptureBatch:
        """Return captures of one shape as a batch."""
        minibatches = [capture for capture in captures if isinstance(capture, MinibatchCapture)]
        first = minibatches[0]
        fields = _number_fields(first, as_float(_stacked([minibatch.numbers for minibatch in minibatches])))
        fields |= _integer_fields(first, _joined([minibatch.integers for minibatch in minibatches], dim=1))
        flags = _joined([minibatch.flags for minibatch in minibatches], dim=1)
        names = first.heads.names
        valid_actions, unsized = _valid_actions(minibatches)
        return CaptureBatch(
            heads=names,
            valid_actions=valid_actions,
            unsized=unsized,
            all_categorical=len(first.heads.categorical) == len(names),
            relevant=None if flags is None or not first.causal else _relevant(first, flags),
            counted=None if flags is None or not first.counted else flags[-1],
            clip_range=first.clip_range,
            losses=_losses(minibatches),
            std={name: as_float(_stacked([one.std[name] for one in minibatches], dim=0)) for name in first.std},
            losses_recomputed=first.losses_recomputed,
            **fields,
        )


def _number_fields(first: MinibatchCapture, numbers: Tensor) -> dict[str, Tensor]:
    """Split ``numbers`` [rows, M, N] into the fields of a batch."""
    fields, start, count = {}, 0, len(first.heads.names)
    for name in first.names:
        stop = start + (count if name in BY_HEAD else 1)
        fields[name] = numbers[start:stop] if name in BY_HEAD else numbers[start]
        start = stop
    return fields


def _integer_fields(first: MinibatchCapture, integers: Tensor | None) -> dict[str, Tensor]:
    """Split ``integers`` [rows, M, N] into the fields of a batch."""
    if integers is None:
        return {}
    count = len(first.heads.names) if first.has_actions else 0
    fields = {"actions": integers[:count]} if first.has_actions else {}
    return fields | {name: integers[count + row] for row, name in enumerate(first.origins)}


def _joined(tensors: Sequence[Tensor | None], dim: int) -> Tensor | None:
    present = [tensor for tensor in tensors if tensor is not None]
    return _stacked(present, dim) if present else None


def _stacked(tensors: Sequence[Tensor], dim: int = 1) -> Tensor:
    """Return tensors stacked along ``dim``; a single one is not copied."""
    return tensors[0].unsqueeze(dim) if len(tensors) == 1 else torch.stack(list(tensors), dim=dim)


def _valid_actions(minibatches: Sequence[MinibatchCapture]) -> tuple[Tensor | None, tuple[str, ...]]:
    """Return valid actions [H, M, N], and the categorical heads whose valid actions are unknown.

    They are counted from masks; a head without masks has its size, a head of another kind or unknown size 0.
    """
    first = minibatches[0]
    counted = _joined([minibatch.valid_actions for minibatch in minibatches], dim=1)
    if counted is not None:
        return counted, ()
    masks = _joined([minibatch.masks for minibatch in minibatches], dim=0)
    counts = {}
    if masks is not None:
        parts = torch.split(masks.bool(), [width * first.samples for width in first.widths], dim=1)
        counts = {
            name: part.reshape(len(minibatches), -1, width).sum(-1)
            for name, part, width in zip(first.masked, parts, first.widths, strict=True)
        }
    heads, shape = first.heads, (len(minibatches), first.samples)
    sizes = {name: heads.size(name) for name in heads.categorical if first.sized}
    unsized = tuple(name for name in heads.categorical if name not in counts and sizes.get(name) is None)
    if len(unsized) == len(heads.names):
        return None, unsized
    rows = [
        counts[name] if name in counts else torch.full(shape, sizes.get(name) or 0, device=first.numbers.device)
        for name in heads.names
    ]
    return torch.stack(rows), unsized


def _relevant(first: MinibatchCapture, flags: Tensor) -> Tensor:
    """Return boolean [H, M, N]; a head without a causal mask is always relevant."""
    everywhere = torch.ones_like(flags[0])
    rows = [flags[first.causal.index(name)] if name in first.causal else everywhere for name in first.heads.names]
    return torch.stack(rows)


def _losses(minibatches: Sequence[MinibatchCapture]) -> dict[str, Tensor]:
    """Return the losses [M] by name."""
    by_minibatch = [minibatch.amounts for minibatch in minibatches]
    together = [amounts for amounts in by_minibatch if isinstance(amounts, Tensor)]
    if len(together) == len(by_minibatch):
        return dict(zip(minibatches[0].losses, torch.stack(together, dim=1).double(), strict=True))
    return {name: _cells([row[index] for row in by_minibatch]) for index, name in enumerate(minibatches[0].losses)}


def _cells(losses: Sequence[Tensor | float]) -> Tensor:
    """Return one number per minibatch [M]; some may be tensors and some floats."""
    device = next((loss.device for loss in losses if isinstance(loss, Tensor)), None)
    if device is None:
        return torch.tensor(losses, dtype=torch.float64)
    return torch.stack([torch.as_tensor(loss, dtype=torch.float64).to(device).reshape(()) for loss in losses])


def copied(tensors: Sequence[Any], model: Tensor | None = None) -> Tensor:
    """Return arrays of N samples each as one new tensor [rows, N].

    Arguments on the host, or not tensors, are moved to the device of ``model`` (default: to that of the others).
    Raises ``ValueError`` if lengths differ from each other or from ``model`` [rows, N].
    """
    try:
        rows = torch.stack(list(tensors)).reshape(len(tensors), -1)
    except (RuntimeError, TypeError):  # different shapes or devices, or not tensors: checking first costs more
        converted = [arguments.tensor(argument) for argument in tensors]
        first = converted[0].to(arguments.common_device(converted)) if model is None else model
        flat = [arguments.like(argument, first).reshape(-1) for argument in tensors]
        if len({len(row) for row in flat}) > 1:
            raise ValueError(
                f"tensors of {', '.join(str(len(row)) for row in flat)} samples in one minibatch"
            ) from None
        rows = torch.stack(flat)
    if model is None:
        return arguments.tensor(rows)
    if rows.shape[1] != model.shape[-1]:
        raise ValueError(f"{rows.shape[1]} samples in a minibatch of {model.shape[-1]}")
    return arguments.on_device(arguments.tensor(rows), model.device)
