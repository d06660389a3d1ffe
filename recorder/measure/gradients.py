"""Gradient norms, tensor by tensor, without overflow: 1e20 does not become Inf and 1e-30 does not become 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

COUNT_ELEMENTS_UP_TO = 1 << 16
"""On a device, NaN and Inf elements are counted at every step in models up to this many parameters: beyond, counting
costs more than all norms together, and non-finite norms still tell which tensors are concerned."""
TRUSTED = (1e-14, 1e18)
"""Between these a float32 L2 norm has neither over- nor underflowed in its squares."""


@dataclass(frozen=True, slots=True)
class Norms:
    """L2 norms of gradient tensors.

    ``norms`` [T]: in float64, or in the gradients' own float32 where none over- or underflowed. ``total``: the norm
    over all of them by the operations ``torch.nn.utils.clip_grad_norm_`` takes, so equal to its result to the last
    bit; None where it was not computed that way. ``sound``: the norms were looked at and all are finite.
    """

    norms: Tensor
    total: Tensor | None
    sound: bool


def host_norms(gradients: Sequence[Tensor]) -> Norms:
    """Return the norms of dense float32 or float64 gradients that lie in host memory.

    They are computed once, as torch's clipping computes them, and looked at: what a float32 square cannot hold is
    computed again in float64.
    """
    vector_norm = torch.linalg.vector_norm
    norms = torch.stack([vector_norm(gradient) for gradient in gradients])
    total = vector_norm(norms)
    seen = norms.numpy()
    low, high = TRUSTED
    if seen.min() > low and seen.max() < high:
        return Norms(norms, total, sound=True)
    exact = norms.double()
    for place in np.flatnonzero(~((seen > low) & (seen < high))).tolist():
        exact[place] = vector_norm(gradients[place], dtype=torch.float64)
    return Norms(exact, total, sound=bool(np.isfinite(exact.numpy()).all()))


def device_norms(gradients: Sequence[Tensor]) -> Norms:
    """Return the norms of any gradients in float64, without looking at them."""
    return Norms(torch.stack([_norm(gradient) for gradient in gradients]), None, sound=False)


def _norm(gradient: Tensor) -> Tensor:
    if gradient.layout is not torch.strided:
        gradient = gradient.coalesce().values() if gradient.is_sparse else gradient.to_dense()
    norm: Tensor = torch.linalg.vector_norm(gradient, dtype=torch.float64)
    return norm


def row_norms(gradient: Tensor) -> Tensor:
    """Return the L2 norm of each row of a gradient, in float64."""
    if gradient.layout is not torch.strided:
        gradient = gradient.to_dense()
    if gradient.dim() <= 1:
        return gradient.detach().abs().double().reshape(-1)
    norms: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1, dtype=torch.float64)
    return norms


def total_norm(gradients: Sequence[Tensor], *, small: bool) -> Tensor:
    """Return the L2 norm over all gradients together in float64.

    ``small``: dense gradients of one dtype and device with few elements; they are measured as one, because the
    operation costs more than its elements.
    """
    if small:
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        norm: Tensor = torch.linalg.vector_norm(flat, dtype=torch.float64)
    else:
        norm = torch.linalg.vector_norm(device_norms(gradients).norms)
    return norm


def nonfinite_elements(gradients: Sequence[Tensor]) -> Tensor:
    """Return counts of NaN and of ±Inf elements over all gradients [2] in float64."""
    counts = [torch.stack([gradient.isnan().sum(), gradient.isinf().sum()]) for gradient in gradients]
    return torch.stack(counts).sum(0).to(torch.float64)
