"""A host and a seed whose gradients are known beforehand: each parameter's is the pull on it, in every element."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from recorder import Recorder

SIZES = (16, 4, 4, 4, 4)


@dataclass
class Growing:
    """One environment with one slot; what follows ``seed`` is sound by default, and what a fault changes.

    A tensor of n elements has the gradient norm pull · √n, so the seed's norm over all is √32 · ``seed_pull``.
    """

    host: nn.ParameterList = field(default_factory=lambda: nn.ParameterList([nn.Parameter(torch.zeros(20))]))
    seed: nn.ParameterList = field(default_factory=lambda: nn.ParameterList([torch.zeros(size) for size in SIZES]))
    host_pull: float = 0.2
    seed_pull: float = 0.2
    faint: int = 0  # of the small tensors of the seed, so many get a gradient of 0
    lost: Sequence[int] = ()  # tensors of the seed that the loss does not reach
    stage: str | None = "TRAINING"
    blueprint: str | None = None
    calls: int = 2
    place: tuple[int, str] = (0, "r0c0")

    def backward(self, rec: Recorder) -> None:
        """Train on a few batches and let the recorder look after each."""
        for _ in range(self.calls):
            self.host.zero_grad()
            self.seed.zero_grad()
            self.loss().backward()
            rec.slot(*self.place, seed=self.seed, host=self.host, stage=self.stage, blueprint=self.blueprint)

    def loss(self) -> Tensor:
        total = self.host_pull * torch.stack([one.sum() for one in self.host]).sum()
        for number, one in enumerate(self.seed):
            if number not in self.lost:
                total = total + (0.0 if 0 < number <= self.faint else self.seed_pull) * one.sum()
        return total
