"""Size and health of a recurrent state of shape layers × environments × hidden."""

from __future__ import annotations

import torch
from torch import Tensor

SATURATED = 0.99
"""|h| above this counts as saturated: h = o·tanh(c) stays within ±1."""

_STATE = ("l2_total", "rms", "env_rms_mean", "env_rms_max", "max", "mean")
FIELDS = (
    *(f"h_{name}" for name in _STATE),
    *(f"c_{name}" for name in _STATE),
    "h_saturation",
    "has_nan",
    "has_inf",
)


def lstm_statistics(hidden: Tensor, cell: Tensor) -> Tensor:
    """Return ``FIELDS`` in float64 for h and c, each layers × environments × hidden."""
    h, c = hidden.double(), cell.double()
    saturation = (h.abs() > SATURATED).double().mean()
    has_nan = (h.isnan().any() | c.isnan().any()).double()
    has_inf = (h.isinf().any() | c.isinf().any()).double()
    return torch.cat([_state(h), _state(c), torch.stack([saturation, has_nan, has_inf])])


def _state(x: Tensor) -> Tensor:
    total = torch.linalg.vector_norm(x)
    per_env = x.square().mean(dim=(0, 2)).sqrt()
    rms = total / x.numel() ** 0.5
    return torch.stack([total, rms, per_env.mean(), per_env.amax(), x.abs().amax(), x.mean()])
