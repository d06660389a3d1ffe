"""Rule ``gradient_missing``: a head gets no gradient, or exactly zero, and nothing explains it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.deferral_guards import LASTING, DeferralGuard, same
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, Sign, Statistic
from esper_analyze.detector.signals import Frame, Signal, choice_code
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle

_UNEXPLAINED = choice_code("heads", "zero_explained", "unexplained")
_MISSING = choice_code("heads", "grad_state", "missing")
_FROZEN = choice_code("heads", "grad_state", "frozen")
_REMOVED = choice_code("heads", "grad_state", "removed")


@dataclass(frozen=True, slots=True)
class GradientMissingLimits(Limits):
    """No bounds: a gradient is there or not."""


def judge(frame: Frame, memory: Memory, limits: GradientMissingLimits) -> list[Judgement]:  # noqa: ARG001
    """Judge heads whose gradient is missing (critical) or exactly zero (warning) without a reason."""
    state, explained = frame["grad_state"], frame["zero_explained"]
    unexplained = explained.equals(_UNEXPLAINED)
    bounds = Bounds(warning=unexplained, critical=unexplained & state.equals(_MISSING))
    frozen = Excuse(state.equals(_FROZEN), "frozen: nothing in this head is trainable")
    removed = Excuse(state.equals(_REMOVED), "removed: the model has no parameters of this head any more")
    without = np.where(state.equals(_MISSING), 1.0, 0.0)
    signal = Signal("grad_state", without, state.null)
    return [settle(signal.name, signal, bounds, excuses=[frozen, removed], needs=[explained])]


def guard(frame: Frame, memory: Memory, limits: GradientMissingLimits) -> DeferralGuard:  # noqa: ARG001
    """Defer while both texts stay the same."""
    return DeferralGuard(LASTING, {name: same(frame[name]) for name in ("grad_state", "zero_explained")})


def _cells(state: str | None, explained: str | None) -> dict[str, object]:
    return {"grad_state": state, "zero_explained": explained}


RULE = Rule(
    name="gradient_missing",
    table="heads",
    panels=("heads.head",),
    sign=Sign("○", "dead", "critical", "its gradient is missing"),
    sign_order=3,
    columns=("grad_state", "zero_explained"),
    limits=GradientMissingLimits,
    judge=judge,
    guard=guard,
    title="A head gets no gradient",
    meaning="The head's parameters have no gradient at all (critical) or exactly zero (warning), although its masks "
    "gave it a choice that mattered. It does not learn. A policy that has become deterministic has exact zeros, too.",
    look_first="Whether the head's log-prob is part of the loss, a detach() or no_grad() on its way, an optimizer "
    "that does not hold it.",
    reference="A gradient that is None was never computed, which differs from one of 0.0",
    examples=(
        Example("learning", "ok", _cells("finite", "not_zero")),
        Example("zero because masked", "ok", _cells("finite", "masked")),
        Example("zero for an unknown reason", "warning", _cells("finite", "unexplained")),
        Example("no gradient", "critical", _cells("missing", "unexplained")),
        Example("no gradient, but masked all along", "ok", _cells("missing", "masked")),
        Example("frozen on purpose", "not_applicable", _cells("frozen", "frozen")),
        Example("its parameters are gone", "not_applicable", _cells("removed", None)),
        Example("not recorded", "no_data", _cells(None, None)),
        Example("the reason was not examined", "no_data", _cells("missing", None)),
    ),
    statistics={"grad_state": Statistic("grad_state (1: missing, 0: zero)")},
)
