"""The state of a head in one sign and one word, from what was measured and what the detector says of it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class State:
    """A sign, a word, the verdict whose colour it has, and why."""

    sign: str
    word: str
    verdict: str
    why: str

    def __str__(self) -> str:
        """Return sign and word."""
        return f"{self.sign} {self.word}"


EXPLODING = State("▲", "exploding", "critical", "its gradient is far above what it usually is")
NONFINITE = State("▲", "NaN or Inf", "critical", "its gradient is NaN or infinite")
VANISHING = State("▼", "vanishing", "warning", "its gradient is nearly gone")
DEAD = State("○", "dead", "critical", "no gradient reaches it, and masks do not explain it")
COLLAPSED = State("◇", "deterministic", "warning", "one action where it had a choice")
MASKED = State("◇", "masked", "not_applicable", "one valid action at every step, expected")
IRRELEVANT = State("◇", "not relevant", "not_applicable", "no action taken depended on it, expected")
FROZEN = State("◇", "frozen", "not_applicable", "nothing in it is trained, expected")
PARTLY = State("◐", "partly masked", "info", "has a choice at some steps only")
OK = State("●", "ok", "ok", "learning")
UNMEASURED = State("·", "not measured", "no_data", "no gradient was measured")

_EXPLAINED = {"masked": MASKED, "irrelevant": IRRELEVANT, "frozen": FROZEN}
_ALARMS = (
    ("gradient_explosion", EXPLODING),
    ("gradient_missing", DEAD),
    ("gradient_vanishing", VANISHING),
    ("head_entropy_collapse", COLLAPSED),
)


def head_state(row: Mapping[str, Any], open_rules: Collection[str]) -> State:
    """Return the state of a head at its last row; ``open_rules`` name the rules that are in alarm about it.

    Bounds are the detector's alone: here only what was measured is told apart.
    """
    norm, explained = row["grad_norm"], row["zero_explained"]
    if row["grad_state"] == "nonfinite" or (norm is not None and not math.isfinite(norm)):
        return NONFINITE
    if explained == "unexplained":
        return DEAD
    for rule, state in _ALARMS:
        if rule in open_rules:
            return state
    if explained in _EXPLAINED:
        return _EXPLAINED[explained]
    if norm is None:
        return UNMEASURED
    learnable = row["learnable_fraction"]
    return PARTLY if learnable is not None and learnable < 1 else OK


BROKEN_STATE = State("▲", "NaN or Inf", "critical", "h or c is NaN or infinite")
BOUNDED = State("●", "ok", "ok", "alive and bounded")
NO_STATE = State("·", "not measured", "no_data", "no recurrent state was handed over")
_STATE_ALARMS = (
    ("lstm_nonfinite", BROKEN_STATE),
    ("lstm_explosion", State("▲", "exploding", "critical", "the cell state leaves the range its gates can work in")),
    ("lstm_vanishing", State("▼", "vanishing", "warning", "the recurrent state is nearly gone")),
    ("lstm_saturation", State("◇", "saturated", "warning", "most units or gates are at their ends")),
)


def recurrent_state(row: Mapping[str, Any], open_rules: Collection[str]) -> State:
    """Return the state of an LSTM's phase at its last row."""
    if row["has_nan"] or row["has_inf"]:
        return BROKEN_STATE
    for rule, state in _STATE_ALARMS:
        if rule in open_rules:
            return state
    return NO_STATE if row["c_env_rms_max"] is None and row["h_env_rms_max"] is None else BOUNDED
