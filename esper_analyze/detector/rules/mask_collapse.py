"""Rule ``mask_collapse``: a head hardly ever has a choice. An explanation, not an alarm."""

from __future__ import annotations

from dataclasses import dataclass

from esper_analyze.detector.conditions.applicability import not_categorical
from esper_analyze.detector.deferral_guards import LASTING, DeferralGuard, same
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.verdict import Bounds, Judgement, settle


@dataclass(frozen=True, slots=True)
class MaskCollapseLimits(Limits):
    """Bound on ``heads.learnable_fraction``."""

    info: float = limit(0.05, "a choice at fewer than one step in twenty (set by design)")
    escalate: int = limit(0, "an explanation never escalates")


def judge(frame: Frame, memory: Memory, limits: MaskCollapseLimits) -> list[Judgement]:  # noqa: ARG001
    """Say where the masks leave a head next to nothing to learn."""
    learnable = frame["learnable_fraction"]
    bounds = Bounds(info=learnable.values < limits.info, warning_at=limits.info)
    return [settle("learnable_fraction", learnable, bounds, excuses=[not_categorical(frame)])]


def guard(frame: Frame, memory: Memory, limits: MaskCollapseLimits) -> DeferralGuard:  # noqa: ARG001
    """Defer while the share stays on the same side of the bound."""
    return DeferralGuard(LASTING, {"learnable_fraction": (limits.info,), "kind": same(frame["kind"])})


RULE = Rule(
    name="mask_collapse",
    table="heads",
    panels=("heads.head",),
    columns=("learnable_fraction", "kind"),
    limits=MaskCollapseLimits,
    judge=judge,
    guard=guard,
    title="The masks leave no choice",
    meaning="At nearly every step the masks left this head one valid action. Its log-prob is then constant and its "
    "gradient zero: expected, not a bug.",
    look_first="Whether the environment should offer this head more actions.",
    reference="Without a choice, the gradient of a log-probability is exactly 0: such a zero is expected",
    examples=(
        Example("a choice at most steps", "ok", {"learnable_fraction": 0.7, "kind": "categorical"}),
        Example("no choice at all", "info", {"learnable_fraction": 0.0, "kind": "categorical"}),
        Example("a Gaussian head", "not_applicable", {"learnable_fraction": None, "kind": "gaussian"}),
        Example("not recorded", "no_data", {"learnable_fraction": None, "kind": "categorical"}),
    ),
    higher_is_worse=False,
)
