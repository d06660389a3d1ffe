"""Takes up what the loop hands over for one minibatch: checks names, copies numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recorder.heads import Heads
from recorder.sample import Sample, copied

ByHead = Mapping[str, Tensor] | Tensor | None


@dataclass(frozen=True, slots=True)
class Sampler:
    """Makes samples for one set of heads."""

    heads: Heads

    def sample(
        self,
        *,
        by_head: Mapping[str, ByHead],
        rows: Mapping[str, Tensor | None],
        actions: ByHead,
        places: Mapping[str, Tensor | None],
        masks: Mapping[str, Tensor] | None,
        valid_actions: Tensor | None,
        relevant: Mapping[str, Tensor] | None,
        counted: Tensor | None,
        losses: Mapping[str, Tensor | float | None],
        clip_range: float | None,
    ) -> Sample:
        """Return one minibatch, copied. Raises ``ValueError`` when a head lacks its tensor or lengths differ."""
        numbers: list[Tensor] = []
        for given in by_head.values():
            numbers += () if given is None else self._tensors(given)
        numbers += [row for row in rows.values() if row is not None]
        names = [name for group in (by_head, rows) for name, given in group.items() if given is not None]
        copies = copied(numbers)
        whole = [] if actions is None else self._actions(actions, numbers[0])
        whole += [row for row in places.values() if row is not None]
        masked = () if not masks else tuple(name for name in self.heads.categorical if name in masks)
        causal = () if not relevant else tuple(name for name in self.heads.names if name in relevant)
        flags = [relevant[name] for name in causal] if relevant else []
        if counted is not None:
            flags.append(counted)
        together, widths = _masks(masks, masked, copies.shape[1])
        return Sample(
            self.heads,
            tuple(names),
            copies,
            tuple(name for name, row in places.items() if row is not None),
            actions is not None,
            _integers(whole, copies.shape[1]) if whole else None,
            together,
            masked,
            None if valid_actions is None else valid_actions.reshape(len(self.heads.names), -1).clone(),
            copied(flags).bool() if flags else None,
            causal,
            counted is not None,
            tuple(name for name, one in losses.items() if one is not None),
            _amounts([one for one in losses.values() if one is not None]),
            None if clip_range is None else float(clip_range),
            widths,
        )

    def _actions(self, given: Mapping[str, Tensor] | Tensor, like: Tensor) -> list[Tensor]:
        """Return one tensor a head, −1 for heads (continuous ones) whose actions were not given."""
        if isinstance(given, Tensor):
            return list(self._tensors(given))
        if not all(name in given for name in self.heads.names):
            nothing = torch.full_like(like, -1, dtype=torch.int64)
            given = dict.fromkeys(self.heads.names, nothing) | dict(given)
        return [given[name] for name in self.heads.names]

    def _tensors(self, given: Mapping[str, Tensor] | Tensor) -> Sequence[Tensor]:
        """Return one tensor a head, in the order of the heads."""
        names = self.heads.names
        if isinstance(given, Tensor):
            if len(names) != 1:
                raise ValueError(f"give a mapping from head to tensor: heads are {', '.join(names)}")
            return [given]
        try:
            return [given[name] for name in names]
        except KeyError as missing:
            raise ValueError(f"no tensor for head {missing}: heads are {', '.join(names)}") from None


def _integers(rows: Sequence[Tensor], samples: int) -> Tensor:
    """Return rows of integers [rows, N], copied."""
    found = copied(rows).long()
    if found.shape[1] != samples:
        raise ValueError(f"actions or places of {found.shape[1]} samples in a minibatch of {samples}")
    return found


def _masks(
    masks: Mapping[str, Tensor] | None, masked: Sequence[str], samples: int
) -> tuple[Tensor | None, tuple[int, ...]]:
    """Return the masks one after the other [Σ N·K], copied, and their widths K."""
    if not masks or not masked:
        return None, ()
    given = [masks[name] for name in masked]
    widths = tuple(mask.shape[-1] for mask in given)
    together = torch.cat([mask.reshape(-1) for mask in given])
    if any(mask.numel() != samples * width for mask, width in zip(given, widths, strict=True)):
        raise ValueError(f"masks of {', '.join(str(tuple(mask.shape)) for mask in given)} for {samples} samples")
    return together, widths


def _amounts(losses: Sequence[Tensor | float]) -> Tensor | tuple[Tensor | float, ...]:
    """Return losses as single numbers, copied. Raises ``ValueError`` for one that is not reduced."""
    for loss in losses:
        if isinstance(loss, Tensor) and loss.numel() != 1:
            raise ValueError(f"a loss of shape {tuple(loss.shape)}: give its mean, one number a minibatch")
    tensors = [loss for loss in losses if isinstance(loss, Tensor)]
    if tensors and len(tensors) == len(losses) and len({(one.shape, one.dtype, one.device) for one in tensors}) == 1:
        return torch.stack(tensors).reshape(-1)
    return tuple(loss.detach().clone() if isinstance(loss, Tensor) else float(loss) for loss in losses)
