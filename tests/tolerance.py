"""Compare facts read on this processor with facts stored on another."""

from __future__ import annotations

import math
from typing import Any

RELATIVE = 1e-12
"""A mean or a fit sums in an order that depends on the processor's vector width: a few units in the last place, 2e-16
each, times the terms that cancel. Values that are integers, words, null and NaN do not depend on it."""


def differences(now: Any, then: Any, path: str = "") -> list[str]:
    """Return where ``now`` is not what was stored ``then``; all but floats with a fraction must be exactly the same.

    Floats with a fraction may differ by ``RELATIVE``. Empty: nothing differs.
    """
    if isinstance(now, dict) and isinstance(then, dict):
        keys = dict.fromkeys([*then, *now])
        missing = [f"{path}/{key}: only on one side" for key in keys if key not in now or key not in then]
        both = [key for key in keys if key in now and key in then]
        return missing + [text for key in both for text in differences(now[key], then[key], f"{path}/{key}")]
    if isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        pairs = enumerate(zip(now, then, strict=True))
        return [text for i, (one, other) in pairs for text in differences(one, other, f"{path}/{i}")]
    return [] if _same(now, then) else [f"{path}: {now!r}, stored {then!r}"]


def _same(now: Any, then: Any) -> bool:
    if type(now) is not type(then):
        return False
    if not isinstance(now, float) or now.is_integer() or then.is_integer():
        return bool(now == then)
    return math.isclose(now, then, rel_tol=RELATIVE) or (math.isnan(now) and math.isnan(then))
