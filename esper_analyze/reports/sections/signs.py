"""The state of a head, and of a recurrent state, in one sign and one word: what was measured and what was judged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class State:
    """A sign with its word, the verdict whose colour it has, and why it is so."""

    sign: str
    word: str
    verdict: str
    because: str

    def __str__(self) -> str:
        """Return sign and word."""
        return f"{self.sign} {self.word}"


UNMEASURED = State("–", "not measured", "no_data", "no gradient was measured")
_REMOVED = State("⊘", "removed", "not_applicable", "the model has none of its parameters any more")
_NONFINITE = State("▲", "exploding", "critical", "its gradient is NaN or infinite")
_UNEXPLAINED = State("○", "dead", "critical", "its gradient is {}, and nothing explains it")
_ALARMS = {
    "gradient_explosion": State("▲", "exploding", "critical", "far above its own past"),
    "head_entropy_collapse": State("◇", "deterministic", "", "its entropy collapsed"),
    "gradient_vanishing": State("▼", "vanishing", "warning", "its gradient has all but gone"),
    "gradient_missing": State("○", "dead", "critical", "its gradient is missing"),
}
_EXPLAINED = {
    "frozen": State("○", "frozen", "not_applicable", "nothing of it is trainable"),
    "irrelevant": State("◇", "irrelevant", "not_applicable", "never mattered for the action taken"),
    "masked": State("◇", "no choice", "not_applicable", "the masks leave it one action"),
}
_PARTLY = State("◐", "partly masked", "ok", "has a choice at some steps only")
_OK = State("●", "ok", "ok", "learning")
_ALL = 0.999
"""A learnable fraction below this is a head that is masked at some steps."""


def head_state(row: Mapping[str, Any], alarms: Mapping[str, str]) -> State:
    """Return the state of a head at its last row; ``alarms`` are open rules about it, each with its verdict.

    Bounds are the detector's alone: this only distinguishes what was measured.
    """
    norm, explained, learnable = row["grad_norm"], row["zero_explained"], row["learnable_fraction"]
    standing = _measured(row) or _first(_ALARMS, alarms)
    if standing is not None:
        return standing
    if explained in _EXPLAINED or learnable == 0:
        return _EXPLAINED.get(explained, _EXPLAINED["masked"])
    if norm is None:
        return UNMEASURED
    return _PARTLY if learnable is not None and learnable < _ALL else _OK


def _measured(row: Mapping[str, Any]) -> State | None:
    """Return the state that the row alone tells, before any alarm."""
    state, norm = row["grad_state"], row["grad_norm"]
    if state == "removed":
        return _REMOVED
    if state == "nonfinite" or (norm is not None and not math.isfinite(norm)):
        return _NONFINITE
    if row["zero_explained"] == "unexplained":
        what = "missing" if state == "missing" else "zero"
        return replace(_UNEXPLAINED, because=_UNEXPLAINED.because.format(what))
    return None


_BROKEN = State("▲", "exploding", "critical", "h or c is NaN or infinite")
_RECURRENT_ALARMS = {
    "lstm_nonfinite": _BROKEN,
    "lstm_explosion": State("▲", "exploding", "critical", "c leaves the range its gates can work in"),
    "lstm_vanishing": State("▼", "vanishing", "warning", "its size has all but gone"),
    "lstm_saturation": State("◇", "saturated", "", "most units or gates are at their ends"),
}
_BOUNDED = State("●", "ok", "ok", "alive and bounded")
_NO_STATE = State("–", "not measured", "no_data", "no recurrent state was handed over")


def recurrent_state(row: Mapping[str, Any], alarms: Mapping[str, str]) -> State:
    """Return the state of an LSTM's phase at its last row; ``alarms`` as for a head."""
    if row["has_nan"] or row["has_inf"]:
        return _BROKEN
    standing = _first(_RECURRENT_ALARMS, alarms)
    if standing is not None:
        return standing
    return _NO_STATE if row["c_env_rms_max"] is None and row["h_env_rms_max"] is None else _BOUNDED


def _first(states: Mapping[str, State], alarms: Mapping[str, str]) -> State | None:
    """Return the state of the first rule that is in alarm; where it has no verdict of its own, with the alarm's."""
    for rule, state in states.items():
        if rule in alarms:
            return state if state.verdict else replace(state, verdict=alarms[rule])
    return None
