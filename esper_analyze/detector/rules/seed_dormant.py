"""Rule ``seed_dormant``: a seed module that should train gets hardly any gradient compared with its host, or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.deferral_guards import DeferralGuard, until
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, Statistic, limit
from esper_analyze.detector.rules.seeds import CONTEXT, FAST, RATIO, disconnected, judged, known_sides, not_training
from esper_analyze.detector.signals import Frame, Signal
from esper_analyze.detector.streaks import streak, zeros
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle


@dataclass(frozen=True, slots=True)
class SeedDormantLimits(Limits):
    """Bounds on ``slots.normalized_ratio``."""

    warning: float = limit(RATIO, "below 0.1 the host dominates (gradient review)")
    critical: float = limit(0.01, "below 0.01 the seed module is dormant (gradient review)")
    sustained: int = limit(3, "as gradient_vanishing: a single quiet update does not count", at_least=1)


def judge(frame: Frame, memory: Memory, limits: SeedDormantLimits) -> list[Judgement]:
    """Judge the seed module's share of the gradient, and whether it gets any; a fast host is information."""
    excuses = not_training(frame)
    return [_share(frame, memory, limits, excuses), _reach(frame, memory, limits, excuses)]


def _share(frame: Frame, memory: Memory, limits: SeedDormantLimits, excuses: Sequence[Excuse]) -> Judgement:
    ratio = frame["normalized_ratio"]
    usable = ratio.finite & judged(frame, excuses)
    low = usable & (ratio.values < limits.warning)
    seed_fault = low & ~frame["low_ratio_cause"].equals(FAST)
    dead = seed_fault & (ratio.values < limits.critical)
    bounds = Bounds(
        info=streak(low, usable & ~low, memory["low"]) >= limits.sustained,
        warning=streak(seed_fault, usable & ~seed_fault, memory["own"]) >= limits.sustained,
        critical=streak(dead, usable & ~dead, memory["dead"]) >= limits.sustained,
        warning_at=limits.warning,
        critical_at=limits.critical,
    )
    elsewhere = Excuse(disconnected(frame), "disconnected: judged by low_ratio_cause", quiet=True)
    alone = Excuse(frame["host_elements"].equals(0.0), "the host has no gradient to hold the seed's against")
    return settle(ratio.name, ratio, bounds, excuses=[*excuses, elsewhere, alone])


def _reach(frame: Frame, memory: Memory, limits: SeedDormantLimits, excuses: Sequence[Excuse]) -> Judgement:
    """Judge whether any tensor of the seed module has a gradient; 1 means none has."""
    cut, trains = disconnected(frame), judged(frame, excuses)
    lost = streak(cut & trains, trains & ~cut, memory["lost"]) >= limits.sustained
    reached = Signal("low_ratio_cause", np.where(cut, 1.0, 0.0), frame["should_train"].null)
    return settle(reached.name, reached, Bounds(critical=lost), missing="should_train", excuses=excuses)


def guard(frame: Frame, memory: Memory, limits: SeedDormantLimits) -> DeferralGuard:
    """Defer while ratios stay on the same side of both bounds and the context stays the same."""
    sides = known_sides(frame) | {"normalized_ratio": (limits.warning, limits.critical), "host_elements": (0.0,)}
    return DeferralGuard(min(until(memory[name], limits.sustained) for name in ("low", "own", "dead", "lost")), sides)


def _cells(*ratios: float | None, cause: object = None, trains: bool = True, tensors: int = 4) -> dict[str, object]:
    return {
        "normalized_ratio": list(ratios),
        "low_ratio_cause": cause,
        "should_train": trains,
        "tensors": tensors,
        "host_elements": 100,
    }


RULE = Rule(
    name="seed_dormant",
    table="slots",
    columns=("normalized_ratio", *CONTEXT, "host_elements"),
    context=(*CONTEXT, "host_elements"),
    limits=SeedDormantLimits,
    judge=judge,
    guard=guard,
    title="A seed module does not learn",
    meaning="The seed module is in a stage in which it should train, and its gradient is at most a tenth of its "
    "host's, each divided by the root of its number of parameters; or none of its tensors has a gradient "
    "(low_ratio_cause disconnected, critical). It distinguishes a seed module that never learnt (dormant) from one "
    "whose gradient faded (saturated), and from a host that learns faster than usual, which is information.",
    look_first="low_ratio_cause and tensors_without_grad; disconnected: a detach() between seed module and loss; "
    "dormant: alpha, and layers initialised to 0; saturated: activations of the seed module, its learning rate.",
    reference="Gradient norms per parameter (norm / sqrt(elements)), so that modules of different size compare",
    examples=(
        Example("as active as its host", "ok", _cells(0.8)),
        Example("low for two updates", "ok", _cells(0.05, 0.05, cause="dormant"), updates=2),
        Example("low for three updates", "warning", _cells(0.05, 0.05, 0.05, cause="dormant"), updates=3),
        Example("faded to nothing", "critical", _cells(0.8, *[0.001] * 3, cause=[None, *["saturated"] * 3]), updates=4),
        Example(
            "low because the host learns fast", "info", _cells(*[0.005] * 3, cause="host_learning_fast"), updates=3
        ),
        Example("no gradient reaches it", "critical", _cells(*[None] * 3, cause="disconnected"), updates=3),
        Example(
            "only some of its tensors are reached", "warning", _cells(*[0.03] * 3, cause="disconnected"), updates=3
        ),
        Example("fossilised", "not_applicable", _cells(0.001, trains=False)),
        Example("nothing in it to train", "not_applicable", _cells(None, tensors=0)),
        Example("a host without gradient", "not_applicable", _cells(None) | {"host_elements": 0}),
        Example("NaN never passes", "critical", _cells(float("nan"))),
        Example("not recorded", "no_data", _cells(None)),
    ),
    memory={"low": zeros, "own": zeros, "dead": zeros, "lost": zeros},
    causes=("slot_gradient_vanishing",),
    confirmed_by="sustained",
    higher_is_worse=False,
    statistics={"low_ratio_cause": Statistic("low_ratio_cause (1: no tensor has a gradient)")},
)
