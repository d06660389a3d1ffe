"""Gradient statistics of a module over many calls, from the norms of its tensors; nothing waits for the device."""

from __future__ import annotations

import torch
from torch import Tensor

FIELDS = ("norm", "vanished", "exploded", "nonfinite")
"""Columns of what ``module_statistics`` returns: L2 norm over all tensors, then numbers of tensors."""


def module_statistics(norms: Tensor, vanishing: float, exploding: float) -> Tensor:
    """Return [C, ``FIELDS``] in float64 for tensor norms [C, T] of C calls.

    Vanished: a norm below ``vanishing``. Exploded: above ``exploding``, or not finite.
    """
    norms = norms.double()
    counts = [norms < vanishing, ~(norms <= exploding), ~norms.isfinite()]
    total = torch.linalg.vector_norm(norms, dim=1)
    return torch.stack([total, *(count.sum(1).double() for count in counts)], dim=1)
