"""Numbers and counts as the page's sentences spell them."""

from __future__ import annotations

import math

from esper_analyze.terminal import cleaned

SIGNS = {"critical": "✗", "warning": "!", "no_data": "?", "info": "·", "ok": "✓"}
"""How a run stands, in one character of a list; the worst first."""


def number(value: float | None) -> str:
    """Return a number, and in words what is not finite."""
    if value is None:
        return "–"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "−Inf"
    return f"{value:,.6g}" if abs(value) >= 1000 else f"{value:.3g}"


def many(count: int, noun: str) -> str:
    """Return a count with its noun, "1 update" or "12 updates"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def times(count: int) -> str:
    """Return how often: once, twice, 3 times."""
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")


def lasting(seconds: float) -> str:
    """Return a duration: "12.5 s", "34 min", "5.6 h"."""
    if abs(seconds) < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if abs(seconds) < 7200 else f"{seconds / 3600:,.3g} h"


def on(subject: str) -> str:
    """Return " on <subject>", empty for the run itself."""
    return "" if subject == "run" else f" on {cleaned(subject, 40)}"


def tail(name: str, longest: int = 30) -> str:
    """Return the end of a qualified name, which tells more than its beginning."""
    shown = cleaned(name, 200)
    return shown if len(shown) <= longest else "…" + shown[1 - longest :]
