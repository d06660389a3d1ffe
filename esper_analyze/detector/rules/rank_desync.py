"""Rule ``rank_desync``: what must be the same on every rank of a distributed training is not."""

from __future__ import annotations

from dataclasses import dataclass

from esper_analyze.detector.deferral_guards import LASTING, DeferralGuard
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.verdict import Excuse, Judgement, above, settle


@dataclass(frozen=True, slots=True)
class RankDesyncLimits(Limits):
    """Bounds on ``ranks.spread``: the difference between ranks as a share of the larger magnitude."""

    warning: float = limit(
        1e-4, "all-reduced numbers are equal to the bit, sums of them to float32 noise (1e-6)", at_least=0.0
    )
    critical: float = limit(1e-2, "ranks that differ by a per cent train different models", at_least=0.0)
    escalate: int = limit(0, "found when ranks are joined, after the training")


def judge(frame: Frame, memory: Memory, limits: RankDesyncLimits) -> list[Judgement]:  # noqa: ARG001
    """Judge each metric that is compared."""
    spread = frame["spread"]
    alone = Excuse(frame["ranks"].values < 2, "fewer than two ranks have it", quiet=True)
    return [settle("spread", spread, above(spread, limits.warning, limits.critical), excuses=[alone])]


def guard(frame: Frame, memory: Memory, limits: RankDesyncLimits) -> DeferralGuard:  # noqa: ARG001
    """Defer while the spread stays on the same side of both bounds."""
    return DeferralGuard(LASTING, {"spread": (limits.warning, limits.critical), "ranks": (2.0,)})


RULE = Rule(
    name="rank_desync",
    table="ranks",
    figures=("ranks",),
    columns=("spread", "ranks"),
    limits=RankDesyncLimits,
    judge=judge,
    guard=guard,
    title="Ranks are out of step",
    meaning="After the all-reduce every rank clips and takes the same gradient, with the same settings. These ranks do "
    "not: they train different models that drift apart.",
    look_first="A backward or a step outside the DistributedDataParallel wrapper, no_sync left on, a rank that stopped "
    "early on its own KL, settings or schedules that read local numbers.",
    reference="Li et al. 2020, PyTorch Distributed: gradients are averaged in backward, each rank steps by itself",
    examples=(
        Example("equal", "ok", {"spread": 0.0, "ranks": 2}),
        Example("float noise", "ok", {"spread": 3e-7, "ranks": 8}),
        Example("a little apart", "warning", {"spread": 1e-3, "ranks": 2}),
        Example("each its own gradient", "critical", {"spread": 0.4, "ranks": 2}),
        Example("NaN on one rank only", "critical", {"spread": float("inf"), "ranks": 2}),
        Example("compared with nothing", "no_data", {"spread": None, "ranks": 2}),
        Example("one rank", "not_applicable", {"spread": None, "ranks": 1}),
    ),
)
