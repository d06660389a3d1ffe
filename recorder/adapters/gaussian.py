"""Standard deviations of a framework's own distribution, and which of its actions lie at a bound."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

Bounds = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def std_of(distribution: Any) -> Tensor | None:
    """Return the standard deviations of a normal distribution [..., dimensions], or of the one that is transformed.

    None of any other distribution.
    """
    while not isinstance(distribution, (Normal, MultivariateNormal)):
        distribution = getattr(distribution, "base_dist", None)
        if distribution is None:
            return None
    return distribution.stddev.detach()


def bounds_of(space: Any) -> Bounds | None:
    """Return the lower and upper bounds [dimensions] of a continuous action space; None if none is finite.

    A space is recognised by what gymnasium's ``Box`` has: TorchRL, which shares this file, does without gymnasium.
    """
    bounded = [getattr(space, side, None) for side in ("bounded_below", "bounded_above")]
    if not any(side is not None and side.any() for side in bounded):
        return None
    return space.low.reshape(-1), space.high.reshape(-1)
