"""Gradient norms, tensor by tensor, without overflow: 1e20 does not become Inf and 1e-30 does not become 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SMALL = 1 << 16
"""Models up to this many parameters are measured from one flat copy of their gradients a step: for them operations
cost, not elements."""
TRUSTED = (1e-14, 1e18)
"""Between these a float32 L2 norm has neither over- nor underflowed in its squares."""


@dataclass(frozen=True, slots=True)
class Norms:
    """L2 norms of gradient tensors.

    ``norms`` [T]: in float64, or in the gradients' own float32 where none over- or underflowed. ``total``: the norm
    over all of them by the operations ``torch.nn.utils.clip_grad_norm_`` takes, so equal to its result to the last
    bit; None where it was not computed that way. ``sound``: the norms were read and are all finite.
    """

    norms: Tensor
    total: Tensor | None
    sound: bool = False  # read, and all finite


def plain_norms(gradients: Sequence[Tensor]) -> Norms:
    """Return the norms of dense gradients in their own dtype, as torch's clipping computes them on the host."""
    vector_norm = torch.linalg.vector_norm
    norms = torch.stack([vector_norm(gradient) for gradient in gradients])
    return Norms(norms, vector_norm(norms))


def host_norms(gradients: Sequence[Tensor]) -> Norms:
    """Return the norms of large float32 or float64 gradients in host memory, without over- or underflow.

    The host may read the numbers: norms whose float32 squares over- or underflow are recomputed in float64.
    """
    plain = plain_norms(gradients)
    magnitudes = plain.norms.numpy()
    low, high = TRUSTED
    doubtful = np.flatnonzero(~((magnitudes > low) & (magnitudes < high)))
    if not len(doubtful):
        return Norms(plain.norms, plain.total, sound=True)
    exact = plain.norms.double()
    for index in doubtful.tolist():
        exact[index] = torch.linalg.vector_norm(gradients[index], dtype=torch.float64)
    return Norms(exact, plain.total)


def device_norms(gradients: Sequence[Tensor]) -> Norms:
    """Return the norms of any gradients in float64, without reading them on the host."""
    return Norms(torch.stack([_norm(gradient) for gradient in gradients]), None)


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


def total_norm(gradients: Sequence[Tensor], *, small: bool, on_host: bool) -> Tensor:
    """Return the L2 norm over all gradients together in float64.

    ``small``: dense gradients of one dtype and device with few elements; they are measured as one, because the
    operation costs more than its elements. ``on_host``: dense ones in host memory, see ``host_norms``.
    """
    if small:
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        norm: Tensor = torch.linalg.vector_norm(flat, dtype=torch.float64)
    else:
        measured = host_norms(gradients) if on_host else device_norms(gradients)
        norm = torch.linalg.vector_norm(measured.norms, dtype=torch.float64)
    return norm


def nonfinite_elements(gradients: Sequence[Tensor]) -> Tensor:
    """Return counts of NaN and of ±Inf elements over all gradients [2] in float64."""
    counts = [torch.stack([gradient.isnan().sum(), gradient.isinf().sum()]) for gradient in gradients]
    return torch.stack(counts).sum(0).to(torch.float64)
