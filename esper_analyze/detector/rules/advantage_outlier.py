"""Rule ``advantage_outlier``: a single sample's advantage outweighs the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.deferral_guards import LASTING, DeferralGuard
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, Statistic, limit
from esper_analyze.detector.signals import Frame, Signal
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle

TINY = 1e-12
"""Bound under which a standard deviation is too small to scale by."""

NARROWER = 0.7
"""Share of a spread that the next ones may come down to before they are looked at again."""
SAFE = 0.999
"""Share of a bound up to which rounding cannot carry a quotient over it."""


@dataclass(frozen=True, slots=True)
class AdvantageOutlierLimits(Limits):
    """Bounds on the largest advantage in standard deviations from 0."""

    info: float = limit(10.0, "sound runs with rare failures get there every 50 updates (set by design)", at_least=0.0)
    warning: float = limit(50.0, "possible only with at least 2,500 samples (set by design)", at_least=0.0)


def judge(frame: Frame, memory: Memory, limits: AdvantageOutlierLimits) -> list[Judgement]:  # noqa: ARG001
    """Judge max(|advantage|) / std."""
    low, high, spread = frame["advantage_min"], frame["advantage_max"], frame["advantage_std"]
    constant = Excuse(spread.finite & (spread.values < TINY), "the advantages do not differ: see advantage_collapse")
    size = np.maximum(np.abs(low.values), np.abs(high.values)) / spread.values
    size = np.where(spread.nonfinite, np.nan, size)
    outlier = Signal("advantage_max", size, high.null)
    bounds = Bounds(
        info=outlier.values > limits.info,
        warning=outlier.values > limits.warning,
        info_at=limits.info,
        warning_at=limits.warning,
    )
    return [settle("advantage_max", outlier, bounds, excuses=[constant], needs=[low, spread])]


def guard(frame: Frame, memory: Memory, limits: AdvantageOutlierLimits) -> DeferralGuard | None:  # noqa: ARG001
    """Defer while no quotient of advantages and their spread can come near a bound."""
    low, high, spread = frame["advantage_min"], frame["advantage_max"], frame["advantage_std"]
    if np.count_nonzero(low.null & high.null & spread.null) == low.null.size:
        return DeferralGuard(LASTING, dict.fromkeys((low.name, high.name, spread.name), ()))
    narrowest = NARROWER * spread.values
    widest = SAFE * min(limits.info, limits.warning) * narrowest
    calm = (narrowest > TINY) & (np.abs(low.values) < widest) & (np.abs(high.values) < widest) & (widest < np.inf)
    if np.count_nonzero(calm) < calm.size:
        return None
    return DeferralGuard(
        LASTING, {low.name: (-widest, widest), high.name: (-widest, widest), spread.name: (narrowest,)}
    )


def _cells(low: float | None, high: float | None, spread: float | None = 1.0) -> dict[str, object]:
    return {"advantage_min": low, "advantage_max": high, "advantage_std": spread}


RULE = Rule(
    name="advantage_outlier",
    table="updates",
    figures=("value",),
    panels=("value.advantages",),
    columns=("advantage_min", "advantage_max", "advantage_std"),
    limits=AdvantageOutlierLimits,
    judge=judge,
    guard=guard,
    title="One advantage outweighs the rest",
    meaning="After normalisation one sample has ten times the weight of a usual one, or more; the minibatch it is in "
    "trains on that sample. The value is max(|advantage|) / standard deviation.",
    look_first="The reward of that sample and whether the environment should give it; reward clipping or scaling; "
    "the worst transitions of the update.",
    reference="Engstrom et al. 2020, Implementation Matters in Deep RL (reward scaling and clipping)",
    examples=(
        Example("a usual rollout", "ok", _cells(-3.0, 4.0)),
        Example("one far out", "info", _cells(-3.0, 14.0)),
        Example("one that is everything", "warning", _cells(-80.0, 1.0)),
        Example("all the same", "not_applicable", _cells(0.5, 0.5, 0.0)),
        Example("NaN never passes", "critical", _cells(float("nan"), 1.0)),
        Example("not recorded", "no_data", _cells(None, None, None)),
    ),
    causes=("numerical_instability", "advantage_collapse"),
    follows=("value_divergence",),
    statistics={"advantage_max": Statistic("largest |advantage|", "standard deviations")},
    revision=2,
    restated=("threshold",),
)
