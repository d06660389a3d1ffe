"""A batch of points that are moved to targets in the plane, all at once: the environments that run on tensors."""

from __future__ import annotations

import torch
from torch import Tensor

ENVS, EPISODE = 64, 16


class Points:
    """The reward is the distance, negative, times ``scale``. The first episodes start at different ages."""

    def __init__(self) -> None:
        self.age = torch.arange(ENVS) % EPISODE
        self.position, self.target = torch.rand(2, ENVS, 2) * 2 - 1
        self.scale = 1.0

    def observed(self) -> Tensor:
        """Return positions and targets [envs, 4]."""
        return torch.cat([self.position, self.target], 1).clamp(-4, 4)

    def move(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return rewards and whether the episode ended, both [envs]; what ended starts again."""
        self.position = (self.position + 0.25 * actions.clamp(-1, 1)).nan_to_num()
        rewards = -self.scale * (self.position - self.target).norm(dim=1)
        self.age = self.age + 1
        ended = self.age >= EPISODE
        self.age = self.age.masked_fill(ended, 0)
        start = torch.rand(2, ENVS, 2) * 2 - 1
        self.position = torch.where(ended.unsqueeze(1), start[0], self.position)
        self.target = torch.where(ended.unsqueeze(1), start[1], self.target)
        return rewards, ended
