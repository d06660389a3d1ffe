"""Rule ``gradient_explosion``: a group's gradient is many times what it has been."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.baselines import (
    EARLY_MEMORY,
    MEDIAN_FIRST,
    early_known,
    early_level,
    recent_median,
    recent_median_memory,
    recent_median_steady,
)
from esper_analyze.detector.conditions.convergence import AT_BEST, EPISODE_RETURN
from esper_analyze.detector.conditions.shared import free, held
from esper_analyze.detector.deferral_guards import FREE, LASTING, DeferralGuard, Side, same, steady
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Sign, WarmUp, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.streaks import recent, window
from esper_analyze.detector.verdict import Bounds, Judgement, settle

LONGEST = 50
"""Bound on ``window``: the flags of so many updates are carried, whatever the window is set to."""

CLIP, RETURNS = "updates.max_grad_norm", f"updates.{EPISODE_RETURN}"

WARM_UP = WarmUp("too early to know its typical level", lambda _, __: MEDIAN_FIRST + 1)


@dataclass(frozen=True, slots=True)
class GradientExplosionLimits(Limits):
    """Bounds on ``groups.grad_norm`` over the group's own level: its rolling median, or its early mean if larger."""

    warning: float = limit(10.0, "10 × own rolling median (set by design)", at_least=1.0)
    critical: float = limit(100.0, "100 × own rolling median (set by design)", at_least=1.0)
    window_hits: int = limit(3, "a critic that has converged meets rare failures in sound runs too", at_least=1)
    window: int = limit(5, "as kl_spike: the present update included", at_least=1, below=LONGEST + 1)
    early_updates: int = limit(10, "updates whose mean is the group's own early level", at_least=1)


def judge(frame: Frame, memory: Memory, limits: GradientExplosionLimits) -> list[Judgement]:
    """Judge the norm before clipping against the group's own level; one crossing is information.

    So are ten times its level while returns rise or are at their best: critics meet rewards that they did not expect.
    """
    norm = frame["grad_norm"]
    early = early_level(norm.values, norm.finite, memory, limits.early_updates)
    level = np.maximum(recent_median(norm.values, norm.finite, memory, "level"), early)
    level = np.fmax(level, np.where(np.isnan(level), np.nan, frame[CLIP].values))
    comparable = norm.finite & (level > 0.0)
    crossed, far = (comparable & (norm.values > times * level) for times in (limits.warning, limits.critical))
    bounds = Bounds(
        info=crossed,
        warning=(recent(crossed, memory["crossed"], limits.window) >= limits.window_hits) & ~AT_BEST.holds(frame),
        critical=recent(far, memory["far"], limits.window) >= limits.window_hits,
        warning_at=limits.warning * level,
        critical_at=limits.critical * level,
    )
    young = WARM_UP.excuse(norm.finite & ~comparable)
    return [settle(norm.name, norm, bounds, excuses=[young], baseline=level)]


def guard(frame: Frame, memory: Memory, limits: GradientExplosionLimits) -> DeferralGuard | None:
    """Defer while norms stay on the same side of the bounds; bounds by a rolling median hold until it is refreshed."""
    norm = frame["grad_norm"]
    if not early_known(norm.finite, memory, limits.early_updates):
        return None
    if not all(steady(memory[name], limits.window) for name in ("crossed", "far")):
        return None
    crossed = np.count_nonzero(memory["crossed"][-limits.window :])
    beside: dict[str, Sequence[Side] | None] = {CLIP: same(frame[CLIP]), RETURNS: FREE}
    beside |= held(frame, AT_BEST) if crossed else free(AT_BEST)
    early = early_level(norm.values, norm.finite, memory, limits.early_updates)
    level = np.maximum(memory["level_level"], early)
    level = np.fmax(level, np.where(np.isnan(level), np.nan, frame[CLIP].values))
    lowest = min(limits.warning, limits.critical)
    lasting = recent_median_steady(memory, "level", norm.finite)
    low = norm.null | ((level > 0.0) & (early > 0.0) & (norm.values < lowest * early))
    if lasting and np.count_nonzero(low) == low.size:
        return DeferralGuard(LASTING, {norm.name: (lowest * early,), **beside})  # the level is never below early
    return DeferralGuard(lasting, {norm.name: (limits.warning * level, limits.critical * level), **beside})


def _cells(*values: float | None, clip: float | None = None) -> dict[str, object]:
    return {"grad_norm": list(values), CLIP: clip}


RISING = {RETURNS: [1.0 + 0.1 * i for i in range(25)]}

RULE = Rule(
    name="gradient_explosion",
    table="groups",
    figures=("drift", "layers"),
    panels=("clipping.norm", "heads.head"),
    sign=Sign("▲", "exploding", "critical", "far above its own past"),
    columns=("grad_norm",),
    beside={"updates": ("max_grad_norm", EPISODE_RETURN)},
    conditions=(AT_BEST,),
    limits=GradientExplosionLimits,
    warm_up=WARM_UP,
    judge=judge,
    guard=guard,
    title="Gradients exploded",
    meaning="The group's gradient norm before clipping is again and again ten times its usual value (the baseline: "
    "the median of its last 50 updates, or the mean of its first ten, or the clip norm if that is larger). Sound PPO "
    "runs permanently clip norms hundreds of times the clip norm, so the change matters, not the size; a norm below "
    "the clip norm is none that explodes. While returns rise or stay near their best it is an alarm from a hundred "
    "times on: a critic that meets new rewards has large gradients too.",
    look_first="Which group came first; rewards and returns of that rollout; first_ratio_error and ratio_max.",
    reference="Pascanu et al. 2013, On the difficulty of training recurrent neural networks",
    examples=(
        Example("steady", "ok", _cells(*[1.0] * 25), updates=25),
        Example("large all along", "ok", _cells(*[700.0] * 25), updates=25),
        Example("twenty times its level, once", "info", _cells(*[1.0] * 24, 20.0), updates=25),
        Example("twenty times its level, three times", "warning", _cells(*[1.0] * 22, *[20.0] * 3), updates=25),
        Example("and returns rose", "info", _cells(*[1.0] * 22, *[20.0] * 3) | RISING, updates=25),
        Example(
            "two hundred times, and returns rose", "critical", _cells(*[1.0] * 22, *[200.0] * 3) | RISING, updates=25
        ),
        Example("two hundred times its level, once", "info", _cells(*[1.0] * 24, 200.0), updates=25),
        Example("two hundred times its level, three times", "critical", _cells(*[1.0] * 22, *[200.0] * 3), updates=25),
        Example("it begins to learn", "ok", _cells(*[0.01] * 22, *[0.5] * 3, clip=1.0), updates=25),
        Example("infinite", "critical", _cells(*[1.0] * 24, float("inf")), updates=25),
        Example("NaN in the first update", "critical", _cells(float("nan"))),
        Example("too early to say", "not_applicable", _cells(1.0)),
        Example("no gradient", "no_data", _cells(None)),
    ),
    memory={"crossed": window(LONGEST), "far": window(LONGEST), **EARLY_MEMORY, **recent_median_memory("level")},
    causes=(
        "setting_changed",
        "observations_changed",
        "parameters_changed",
        "losses_inconsistent",
        "returns_inconsistent",
        "numerical_instability",
        "first_ratio",
        "kl_spike",
        "value_divergence",
    ),
    follows=(
        "ratio_explosion",
        "advantage_outlier",
    ),
    revision=3,
    restated=("threshold", "baseline", VERDICT),
)
