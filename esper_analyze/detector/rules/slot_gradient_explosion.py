"""Rule ``slot_gradient_explosion``: tensors of a seed module get gradients many times their clip norm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.deferral_guards import LASTING, DeferralGuard, steady
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, Statistic, limit
from esper_analyze.detector.rules.seeds import CONTEXT, known_sides, not_training, unreached
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.streaks import recent, window
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle

LONGEST = 50
"""Bound on ``window``: the flags of so many updates are carried, whatever the window is set to."""


@dataclass(frozen=True, slots=True)
class SlotGradientExplosionLimits(Limits):
    """Bounds on ``slots.exploding_severity``; any NaN or ±Inf is critical at once."""

    warning: float = limit(0.0, "any tensor (set by design)", at_least=0.0)
    critical: float = limit(0.5, "half of the tensors, that many included (set by design)", at_least=0.0)
    window_hits: int = limit(2, "as gradient_explosion: once is information", at_least=1)
    window: int = limit(5, "as kl_spike: the present update included", at_least=1, below=LONGEST + 1)


def judge(frame: Frame, memory: Memory, limits: SlotGradientExplosionLimits) -> list[Judgement]:
    """Judge the share of tensors above ten times the clip norm, in every stage in which there is a gradient."""
    share, broken = frame["exploding_severity"], frame["tensors_nonfinite"]
    some, half = share.finite & (share.values > limits.warning), share.finite & (share.values >= limits.critical)
    halves = recent(half, memory["half"], limits.window) >= limits.window_hits
    nonfinite = ~broken.null & (broken.values > 0.0)
    bounds = Bounds(
        info=some,
        warning=recent(some, memory["some"], limits.window) >= limits.window_hits,
        critical=halves | nonfinite,
        warning_at=limits.warning,
        critical_at=limits.critical,
    )
    nothing = [*not_training(frame), unreached(frame)]
    excuses = [Excuse(excuse.where & share.null, f"no gradient: {excuse.why}", excuse.quiet) for excuse in nothing]
    severity = np.where(nonfinite & ~halves, np.inf, share.values)
    return [settle(share.name, share, bounds, excuses=excuses, judged=severity)]


def guard(frame: Frame, memory: Memory, limits: SlotGradientExplosionLimits) -> DeferralGuard | None:
    """Defer while shares stay on the same side of the bounds and the context stays the same."""
    if not all(steady(memory[name], limits.window) for name in ("some", "half")):
        return None
    sides = known_sides(frame) | {"normalized_ratio": (), "tensors_nonfinite": (0.0,)}
    return DeferralGuard(LASTING, sides | {"exploding_severity": (limits.warning, limits.critical)})


def _cells(*shares: float | None, broken: int | None = 0, trains: bool = True) -> dict[str, object]:
    return {
        "exploding_severity": list(shares),
        "tensors_nonfinite": broken,
        "normalized_ratio": 0.8,
        "low_ratio_cause": None,
        "should_train": trains,
        "tensors": 4,
    }


RULE = Rule(
    name="slot_gradient_explosion",
    table="slots",
    columns=("exploding_severity", "tensors_nonfinite", "normalized_ratio", *CONTEXT),
    context=("tensors_nonfinite", "normalized_ratio", *CONTEXT),
    limits=SlotGradientExplosionLimits,
    judge=judge,
    guard=guard,
    title="A seed module's gradients exploded",
    meaning="Tensors of the seed module get gradients above ten times the norm they are clipped to (5.0 without one), "
    "repeatedly: clipping leaves less than a tenth of each step, of the host's as well where both are clipped "
    "together. NaN or Inf is critical at once, half of the tensors when it comes again.",
    look_first="The update in which it began and the stage then: a higher alpha, a new blueprint; the seed module's "
    "learning rate and the scale of its input; host_grad_norm, whether the host exploded first.",
    reference="Clipping scales a gradient of ten times the clip norm down to a tenth",
    examples=(
        Example("in range", "ok", _cells(0.0)),
        Example("some tensor in one call of an update", "info", _cells(0.0, 0.01), updates=2),
        Example("twice within five updates", "warning", _cells(0.25, 0.0, 0.25), updates=3),
        Example("half of the tensors, twice", "critical", _cells(0.5, 0.5), updates=2),
        Example("a NaN in some tensor", "critical", _cells(0.01, broken=1)),
        Example("NaN never passes", "critical", _cells(float("nan"))),
        Example("an empty slot", "not_applicable", _cells(None, broken=None, trains=False)),
        Example("not recorded", "no_data", _cells(None, broken=None)),
    ),
    memory={"some": window(LONGEST), "half": window(LONGEST)},
    causes=("numerical_instability",),
    follows=("gradient_explosion",),
    statistics={"exploding_severity": Statistic("exploding_severity (Inf: a tensor is not finite)")},
    revision=2,
    restated=("value",),
)
