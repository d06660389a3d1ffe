"""What one ``Recorder.minibatch`` call hands over, copied at once: the loop may reuse its buffers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recorder.batch import Batch, Capture, plain
from recorder.heads import Heads

BY_HEAD = ("log_prob", "old_log_prob", "entropy")


@dataclass(slots=True)
class Sample:
    """One minibatch of N samples. All numbers are copied by as few operations as possible.

    ``names`` say what the rows of ``numbers`` are: H rows each of ``BY_HEAD`` as far as given, then one row each.
    """

    heads: Heads
    names: tuple[str, ...]
    numbers: Tensor  # [rows, N]
    placed: tuple[str, ...]
    acted: bool
    whole: Tensor | None  # integers [rows, N]: the actions of all heads where given (``acted``), then ``placed``
    masks: Tensor | None  # [Σ N·K] of the heads in ``masked``, one after the other
    masked: tuple[str, ...]
    valid_actions: Tensor | None  # [H, N]
    flags: Tensor | None  # boolean [rows, N]: causal masks of the heads in ``causal``, then what is no padding
    causal: tuple[str, ...]
    counted: bool
    losses: tuple[str, ...]  # names of those given
    amounts: Tensor | tuple[Tensor | float, ...]  # of the losses: in one tensor where they came as alike ones
    clip_range: float | None
    widths: tuple[int, ...]

    @property
    def samples(self) -> int:
        """Samples, padding included: where it lies is known on the device only."""
        return self.numbers.shape[1]

    def shape(self) -> tuple[object, ...]:
        """Return what samples must share to be measured together."""
        masks = None if self.valid_actions is None else self.valid_actions.shape
        known = (
            self.names,
            self.placed,
            self.acted,
            self.masked,
            self.widths,
            masks,
            self.causal,
            self.counted,
            self.losses,
        )
        return (Sample, self.numbers.shape, self.numbers.device, known, self.clip_range)

    @staticmethod
    def together(captures: Sequence[Capture]) -> Batch:
        """Return samples of one shape as a batch."""
        samples = [capture for capture in captures if isinstance(capture, Sample)]
        first = samples[0]
        given = _named(first, plain(torch.stack([sample.numbers for sample in samples], dim=1)))
        given |= _placed(first, _joined([sample.whole for sample in samples], dim=1))
        flags = _joined([sample.flags for sample in samples], dim=1)
        names = first.heads.names
        return Batch(
            heads=names,
            valid_actions=_valid_actions(samples),
            all_categorical=len(first.heads.categorical) == len(names),
            relevant=None if flags is None or not first.causal else _relevant(first, flags),
            counted=None if flags is None or not first.counted else flags[-1],
            clip_range=first.clip_range,
            losses=_losses(samples),
            **given,
        )


def _named(first: Sample, numbers: Tensor) -> dict[str, Tensor]:
    """Cut the rows [rows, M, N] into what they are."""
    given, start, count = {}, 0, len(first.heads.names)
    for name in first.names:
        stop = start + (count if name in BY_HEAD else 1)
        given[name] = numbers[start:stop] if name in BY_HEAD else numbers[start]
        start = stop
    return given


def _placed(first: Sample, whole: Tensor | None) -> dict[str, Tensor]:
    """Cut the integers [rows, M, N] into what they are."""
    if whole is None:
        return {}
    count = len(first.heads.names) if first.acted else 0
    given = {"actions": whole[:count]} if first.acted else {}
    return given | {name: whole[count + place] for place, name in enumerate(first.placed)}


def _joined(tensors: Sequence[Tensor | None], dim: int) -> Tensor | None:
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.stack(present, dim=dim) if present else None


def _valid_actions(samples: Sequence[Sample]) -> Tensor | None:
    """Return valid actions [H, M, N]: counted from masks, a head's size where it has none, 0 if not categorical."""
    first = samples[0]
    given = _joined([sample.valid_actions for sample in samples], dim=1)
    if given is not None:
        return given
    masks = _joined([sample.masks for sample in samples], dim=0)
    counts = {}
    if masks is not None:
        parts = torch.split(masks.bool(), [width * first.samples for width in first.widths], dim=1)
        counts = {
            name: part.reshape(len(samples), -1, width).sum(-1)
            for name, part, width in zip(first.masked, parts, first.widths, strict=True)
        }
    shape = (len(samples), first.samples)
    rows = []
    for name in first.heads.names:
        size = first.heads.sizes.get(name) if first.heads.kind(name) == "categorical" else 0
        if name not in counts and size is None:
            return None
        row = counts.get(name)
        rows.append(torch.full(shape, size or 0, device=first.numbers.device) if row is None else row)
    return torch.stack(rows)


def _relevant(first: Sample, flags: Tensor) -> Tensor:
    """Return boolean [H, M, N]; a head without a causal mask always matters."""
    everywhere = torch.ones_like(flags[0])
    rows = [flags[first.causal.index(name)] if name in first.causal else everywhere for name in first.heads.names]
    return torch.stack(rows)


def _losses(samples: Sequence[Sample]) -> dict[str, Tensor]:
    """Return the losses [M] by name."""
    given = [sample.amounts for sample in samples]
    together = [amounts for amounts in given if isinstance(amounts, Tensor)]
    if len(together) == len(given):
        return dict(zip(samples[0].losses, torch.stack(together, dim=1).double(), strict=True))
    return {name: _cells([one[place] for one in given]) for place, name in enumerate(samples[0].losses)}


def _cells(losses: Sequence[Tensor | float]) -> Tensor:
    """Return one number a minibatch; some may have come as tensors and some as floats."""
    device = next((loss.device for loss in losses if isinstance(loss, Tensor)), None)
    if device is None:
        return torch.tensor(losses, dtype=torch.float64)
    return torch.stack([torch.as_tensor(loss).to(device).reshape(()).double() for loss in losses])


def copied(tensors: Sequence[Tensor]) -> Tensor:
    """Return tensors of N elements each as one new tensor [rows, N]. Raises ``ValueError`` when lengths differ."""
    try:
        return torch.stack(list(tensors)).reshape(len(tensors), -1)
    except RuntimeError:  # of different shapes; looking at all of them beforehand costs more than the copy
        rows = [tensor.reshape(-1) for tensor in tensors]
    if len({len(row) for row in rows}) > 1:
        raise ValueError(f"tensors of {', '.join(str(len(row)) for row in rows)} samples in one minibatch")
    return torch.stack(rows)
