"""Rule ``numerical_instability``: something that must be finite is NaN or ±Inf."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.deferral_guards import LASTING, DeferralGuard
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Statistic, limit
from esper_analyze.detector.signals import Frame, Signal
from esper_analyze.detector.verdict import Bounds, Judgement, settle

COUNTS = ("nan_grad_count", "inf_grad_count", "tensors_nonfinite", "ratio_nonfinite", "nonfinite_minibatches")
NUMBERS = ("policy_loss", "value_loss", "entropy_loss", "total_loss", "grad_norm_pre_clip", "kl_reference")
WATCHED = (*COUNTS, *NUMBERS)
SAID = "nonfinite_sources"


@dataclass(frozen=True, slots=True)
class NumericalInstabilityLimits(Limits):
    """Nothing to set: any NaN or ±Inf is critical."""

    escalate: int = limit(20, "20 updates of detail for non-finite numbers (set by design)")


def judge(frame: Frame, memory: Memory, limits: NumericalInstabilityLimits) -> list[Judgement]:  # noqa: ARG001
    """Judge how many of the watched columns speak of something non-finite; one is enough."""
    watched, unsaid = [frame[name] for name in WATCHED], frame[SAID].null
    values, null = np.array([signal.values for signal in watched]), np.array([signal.null for signal in watched])
    counted = ~null[: len(COUNTS)] & (values[: len(COUNTS)] > 0)
    nonfinite = ~(null | np.isfinite(values))
    speaking = np.concatenate([counted, nonfinite, ~unsaid[None]])
    sources = np.add.reduce(speaking, axis=0, dtype=np.float64)
    signal = Signal(SAID, sources, np.logical_and.reduce(null, axis=0) & unsaid)
    bounds = Bounds(critical=sources > 0, critical_at=0.0)
    return [settle(SAID, signal, bounds, missing="every finiteness count", nonfinite=False)]


def guard(frame: Frame, memory: Memory, limits: NumericalInstabilityLimits) -> DeferralGuard:  # noqa: ARG001
    """Defer while counts stay on the same side of 0 and everything else stays finite."""
    counts = dict.fromkeys(COUNTS, (0.0,))
    return DeferralGuard(LASTING, {**dict.fromkeys((*NUMBERS, SAID), ()), **counts})


def _cells(**changed: object) -> dict[str, object]:
    return {"nan_grad_count": 0, "inf_grad_count": 0, "tensors_nonfinite": 0, "policy_loss": 0.1, **changed}


RULE = Rule(
    name="numerical_instability",
    table="updates",
    figures=("losses", "tensors"),
    panels=("clipping.norm", "losses.loss"),
    columns=(*WATCHED, SAID),
    limits=NumericalInstabilityLimits,
    judge=judge,
    guard=guard,
    title="NaN or Inf",
    meaning="A gradient, loss, log-prob or ratio is NaN or infinite. One such step makes every parameter NaN, and "
    "everything after it is a consequence. The value is the number of watched columns that say so.",
    look_first="nonfinite_sources names what broke first; then rewards and observations of that rollout, then the "
    "scale of the value loss.",
    reference="A single NaN in loss or gradient makes every parameter NaN at the next step",
    examples=(
        Example("all finite", "ok", _cells()),
        Example("a NaN gradient", "critical", _cells(nan_grad_count=3)),
        Example("an infinite loss", "critical", _cells(policy_loss=float("inf"))),
        Example("a source was named", "critical", _cells(nonfinite_sources="values: 2")),
        Example("nothing was looked at", "no_data", dict.fromkeys((*WATCHED, SAID))),
    ),
    follows=(
        "first_ratio",
        "kl_spike",
        "ratio_explosion",
        "gradient_explosion",
        "value_divergence",
        "advantage_outlier",
        "lstm_explosion",
        "slot_gradient_explosion",
    ),
    finiteness=True,
    causes=("observations_changed",),
    statistics={SAID: Statistic("watched columns that are not finite or count what is not", "columns")},
    revision=2,
    restated=("value", VERDICT),
)
