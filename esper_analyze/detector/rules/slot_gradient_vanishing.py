"""Rule ``slot_gradient_vanishing``: tensors of a seed module that should train get hardly any gradient."""

from __future__ import annotations

from dataclasses import dataclass

from esper_analyze.detector.deferral_guards import DeferralGuard, until
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, limit
from esper_analyze.detector.rules.gradient_vanishing import sustained_bounds
from esper_analyze.detector.rules.seeds import CONTEXT, judged, known_sides, not_training, unreached
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.streaks import zeros
from esper_analyze.detector.verdict import Judgement, settle


@dataclass(frozen=True, slots=True)
class SlotGradientVanishingLimits(Limits):
    """Bounds on ``slots.vanishing_severity``, the mean over an update's calls."""

    warning: float = limit(
        0.25, "one tensor of a small sound seed module gets none: a bias before a normalisation", at_least=0.0
    )
    critical: float = limit(0.5, "as gradient_vanishing: half of the tensors, that many included", at_least=0.0)
    sustained: int = limit(3, "as gradient_vanishing: a single quiet update does not count", at_least=1)


def judge(frame: Frame, memory: Memory, limits: SlotGradientVanishingLimits) -> list[Judgement]:
    """Judge the share of vanished tensors in stages in which a seed module should train."""
    share, excuses = frame["vanishing_severity"], [*not_training(frame), unreached(frame)]
    usable = share.finite & judged(frame, excuses)
    bounds = sustained_bounds(share, usable, memory, limits.warning, limits.critical, (limits.sustained,) * 2)
    return [settle(share.name, share, bounds, excuses=excuses)]


def guard(frame: Frame, memory: Memory, limits: SlotGradientVanishingLimits) -> DeferralGuard:
    """Defer while shares stay on the same side of both bounds and the context stays the same."""
    sides = known_sides(frame) | {"normalized_ratio": (), "vanishing_severity": (limits.warning, limits.critical)}
    return DeferralGuard(min(until(memory[name], limits.sustained) for name in ("some", "half")), sides)


def _cells(*shares: float | None, trains: bool = True) -> dict[str, object]:
    return {
        "vanishing_severity": list(shares),
        "normalized_ratio": 0.8,
        "low_ratio_cause": None,
        "should_train": trains,
        "tensors": 4,
    }


RULE = Rule(
    name="slot_gradient_vanishing",
    table="slots",
    columns=("vanishing_severity", "normalized_ratio", *CONTEXT),
    context=("normalized_ratio", *CONTEXT),
    limits=SlotGradientVanishingLimits,
    judge=judge,
    guard=guard,
    title="A seed module's gradients vanished",
    meaning="More than a quarter of the tensors of a seed module that should train get gradients below 1e-7: these "
    "layers do not learn.",
    look_first="Layers initialised to 0 (layers before them get no gradient at first); saturated activations in the "
    "seed module; alpha at 0 in a blend that passes no gradient.",
    reference="A tensor without a gradient does not learn, whatever the norm of its module (gradient review)",
    examples=(
        Example("in range", "ok", _cells(0.0)),
        Example("one bias of six tensors", "ok", _cells(*[1 / 6] * 5), updates=5),
        Example("two quiet updates", "ok", _cells(0.3, 0.3), updates=2),
        Example("some tensors, for three updates", "warning", _cells(0.3, 0.3, 0.3), updates=3),
        Example("most tensors", "critical", _cells(0.8, 0.8, 0.8), updates=3),
        Example("dormant", "not_applicable", _cells(1.0, trains=False)),
        Example("NaN never passes", "critical", _cells(float("nan"))),
        Example("not recorded", "no_data", _cells(None)),
    ),
    memory={"some": zeros, "half": zeros},
    causes=("numerical_instability",),
    confirmed_by="sustained",
)
