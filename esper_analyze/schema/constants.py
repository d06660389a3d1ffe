"""Numbers and names that the recorder, the detector and the report must agree on, stated once."""

from __future__ import annotations

HEAD_GROUP = "head:"
"""Begins the name of a head's own group of parameters in table ``groups``; the head's name follows."""
VANISHING = 1e-7
"""A tensor whose gradient norm is strictly below this has vanished (exact zeros too)."""
EXPLODING_FACTOR = 10.0
"""A tensor whose gradient norm is strictly above this multiple of max_grad_norm has exploded …"""
DEFAULT_CLIP_NORM = 0.5
"""… with this clip norm where the loop does not clip: 5.0."""
TINY_STD = 1e-12
"""Below this standard deviation, relative to the largest magnitude, skewness and kurtosis are undefined."""
VANISHING_WEIGHT, EXPLODING_WEIGHT = 0.5, 0.8


def gradient_health(vanishing: float, exploding: float, *, nonfinite: bool) -> float:
    """Return the health of a set of gradients, 0 to 1, of the shares of its tensors that vanished and exploded."""
    if nonfinite:
        return 0.0
    return min(max(1 - VANISHING_WEIGHT * vanishing - EXPLODING_WEIGHT * exploding, 0.0), 1.0)
