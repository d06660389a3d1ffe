"""Rule ``spike_then_silence``: one update moved the policy by far, and since then nothing moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.conditions.applicability import inner_loop_not_measurable
from esper_analyze.detector.conditions.shared import held
from esper_analyze.detector.conditions.stand_ins import (
    COUNTED,
    KL_LOG,
    KL_LOGGED,
    LAST_EPOCH,
    LOGGED,
    apart,
    kl_logged,
    movement,
)
from esper_analyze.detector.deferral_guards import FREE, DeferralGuard, same, until
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, Statistic, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.streaks import latest, nothing_yet, streak, tally, zeros
from esper_analyze.detector.verdict import Bounds, Judgement, settle


@dataclass(frozen=True, slots=True)
class SpikeThenSilenceLimits(Limits):
    """Bounds on ``updates.kl_k3``, nats, before and after."""

    spike: float = limit(1.0, "KL above 1 (set by design)", at_least=0.0)
    silence: float = limit(1e-6, "KL below 1e-6 (set by design)")
    updates: int = limit(2, "2 updates (set by design)", at_least=1)
    reach: int = limit(10, "recorded collapses fell silent within 2 updates; 10 leaves room to settle", at_least=1)
    escalate: int = limit(10, "10 updates of detail for ratio and KL (set by design)")


def judge(frame: Frame, memory: Memory, limits: SpikeThenSilenceLimits) -> list[Judgement]:
    """Judge silent updates: critical when a spike, or a KL that is not finite, came shortly before the silence."""
    kl = movement(frame)
    excuse = inner_loop_not_measurable(frame)
    judged = ~kl.null & ~excuse.where
    silent = judged & kl.finite & (kl.values < limits.silence)
    spike = judged & (kl.nonfinite | (kl.values > limits.spike))
    number = tally(judged, memory["number"])
    length = streak(silent, judged & ~silent, memory["silent"])
    last_spike = latest(number.astype(np.float64), spike, memory["last_spike"])
    size = latest(kl.values, spike, memory["size"])
    hushed = (length >= limits.updates) & (number - length - last_spike < limits.reach)
    bounds = Bounds(critical=hushed, critical_at=limits.silence)
    return apart(settle("kl_k3", kl, bounds, excuses=[excuse], baseline=size), kl_logged(frame))


def guard(frame: Frame, memory: Memory, limits: SpikeThenSilenceLimits) -> DeferralGuard:
    """Defer while KL stays on the same side of both bounds; while it is silent, the spike stays as long ago."""
    measurable = same(frame["inner_loop_measurable"])
    lasting = until(memory["silent"], limits.updates)
    sides = {"kl_k3": (limits.silence, limits.spike), "inner_loop_measurable": measurable}
    return DeferralGuard(lasting, {**sides, **dict.fromkeys(KL_LOG, FREE), **held(frame, LOGGED)})


def _cells(*values: float | None, measurable: bool = True) -> dict[str, object]:
    return {"kl_k3": list(values), "inner_loop_measurable": measurable, COUNTED: 8}


RULE = Rule(
    name="spike_then_silence",
    table="updates",
    panels=("policy.kl",),
    columns=("kl_k3", "inner_loop_measurable", *KL_LOG),
    context=KL_LOG,
    conditions=(LOGGED,),
    limits=SpikeThenSilenceLimits,
    judge=judge,
    guard=guard,
    title="One huge step, then silence",
    meaning="A single update moved the policy to where every probability is 0 or 1. From then on the ratio is 1, KL is "
    "0 and nothing changes: every other number looks normal because no gradient is left. The baseline is the KL of "
    "that update.",
    look_first="What was different in the update of the spike: learning rate, advantages, a clip range or clip norm "
    "that was off. Resume from a checkpoint before it; the policy will not come back by itself.",
    reference="The sample run one_update_collapse reproduces it",
    examples=(
        Example("a sound run", "ok", _cells(0.01, 0.02, 0.01), updates=3),
        Example("a spike, and life after it", "ok", _cells(0.01, 3.0, 0.05, 0.02), updates=4),
        Example("a spike, one silent update", "ok", _cells(0.01, 3.0, 0.0), updates=3),
        Example("a spike, then silence", "critical", _cells(0.01, 3.0, 0.0, 0.0), updates=4),
        Example("an infinite spike, then silence", "critical", _cells(0.01, float("inf"), 0.0, 0.0), updates=4),
        Example("silence without a spike", "ok", _cells(0.01, 0.0, 0.0, 0.0), updates=4),
        Example("one epoch of one minibatch", "not_applicable", _cells(0.0, measurable=False)),
        Example("not recorded", "no_data", _cells(None)),
        Example(
            "the last epochs of a log",
            "critical",
            {"kl_k3": None, LAST_EPOCH: [0.01, 3.0, 0.0, 0.0], COUNTED: None},
            updates=4,
        ),
    ),
    memory={"number": zeros, "silent": zeros, "last_spike": lambda k: np.full(k, -np.inf), "size": nothing_yet},
    causes=("numerical_instability", "kl_spike"),
    confirmed_by="updates",
    higher_is_worse=False,
    statistics={
        name: Statistic(name, "nats", baseline="the spike before it", column=name) for name in ("kl_k3", *KL_LOGGED)
    },
)
