"""Rule ``lstm_saturation``: gates or hidden units of the LSTM sit at the ends of their range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.conditions.convergence import AT_BEST, EPISODE_RETURN
from esper_analyze.detector.conditions.shared import free, held
from esper_analyze.detector.deferral_guards import FREE, LASTING, DeferralGuard, Side
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Sign, limit
from esper_analyze.detector.signals import Bools, Frame, Signal
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle

GATES = ("forget_saturation", "input_saturation", "output_saturation")


@dataclass(frozen=True, slots=True)
class LstmSaturationLimits(Limits):
    """Bounds on shares of saturated units."""

    warning: float = limit(0.5, "half of the units (set by design)", at_least=0.0)
    critical: float = limit(0.9, "nine of ten units (set by design)", at_least=0.0)


def judge(frame: Frame, memory: Memory, limits: LstmSaturationLimits) -> list[Judgement]:  # noqa: ARG001
    """Judge the share of hidden units with |h| > 0.99, and of gate values within 0.05 of 0 or 1."""
    hidden, learnt = frame["h_saturation"], AT_BEST.holds(frame)
    rollout = np.array([[name == "rollout" for name in frame.subjects]])
    judged = [settle(hidden.name, hidden, _bounds(hidden, learnt, limits))]
    for name in GATES:
        gate = frame[name]
        unlooked = Excuse(gate.null & rollout, "gates are looked at in minibatches, not in the rollout", quiet=True)
        judged.append(settle(name, gate, _bounds(gate, learnt, limits), excuses=[unlooked]))
    return judged


def _bounds(share: Signal, learnt: Bools, limits: LstmSaturationLimits) -> Bounds:
    most, nearly_all = share.values > limits.warning, share.values > limits.critical
    return Bounds(
        info=most | nearly_all,
        warning=most & ~learnt,
        critical=nearly_all & ~learnt,
        warning_at=limits.warning,
        critical_at=limits.critical,
    )


def guard(frame: Frame, memory: Memory, limits: LstmSaturationLimits) -> DeferralGuard:  # noqa: ARG001
    """Defer while every share stays on the same side of both bounds, and success what it is where that matters."""
    shares: dict[str, Sequence[Side] | None] = dict.fromkeys(
        ("h_saturation", *GATES), (limits.warning, limits.critical)
    )
    least = min(limits.warning, limits.critical)
    high = any(np.count_nonzero(frame[name].values[-1] > least) for name in shares)
    shares[f"updates.{EPISODE_RETURN}"] = FREE
    return DeferralGuard(LASTING, {**shares, **(held(frame, AT_BEST) if high else free(AT_BEST))})


def _cells(hidden: float | None, forget: float | None = 0.1) -> dict[str, object]:
    return {"h_saturation": hidden, "forget_saturation": forget, "input_saturation": 0.1, "output_saturation": 0.1}


RULE = Rule(
    name="lstm_saturation",
    table="lstm",
    panels=("lstm.saturation",),
    sign=Sign("◇", "saturated", "", "most units or gates are at their ends"),
    sign_order=3,
    columns=("h_saturation", *GATES),
    beside={"updates": (EPISODE_RETURN,)},
    conditions=(AT_BEST,),
    limits=LstmSaturationLimits,
    judge=judge,
    guard=guard,
    title="LSTM saturated",
    meaning="Most units are at ±1, or most gates fully open or shut. Their derivatives are then near 0: the network "
    "remembers, but cannot learn to remember otherwise. Where returns stay near their best it is information: what it "
    "remembers is then what it has learnt.",
    look_first="Scale of the LSTM's inputs (normalise observations), learning rate of the recurrent layer, c_rms.",
    reference="Karpathy et al. 2015, Visualizing and Understanding Recurrent Networks",
    examples=(
        Example("in range", "ok", _cells(0.05)),
        Example("most hidden units", "warning", _cells(0.6)),
        Example("all forget gates", "critical", _cells(0.1, 0.95)),
        Example("NaN never passes", "critical", _cells(float("nan"))),
        Example("not recorded", "no_data", _cells(None)),
    ),
    causes=("numerical_instability", "lstm_nonfinite", "lstm_explosion"),
    revision=3,
    restated=(VERDICT,),
)
