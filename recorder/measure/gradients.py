"""Gradient norms, tensor by tensor, in float64: 1e20 does not become Inf and 1e-30 does not become 0."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

COUNT_ELEMENTS_UP_TO = 1 << 16
"""NaN and Inf elements are counted at every step in models up to this many parameters: beyond, counting costs more
than all norms together, and ``tensors_nonfinite`` still tells."""


def gradient_norms(gradients: Sequence[Tensor | None], like: Tensor) -> Tensor:
    """Return the L2 norm of each gradient [T] in float64; 0 where there is none (the caller knows which).

    ``like`` gives the device.
    """
    nothing = torch.zeros((), dtype=torch.float64, device=like.device)
    norms = [
        nothing if gradient is None else torch.linalg.vector_norm(gradient, dtype=torch.float64)
        for gradient in gradients
    ]
    return torch.stack(norms) if norms else nothing.new_zeros(0)


def nonfinite_elements(gradients: Sequence[Tensor | None]) -> Tensor | None:
    """Return counts of NaN and of ±Inf elements [2] in float64, None when there is no gradient."""
    present = [gradient.detach().reshape(-1) for gradient in gradients if gradient is not None]
    if not present:
        return None
    flat = torch.cat(present)
    return torch.stack([flat.isnan().sum(), flat.isinf().sum()]).to(torch.float64)
