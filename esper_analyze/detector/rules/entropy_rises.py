"""Rule ``entropy_rises``: the policy becomes more random than it began."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.baselines import EARLY_MEMORY, early_known, early_level
from esper_analyze.detector.conditions.convergence import AT_BEST, EPISODE_RETURN
from esper_analyze.detector.conditions.shared import held
from esper_analyze.detector.deferral_guards import FREE, DeferralGuard, Side, until
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, limit
from esper_analyze.detector.signals import Floats, Frame
from esper_analyze.detector.streaks import streak, zeros
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle


@dataclass(frozen=True, slots=True)
class EntropyRisesLimits(Limits):
    """Bounds on ``updates.entropy``, nats."""

    factor: float = limit(
        2.0,
        "times its own start: a policy that begins at random cannot get there; 1 of 200 sound trainings of the fault "
        "bench does, with continuous actions and returns that do not rise",
        at_least=1.0,
    )
    least: float = limit(0.5, "nats above its start: less is nothing for a policy that began certain", at_least=0.0)
    sustained: int = limit(10, "updates in a row: one batch of odd samples is no rise", at_least=1)
    start_updates: int = limit(5, "updates whose mean is its start", at_least=1)


def judge(frame: Frame, memory: Memory, limits: EntropyRisesLimits) -> list[Judgement]:
    """Judge entropy against its own start; where returns rose and stay near their best it is information."""
    entropy = frame["entropy"]
    start = early_level(entropy.values, entropy.finite, memory, limits.start_updates)
    narrow = Excuse(
        entropy.finite & ~(start > 0.0), "continuous actions that began narrow: their entropy has no zero", quiet=True
    )
    bound = _bound(start, limits)
    high = entropy.finite & ~narrow.where & (entropy.values > bound)
    rises = streak(high, entropy.finite & ~high, memory["high"]) >= limits.sustained
    bounds = Bounds(info=rises, warning=rises & ~AT_BEST.holds(frame), warning_at=bound)
    return [settle(entropy.name, entropy, bounds, excuses=[narrow], baseline=start)]


def _bound(start: Floats, limits: EntropyRisesLimits) -> Floats:
    bound: Floats = np.fmax(limits.factor * start, start + limits.least)
    return bound


def guard(frame: Frame, memory: Memory, limits: EntropyRisesLimits) -> DeferralGuard | None:
    """Defer while entropy stays on the same side of its bound, which is known after its first updates."""
    entropy = frame["entropy"]
    if not early_known(entropy.finite, memory, limits.start_updates):
        return None
    start = early_level(entropy.values, entropy.finite, memory, limits.start_updates)
    sides: dict[str, Sequence[Side] | None] = {entropy.name: (_bound(start, limits),), EPISODE_RETURN: FREE}
    return DeferralGuard(until(memory["high"], limits.sustained), {**sides, **held(frame, AT_BEST)})


def _cells(*values: float | None) -> dict[str, object]:
    return {"entropy": list(values), EPISODE_RETURN: None}


RULE = Rule(
    name="entropy_rises",
    table="updates",
    panels=("policy.entropy",),
    columns=("entropy", EPISODE_RETURN),
    context=(EPISODE_RETURN,),
    conditions=(AT_BEST,),
    memory={"high": zeros, **EARLY_MEMORY},
    limits=EntropyRisesLimits,
    judge=judge,
    guard=guard,
    title="Entropy rises",
    meaning="The policy is far more random than it was when it began. One that was trained before unlearns what it "
    "knew: in language models gibberish begins so. Of continuous actions the standard deviations grow without end.",
    look_first="Entropy coefficient (0 for a pretrained policy), learning rate, whether rewards still tell good "
    "samples from bad ones; kl_k3 and the KL to the reference model in the updates before.",
    reference="Cui et al. 2025, The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models",
    examples=(
        Example("it falls", "ok", _cells(1.3, *[1.3 - 0.01 * i for i in range(30)]), updates=31),
        Example("a pretrained policy that comes apart", "warning", _cells(*[0.4] * 5, *[1.6] * 10), updates=15),
        Example("for one update", "ok", _cells(*[0.4] * 5, 1.6, 0.4), updates=7),
        Example("began certain, and is hardly less so", "ok", _cells(*[0.01] * 5, *[0.2] * 12), updates=17),
        Example("narrow continuous actions", "not_applicable", _cells(*[-2.0] * 5, *[-1.0] * 12), updates=17),
        Example("not recorded", "no_data", _cells(None)),
    ),
    causes=("setting_changed", "numerical_instability", "kl_spike", "policy_replaced"),
    confirmed_by="sustained",
)
