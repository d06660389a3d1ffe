"""Which elements of a long array stand for all of it."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

GOLDEN = (math.sqrt(5) - 1) / 2
"""Its multiples modulo 1 lie evenly, and in step with no row length (Weyl 1916)."""


@lru_cache(maxsize=256)
def spread(length: int, count: int) -> npt.NDArray[np.int64]:
    """Return at most ``count`` positions below ``length`` in order, one in each of as many equal parts of it.

    All positions if there are no more. Where in its part each lies differs from part to part.
    """
    if length <= count:
        return np.arange(length)
    parts = np.arange(count)
    return np.unique(((parts + parts * GOLDEN % 1.0) * (length / count)).astype(np.int64))


@lru_cache(maxsize=1024)
def spread_on(length: int, count: int, device: torch.device) -> Tensor:
    """Return ``spread`` as an index on a device."""
    return torch.from_numpy(spread(length, count)).to(device, non_blocking=True)
