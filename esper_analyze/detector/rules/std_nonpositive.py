"""Rule ``std_nonpositive``: a Gaussian head has a standard deviation that no distribution can have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.conditions.applicability import not_gaussian
from esper_analyze.detector.deferral_guards import LASTING, DeferralGuard, same
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, Statistic, limit
from esper_analyze.detector.signals import Frame, Signal
from esper_analyze.detector.verdict import Bounds, Judgement, settle

_SMALLEST = "std_min"


@dataclass(frozen=True, slots=True)
class StdNonpositiveLimits(Limits):
    """Nothing to set: a standard deviation of 0 or less, or one that is not finite, is critical."""

    escalate: int = limit(20, "20 updates of detail for non-finite numbers (set by design)")


def judge(frame: Frame, memory: Memory, limits: StdNonpositiveLimits) -> list[Judgement]:  # noqa: ARG001
    """Judge the smallest standard deviation; the mean where a log has no more."""
    smallest, mean, share = frame[_SMALLEST], frame["std_mean"], frame["std_nonpositive_fraction"]
    values = np.where(smallest.null | mean.nonfinite, mean.values, smallest.values)
    signal = Signal(_SMALLEST, values, mean.null)
    broken = (signal.values <= 0.0) | (share.finite & (share.values > 0.0))
    bounds = Bounds(critical=broken, critical_at=0.0)
    return [settle(_SMALLEST, signal, bounds, excuses=[not_gaussian(frame)], missing=mean.name)]


def guard(frame: Frame, memory: Memory, limits: StdNonpositiveLimits) -> DeferralGuard:  # noqa: ARG001
    """Defer while all stay on the same side of 0."""
    watched = dict.fromkeys((_SMALLEST, "std_mean", "std_nonpositive_fraction"), (0.0,))
    return DeferralGuard(LASTING, {**watched, "kind": same(frame["kind"])})


def _cells(
    smallest: float | None, mean: float | None = 0.5, share: float | None = 0.0, kind: str | None = "gaussian"
) -> dict[str, object]:
    return {"std_min": smallest, "std_mean": mean, "std_nonpositive_fraction": share, "kind": kind}


RULE = Rule(
    name="std_nonpositive",
    table="heads",
    panels=("heads.head",),
    columns=("std_mean", _SMALLEST, "std_nonpositive_fraction", "kind"),
    context=(_SMALLEST, "std_nonpositive_fraction", "kind"),
    limits=StdNonpositiveLimits,
    judge=judge,
    guard=guard,
    title="A standard deviation is not positive",
    meaning="A Gaussian head has a standard deviation that is 0, negative or not finite. Its log-probs are NaN or "
    "infinite, and the next sampling ends the training: torch refuses it as `normal expects all elements of std "
    ">= 0.0`.",
    look_first="heads.std_min_dimension names the dimension of the action. A standard deviation that is itself a "
    "parameter may be stepped below 0: learn its logarithm, or bound it from below. If it is NaN: what was not finite "
    "first, in updates.nonfinite_sources.",
    reference="torch.distributions.Normal: scale > 0; reports of `normal expects all elements of std >= 0.0` in six "
    "public robotics projects",
    examples=(
        Example("positive", "ok", _cells(0.2)),
        Example("one dimension at 0", "critical", _cells(0.0, 0.5, 0.1)),
        Example("negative", "critical", _cells(-0.01, 0.5, 0.1)),
        Example("NaN", "critical", _cells(float("nan"), float("nan"), 1.0)),
        Example("a log with the mean alone", "ok", _cells(None, 0.5, None)),
        Example("a log with a negative mean", "critical", _cells(None, -0.1, None)),
        Example("a categorical head", "not_applicable", _cells(None, None, None, "categorical")),
        Example("not recorded", "no_data", _cells(None, None, None)),
    ),
    causes=("setting_changed", "observations_changed", "parameters_changed", "numerical_instability"),
    follows=("std_collapse", "kl_spike"),
    higher_is_worse=False,
    optional=True,
    statistics={_SMALLEST: Statistic("smallest standard deviation")},
)
