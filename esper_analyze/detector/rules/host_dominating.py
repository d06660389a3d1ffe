"""Rule ``host_dominating``: the host's gradient is large and dominates that of a seed module that has not changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.deferral_guards import DeferralGuard, until
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, limit
from esper_analyze.detector.rules.seeds import CONTEXT, FAST, RATIO, judged, known_sides, not_training, unreached
from esper_analyze.detector.signals import Frame, Signal
from esper_analyze.detector.streaks import streak, zeros
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle

HOST = "host_grad_norm"


@dataclass(frozen=True, slots=True)
class HostDominatingLimits(Limits):
    """Bounds on ``slots.normalized_ratio`` while the host's norm is high."""

    warning: float = limit(RATIO, "a ratio below 0.1 … (gradient review)")
    host_norm: float = limit(1.0, "… while host_grad_norm is above 1.0 (gradient review)", at_least=0.0)
    sustained: int = limit(3, "as seed_dormant", at_least=1)


def judge(frame: Frame, memory: Memory, limits: HostDominatingLimits) -> list[Judgement]:
    """Judge the ratio where the host's norm is high; if the seed module itself is the reason, it is information."""
    host, excuses = frame[HOST], [*not_training(frame), unreached(frame)]
    seed, cause = frame["normalized_ratio"], frame["low_ratio_cause"]
    ratio = Signal(seed.name, np.where(host.nonfinite, host.values, seed.values), seed.null)
    usable = ratio.finite & host.finite & judged(frame, excuses)
    low = usable & (ratio.values < limits.warning) & (host.values > limits.host_norm)
    seed_fault = low & (cause.null | cause.equals(FAST))
    bounds = Bounds(
        info=streak(low, usable & ~low, memory["low"]) >= limits.sustained,
        warning=streak(seed_fault, usable & ~seed_fault, memory["own"]) >= limits.sustained,
        warning_at=limits.warning,
    )
    alone = Excuse(frame["host_elements"].equals(0.0), "the host has no gradient", quiet=True)
    return [settle(ratio.name, ratio, bounds, excuses=[*excuses, alone], needs=[host])]


def guard(frame: Frame, memory: Memory, limits: HostDominatingLimits) -> DeferralGuard:
    """Defer while ratio and norm stay on the same side of their bounds and the context stays the same."""
    sides = known_sides(frame) | {"normalized_ratio": (limits.warning,), HOST: (limits.host_norm,)}
    sides |= {"host_elements": (0.0,)}
    return DeferralGuard(min(until(memory[name], limits.sustained) for name in ("low", "own")), sides)


def _cells(*ratios: float | None, host: float | None = 3.0, cause: object = None) -> dict[str, object]:
    return {
        "normalized_ratio": list(ratios),
        HOST: host,
        "low_ratio_cause": cause,
        "should_train": True,
        "tensors": 4,
        "host_elements": 100,
    }


RULE = Rule(
    name="host_dominating",
    table="slots",
    columns=("normalized_ratio", HOST, *CONTEXT, "host_elements"),
    context=(*CONTEXT, "host_elements"),
    limits=HostDominatingLimits,
    judge=judge,
    guard=guard,
    title="The host dominates a seed module",
    meaning="The host's gradient norm is above 1 and, divided by the root of the number of parameters, more than ten "
    "times the seed module's, whose own gradient has not changed: the host determines steps and clipping. If the seed "
    "module itself has faded or never learnt, it is information, and seed_dormant reports the fault.",
    look_first="The host's loss and learning rate at the update it began; whether host and seed module are clipped "
    "together, so that the host's norm scales the seed module's steps down; low_ratio_cause.",
    reference="Gradient norms per parameter (norm / sqrt(elements)), so that modules of different size compare",
    examples=(
        Example("as active as its host", "ok", _cells(0.8)),
        Example("low, and the host's gradient is small", "ok", _cells(*[0.05] * 3, host=0.4), updates=3),
        Example("low for two updates", "ok", _cells(0.05, 0.05), updates=2),
        Example("the host learns fast", "warning", _cells(*[0.05] * 3, cause="host_learning_fast"), updates=3),
        Example("a seed module that never learnt", "info", _cells(*[0.005] * 3, cause="dormant"), updates=3),
        Example("fossilised", "not_applicable", _cells(0.001) | {"should_train": False}),
        Example("NaN never passes", "critical", _cells(float("nan"))),
        Example("a host that is NaN", "critical", _cells(0.5, host=float("nan"))),
        Example("not recorded", "no_data", _cells(None, host=None)),
    ),
    memory={"low": zeros, "own": zeros},
    causes=("numerical_instability", "slot_gradient_explosion"),
    confirmed_by="sustained",
    higher_is_worse=False,
)
