"""Explain a zero or missing gradient: why it is expected, or that it is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def explain_zero(cells: Mapping[str, Any]) -> str | None:
    """Return the column ``zero_explained`` for a row of ``heads``; None when no gradient was measured."""
    state = cells.get("grad_state")
    if state is None or state == "removed":
        return None
    if state == "frozen":
        return "frozen"
    if state == "nonfinite" or (state == "finite" and cells.get("grad_norm") != 0):
        return "not_zero"
    if cells.get("learnable_fraction") == 0:
        return "masked"
    if cells.get("relevant_fraction") == 0 or cells.get("effective_fraction") == 0:
        return "irrelevant"
    return "unexplained"
