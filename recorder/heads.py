"""The action heads of a run: names, sizes, kinds, and their masks as counts of valid actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

KINDS = ("categorical", "gaussian", "bernoulli", "other")


@dataclass(frozen=True, slots=True)
class Heads:
    """Heads in order. ``sizes`` gives the number of actions of a categorical head where it is known."""

    names: tuple[str, ...]
    sizes: Mapping[str, int] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"head names must differ: {list(self.names)}")
        for name, kind in self.kinds.items():
            if kind not in KINDS:
                raise ValueError(f"head {name!r} has the kind {kind!r}; kinds are {', '.join(KINDS)}")
        for name in (*self.sizes, *self.kinds):
            if name not in self.names:
                raise ValueError(f"{name!r} is no head; heads are {', '.join(self.names)}")

    def kind(self, name: str) -> str:
        """Return the kind of a head, categorical unless said otherwise."""
        return self.kinds.get(name, "categorical")

    @property
    def categorical(self) -> tuple[str, ...]:
        """Names of the categorical heads."""
        return tuple(name for name in self.names if self.kind(name) == "categorical")

    def valid_actions(self, masks: Mapping[str, Tensor] | None, like: Tensor, *, every: bool) -> Tensor | None:
        """Return valid actions [H, N] of the categorical heads, or of all with 0 for the others (``every``).

        ``masks`` are boolean [..., K] per head; a head without one may take all its actions. None when the size
        of some categorical head is not known. ``like`` [N] gives length and device.
        """
        rows = []
        for name in self.names if every else self.categorical:
            row = self._row(name, masks, like)
            if row is None:
                return None
            rows.append(row)
        return torch.stack(rows) if rows else None

    def _row(self, name: str, masks: Mapping[str, Tensor] | None, like: Tensor) -> Tensor | None:
        if self.kind(name) != "categorical":
            return torch.zeros(len(like), dtype=torch.int64, device=like.device)
        if masks is not None and name in masks:
            mask = masks[name]
            return mask.reshape(-1, mask.shape[-1]).bool().sum(-1)
        size = self.sizes.get(name)
        if size is None:
            return None
        return torch.full((len(like),), size, dtype=torch.int64, device=like.device)

    def stacked(self, tensors: Mapping[str, Tensor] | None, names: Sequence[str], like: Tensor) -> Tensor | None:
        """Return boolean rows [H, N] of ``tensors`` (a head without one: True everywhere); None without any."""
        if not tensors:
            return None
        everywhere = torch.ones(len(like), dtype=torch.bool, device=like.device)
        return torch.stack([tensors[name].reshape(-1).bool() if name in tensors else everywhere for name in names])
