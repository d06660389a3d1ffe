"""Rule ``lstm_saturation``: gates or hidden units of the LSTM sit at the ends of their range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.deferral_guards import LASTING, DeferralGuard
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Sign, limit
from esper_analyze.detector.signals import Frame, Signal
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle

GATES = ("forget_saturation", "input_saturation", "output_saturation")


@dataclass(frozen=True, slots=True)
class LstmSaturationLimits(Limits):
    """Bound on shares of saturated units."""

    info: float = limit(
        0.5,
        "half of the units. In the recurrent trainings of two releases of the fault bench it found no fault that "
        "no other rule had found before, and sound ones that must count reach 0.9: it is information",
        at_least=0.0,
    )
    escalate: int = limit(0, "information never escalates")


def judge(frame: Frame, memory: Memory, limits: LstmSaturationLimits) -> list[Judgement]:  # noqa: ARG001
    """Judge the share of hidden units with |h| > 0.99, and of gate values within 0.05 of 0 or 1."""
    hidden = frame["h_saturation"]
    rollout = np.array([[name == "rollout" for name in frame.subjects]])
    judged = [settle(hidden.name, hidden, _bounds(hidden, limits))]
    for name in GATES:
        gate = frame[name]
        unlooked = Excuse(gate.null & rollout, "gates are looked at in minibatches, not in the rollout", quiet=True)
        judged.append(settle(name, gate, _bounds(gate, limits), excuses=[unlooked]))
    return judged


def _bounds(share: Signal, limits: LstmSaturationLimits) -> Bounds:
    return Bounds(info=share.values > limits.info, info_at=limits.info)


def guard(frame: Frame, memory: Memory, limits: LstmSaturationLimits) -> DeferralGuard:  # noqa: ARG001
    """Defer while every share stays on the same side of the bound."""
    return DeferralGuard(LASTING, dict.fromkeys(("h_saturation", *GATES), (limits.info,)))


def _cells(hidden: float | None, forget: float | None = 0.1) -> dict[str, object]:
    return {"h_saturation": hidden, "forget_saturation": forget, "input_saturation": 0.1, "output_saturation": 0.1}


RULE = Rule(
    name="lstm_saturation",
    table="lstm",
    panels=("lstm.saturation",),
    sign=Sign("◇", "saturated", "", "most units or gates are at their ends"),
    sign_order=3,
    columns=("h_saturation", *GATES),
    limits=LstmSaturationLimits,
    judge=judge,
    guard=guard,
    title="LSTM saturated",
    meaning="Most units are at ±1, or most gates fully open or shut. Their derivatives are then near 0: the network "
    "remembers, but learns slowly to remember otherwise. A memory that has learnt to count, or to keep one of two "
    "things, is like that.",
    look_first="Scale of the LSTM's inputs (normalise observations), learning rate of the recurrent layer, c_rms.",
    reference="Karpathy et al. 2015, Visualizing and Understanding Recurrent Networks",
    examples=(
        Example("in range", "ok", _cells(0.05)),
        Example("most hidden units", "info", _cells(0.6)),
        Example("all forget gates", "info", _cells(0.1, 0.95)),
        Example("NaN never passes", "critical", _cells(float("nan"))),
        Example("not recorded", "no_data", _cells(None)),
    ),
    causes=("numerical_instability", "lstm_nonfinite", "lstm_explosion"),
    revision=4,
    restated=(VERDICT,),
)
