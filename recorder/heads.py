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
    coefficients: Mapping[str, float] = field(default_factory=dict)  # weight of a head in the loss

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"head names must differ: {list(self.names)}")
        for name, kind in self.kinds.items():
            if kind not in KINDS:
                raise ValueError(f"head {name!r} has the kind {kind!r}; kinds are {', '.join(KINDS)}")
        for name in (*self.sizes, *self.kinds, *self.coefficients):
            if name not in self.names:
                raise ValueError(f"{name!r} is no head; heads are {', '.join(self.names)}")

    def kind(self, name: str) -> str:
        """Return the kind of a head, categorical unless said otherwise."""
        return self.kinds.get(name, "categorical")

    @property
    def categorical(self) -> tuple[str, ...]:
        """Names of the categorical heads."""
        return tuple(name for name in self.names if self.kind(name) == "categorical")

    def valid_actions(self, masks: Mapping[str, Tensor], like: Tensor) -> Tensor | None:
        """Return valid actions [H, N] of the categorical heads.

        ``masks`` are boolean [..., K] per head; a head without one may take all its actions. None when the size
        of some categorical head is not known. ``like`` [N] gives length and device.
        """
        rows = []
        for name in self.categorical:
            size = self.sizes.get(name)
            if name in masks:
                rows.append(masks[name].reshape(-1, masks[name].shape[-1]).bool().sum(-1))
            elif size is not None:
                rows.append(torch.full((len(like),), size, dtype=torch.int64, device=like.device))
            else:
                return None
        return torch.stack(rows) if rows else None

    def stacked(self, tensors: Mapping[str, Tensor], names: Sequence[str], like: Tensor) -> Tensor | None:
        """Return boolean rows [H, N] of ``tensors`` (a head without one: True everywhere); None without any."""
        if not tensors:
            return None
        everywhere = torch.ones(len(like), dtype=torch.bool, device=like.device)
        return torch.stack([tensors[name].reshape(-1).bool() if name in tensors else everywhere for name in names])
