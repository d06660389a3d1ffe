"""Rule ``clipping_always``: nearly every optimizer step is clipped, and the norm grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.baselines import (
    EARLY_MEMORY,
    early_known,
    early_level,
    recent_median,
    recent_median_memory,
    recent_median_steady,
)
from esper_analyze.detector.conditions.applicability import NO_CLIP_CALL
from esper_analyze.detector.conditions.convergence import AT_BEST, EPISODE_RETURN
from esper_analyze.detector.conditions.shared import free, held
from esper_analyze.detector.deferral_guards import FREE, DeferralGuard, Side
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Statistic, limit
from esper_analyze.detector.signals import Frame, Signal
from esper_analyze.detector.streaks import streak, zeros
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle

UNCLIPPED: dict[str, Sequence[Side] | None] = {
    "max_grad_norm": (),
    "optimizer_steps": (0.0,),
    EPISODE_RETURN: FREE,
}
"""Sides of the columns that say that nothing is clipped, and of the one that a condition reads."""


@dataclass(frozen=True, slots=True)
class ClippingAlwaysLimits(Limits):
    """Bounds on ``updates.clip_active_fraction``, and on how far the norm has risen."""

    fraction: float = limit(0.9, "nine of ten steps (set by design)", at_least=0.0)
    sustained: int = limit(20, "20 updates in a row (set by design)", at_least=1)
    warning_rise: float = limit(
        100.0, "sound runs clip every step, and the norm of known ones rose by up to 60 times", at_least=1
    )
    critical_rise: float = limit(1000.0, "ten times the warning", at_least=1)
    early_updates: int = limit(10, "updates whose mean is the norm's own early level", at_least=1)


def judge(frame: Frame, memory: Memory, limits: ClippingAlwaysLimits) -> list[Judgement]:
    """Judge how long clipping has been the rule: information by itself, an alarm with a norm that rose."""
    share, norm = frame["clip_active_fraction"], frame["grad_norm_pre_clip"]
    high = share.finite & (share.values > limits.fraction)
    always = streak(high, share.finite & ~high, memory["high"]) >= limits.sustained
    early = early_level(norm.values, norm.finite, memory, limits.early_updates)
    level = recent_median(norm.values, norm.finite, memory, "norm")
    rise = level / early
    harmful = always & ~AT_BEST.holds(frame)
    bounds = Bounds(
        info=always,
        warning=harmful & (rise > limits.warning_rise),
        critical=harmful & (rise > limits.critical_rise),
        info_at=np.nan,
        warning_at=limits.warning_rise,
        critical_at=limits.critical_rise,
    )
    watched = Signal(share.name, np.where(norm.nonfinite, np.nan, share.values), share.null)
    unclipped = share.null & frame["max_grad_norm"].null & (frame["optimizer_steps"].values > 0)
    excuses = [Excuse(unclipped, NO_CLIP_CALL)]
    return [settle(share.name, watched, bounds, excuses=excuses, needs=[norm], baseline=early, judged=rise)]


def guard(frame: Frame, memory: Memory, limits: ClippingAlwaysLimits) -> DeferralGuard | None:
    """Defer while the share stays on the same side of the bound; how far the norm rose matters once that has lasted."""
    norm = frame["grad_norm_pre_clip"]
    soonest = limits.sustained - int(memory["high"].max()) - 1
    if soonest >= 0:  # shares that come and go cannot have lasted before that
        return DeferralGuard(soonest, {"clip_active_fraction": (), norm.name: (), **UNCLIPPED, **free(AT_BEST)})
    sides: dict[str, Sequence[Side] | None] = {"clip_active_fraction": (limits.fraction,), norm.name: (), **UNCLIPPED}
    sides |= held(frame, AT_BEST)
    if not early_known(norm.finite, memory, limits.early_updates):
        return None
    return DeferralGuard(recent_median_steady(memory, "norm", norm.finite), sides)


def _cells(share: object, norm: object = 3.0, bound: float | None = 0.5) -> dict[str, object]:
    return {
        "clip_active_fraction": share,
        "grad_norm_pre_clip": norm,
        "max_grad_norm": bound,
        "optimizer_steps": None if bound is share is norm is None else 8,
    }


RULE = Rule(
    name="clipping_always",
    table="updates",
    figures=("clipping", "losses"),
    panels=("clipping.norm", "clipping.share"),
    columns=(*_cells(None), EPISODE_RETURN),
    context=("max_grad_norm", "optimizer_steps", EPISODE_RETURN),
    conditions=(AT_BEST,),
    limits=ClippingAlwaysLimits,
    judge=judge,
    guard=guard,
    title="Every step is clipped",
    meaning="Nearly every optimizer step has been clipped for many updates: the clip norm, not the gradient, sets the "
    "length of the step. Most sound PPO runs do so, hence information only; it becomes an alarm when the norm before "
    "clipping has risen far above its early level meanwhile (the value is how many times, the baseline that level) and "
    "returns are not near their best.",
    look_first="grad_norm_pre_clip over time, scale of returns and vf_coef; then whether the clip norm is meant.",
    reference="Andrychowicz et al. 2021, What Matters in On-Policy RL, section on gradient clipping",
    examples=(
        Example("now and then", "ok", _cells(0.4)),
        Example("always, at a steady norm", "info", _cells(1.0), updates=25),
        Example("always, and thirty times the norm", "info", _cells(1.0, [*[1.0] * 20, *[30.0] * 40]), updates=60),
        Example("and three hundred times", "warning", _cells(1.0, [*[1.0] * 20, *[300.0] * 40]), updates=60),
        Example("and ten thousand times", "critical", _cells(1.0, [*[1.0] * 20, *[1e4] * 40]), updates=60),
        Example("not clipped", "not_applicable", _cells(None, bound=None), reason=NO_CLIP_CALL),
        Example("clipped several times a step", "no_data", _cells(None)),
        Example("not recorded", "no_data", _cells(None, None, None)),
    ),
    memory={"high": zeros, **EARLY_MEMORY, **recent_median_memory("norm")},
    causes=("numerical_instability", "value_divergence", "gradient_explosion"),
    confirmed_by="sustained",
    statistics={
        "clip_active_fraction": Statistic(
            "median of grad_norm_pre_clip over up to 50 updates, as a multiple of its early mean",
            baseline="an early mean",
        )
    },
    reach=70,  # the median of 50, refreshed after every twentieth
    revision=4,
    restated=("value", "threshold", "baseline", VERDICT),
)
