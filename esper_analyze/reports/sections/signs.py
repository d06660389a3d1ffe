"""The state of a head, and of a recurrent state, in one sign and one word: what was measured and what was judged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from esper_analyze.detector.rule import Sign
from esper_analyze.detector.rules import RULES

UNMEASURED = Sign("–", "not measured", "no_data", "no gradient was measured")
_REMOVED = Sign("⊘", "removed", "not_applicable", "the model has none of its parameters any more")
_NONFINITE = Sign("▲", "exploding", "critical", "its gradient is NaN or infinite")
_UNEXPLAINED = Sign("○", "dead", "critical", "its gradient is {}, and nothing explains it")
_EXPLAINED = {
    "frozen": Sign("○", "frozen", "not_applicable", "nothing of it is trainable"),
    "irrelevant": Sign("◇", "irrelevant", "not_applicable", "never mattered for the action taken"),
    "masked": Sign("◇", "no choice", "not_applicable", "the masks leave it one action"),
}
_PARTLY = Sign("◐", "partly masked", "ok", "has a choice at some steps only")
_OK = Sign("●", "ok", "ok", "learning")
_ALL = 0.999
"""A learnable fraction below this is a head that is masked at some steps."""


def head_state(row: Mapping[str, Any], alarms: Mapping[str, str]) -> Sign:
    """Return the state of a head at its last row; ``alarms`` are open rules about it, each with its verdict.

    Bounds are the detector's alone: this only distinguishes what was measured.
    """
    norm, explained, learnable = row["grad_norm"], row["zero_explained"], row["learnable_fraction"]
    standing = _measured(row) or _of_rule(alarms, "heads", "groups")
    if standing is not None:
        return standing
    if explained in _EXPLAINED or learnable == 0:
        return _EXPLAINED.get(explained, _EXPLAINED["masked"])
    if norm is None:
        return UNMEASURED
    return _PARTLY if learnable is not None and learnable < _ALL else _OK


def _measured(row: Mapping[str, Any]) -> Sign | None:
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


_BROKEN = Sign("▲", "exploding", "critical", "h or c is NaN or infinite")
_BOUNDED = Sign("●", "ok", "ok", "alive and bounded")
_NO_STATE = Sign("–", "not measured", "no_data", "no recurrent state was handed over")


def recurrent_state(row: Mapping[str, Any], alarms: Mapping[str, str]) -> Sign:
    """Return the state of an LSTM's phase at its last row; ``alarms`` as for a head."""
    if row["has_nan"] or row["has_inf"]:
        return _BROKEN
    standing = _of_rule(alarms, "lstm")
    if standing is not None:
        return standing
    return _NO_STATE if row["c_env_rms_max"] is None and row["h_env_rms_max"] is None else _BOUNDED


def _of_rule(alarms: Mapping[str, str], *tables: str) -> Sign | None:
    """Return the sign of a rule over ``tables`` that is in alarm, with the alarm's verdict unless it has its own."""
    signing = [rule for rule in RULES if rule.table in tables and rule.sign is not None and rule.name in alarms]
    rule = min(signing, key=lambda rule: rule.sign_order, default=None)
    if rule is None or rule.sign is None or rule.sign.verdict:
        return None if rule is None else rule.sign
    return replace(rule.sign, verdict=alarms[rule.name])
