"""The smallest model, and the norm of its gradients worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from recorder import Recorder


def norm_of(gradients: Any) -> float:
    """Return the L2 norm over gradients, in float64."""
    return math.sqrt(sum(float(one.double().square().sum()) for one in gradients if one is not None))


class Plain(nn.Module):
    """One layer, one head."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.op = nn.Linear(3, width)


def ordinary(rec: Recorder, **more: Any) -> None:
    """One minibatch of one head, and whatever more."""
    rec.minibatch(log_prob=torch.full((8,), -1.0), old_log_prob=torch.full((8,), -1.1), clip_range=0.2, **more)
