"""Rule ``entropy_stuck``: the policy is still as random as it was at its start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from esper_analyze.detector.baselines import EARLY_MEMORY
from esper_analyze.detector.conditions.applicability import joint_actions_unknown, joint_entropy_undefined
from esper_analyze.detector.conditions.convergence import AT_BEST, EPISODE_RETURN
from esper_analyze.detector.conditions.rewards import REWARDS, UNREWARDED, nothing_rewarded
from esper_analyze.detector.conditions.shared import held
from esper_analyze.detector.conditions.stand_ins import (
    COUNTED,
    ENTROPY_OF_START,
    LOGGED,
    apart,
    share_of_start,
    stands_in,
)
from esper_analyze.detector.deferral_guards import FREE, DeferralGuard, Side, same, until
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.streaks import streak, zeros
from esper_analyze.detector.verdict import Bounds, Judgement, excused, settle


@dataclass(frozen=True, slots=True)
class EntropyStuckLimits(Limits):
    """Bounds on ``updates.entropy_norm``, a share of the entropy the masks leave room for."""

    share: float = limit(0.99, "a policy of four actions that prefers one by a fifth has 0.99 (set by design)")
    sustained: int = limit(
        150, "updates in a row: 1 of 200 sound trainings of the fault bench stays there for longer", at_least=1
    )


def judge(frame: Frame, memory: Memory, limits: EntropyStuckLimits) -> list[Judgement]:
    """Judge for how long the entropy has been the most that the actions allow, although steps were rewarded."""
    entropy, start = share_of_start(frame, memory)
    used, unknown = stands_in(frame, "entropy_norm"), joint_actions_unknown(frame)
    excuses = [*joint_entropy_undefined(frame), nothing_rewarded(frame)]
    usable = entropy.finite & ~excused(excuses)
    random = usable & (entropy.values >= limits.share)
    length = streak(random, usable & ~random, memory["random"])
    stuck = length >= limits.sustained
    bounds = Bounds(info=stuck, warning=stuck & ~AT_BEST.holds(frame), warning_at=limits.share)
    if used is not None:
        unknown.where &= ~used
    judgement = settle(entropy.name, entropy, bounds, excuses=excuses, unknown=[unknown], baseline=start)
    return apart(judgement, [] if used is None else [("entropy", used)])


def guard(frame: Frame, memory: Memory, limits: EntropyStuckLimits) -> DeferralGuard:
    """Defer while entropy stays on the same side of the bound, until it has been above it for long."""
    sides: dict[str, Sequence[Side] | None] = {"entropy_norm": (limits.share,), "choice_fraction": (0.0,)}
    sides |= {"entropy": (), "choices_unknown": same(frame["choices_unknown"]), COUNTED: FREE}
    sides |= dict.fromkeys((EPISODE_RETURN, *REWARDS), FREE)
    lasting = until(memory["random"], limits.sustained)
    return DeferralGuard(lasting, {**sides, **held(frame, AT_BEST, UNREWARDED, LOGGED)})


def _cells(norm: object, rewards: float = 1.0) -> dict[str, object]:
    known = {"choice_fraction": 1.0, "entropy": 1.0, "choices_unknown": False, COUNTED: 8}
    return {"entropy_norm": norm, **known, "reward_min": 0.0, "reward_max": rewards}


def _log(*entropy: float) -> dict[str, object]:
    return {"entropy": list(entropy), "choices_unknown": True, EPISODE_RETURN: 10.0, COUNTED: None}


RULE = Rule(
    name="entropy_stuck",
    table="updates",
    panels=("policy.entropy",),
    columns=("entropy_norm", "choice_fraction", "entropy", "choices_unknown", EPISODE_RETURN, *REWARDS, COUNTED),
    context=("choice_fraction", "entropy", "choices_unknown", EPISODE_RETURN, *REWARDS, COUNTED),
    conditions=(AT_BEST, UNREWARDED, LOGGED),
    memory={"random": zeros, **EARLY_MEMORY},
    limits=EntropyStuckLimits,
    judge=judge,
    guard=guard,
    title="The policy stays random",
    meaning="After 150 updates with rewards the policy still chooses among its actions as at its start. Its "
    "gradient does not reach it, is too small for its learning rate, or is outweighed by the entropy bonus.",
    look_first="Whether the policy loss reaches the policy (optimizer, detach, gradient norm), the learning rate, the "
    "entropy coefficient beside the advantages' scale, whether observations tell the states apart.",
    reference="Andrychowicz et al. 2021, What Matters in On-Policy RL, section on policy entropy",
    examples=(
        Example("it learns", "ok", _cells([0.999] * 100 + [0.9] * 80), updates=180),
        Example("as random as at its start", "warning", _cells([0.999] * 150), updates=150),
        Example("no step was rewarded", "not_applicable", _cells([0.999] * 150, rewards=0.0), updates=150),
        Example("the entropy of a log, against its start", "warning", _log(*[1.38] * 150), updates=150),
        Example("not recorded", "no_data", _cells(None) | {"choice_fraction": None, "entropy": None}),
    ),
    causes=("setting_changed", "numerical_instability", "frozen_update"),
    confirmed_by="sustained",
    statistics={"entropy": ENTROPY_OF_START},
)
