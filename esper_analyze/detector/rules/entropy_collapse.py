"""Rule ``entropy_collapse``: the policy has become deterministic where it had a choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.baselines import EARLY_MEMORY
from esper_analyze.detector.conditions.applicability import joint_actions_unknown, joint_entropy_undefined
from esper_analyze.detector.conditions.convergence import AT_BEST, EPISODE_RETURN
from esper_analyze.detector.conditions.shared import free, held
from esper_analyze.detector.conditions.stand_ins import (
    COUNTED,
    ENTROPY_OF_START,
    LOGGED,
    RISING_MEMORY,
    apart,
    rising,
    share_of_start,
    stands_in,
)
from esper_analyze.detector.deferral_guards import FREE, LASTING, DeferralGuard, Side, same
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.streaks import streak, zeros
from esper_analyze.detector.verdict import Bounds, Judgement, settle


@dataclass(frozen=True, slots=True)
class EntropyCollapseLimits(Limits):
    """Bounds on ``updates.entropy_norm``, a share of the entropy the masks leave room for."""

    warning: float = limit(0.1, "a tenth of the entropy that the masks allow (from a review of a PPO code base)")
    critical: float = limit(0.02, "a fiftieth of the entropy that the masks allow (set by design)")


def judge(frame: Frame, memory: Memory, limits: EntropyCollapseLimits) -> list[Judgement]:
    """Judge normalised entropy, never raw nats."""
    entropy, start = share_of_start(frame, memory)
    used, unknown = stands_in(frame, "entropy_norm"), joint_actions_unknown(frame)
    excuses = joint_entropy_undefined(frame)
    usable = entropy.finite & ~excuses[0].where & ~excuses[1].where
    low, none = usable & (entropy.values < limits.warning), usable & (entropy.values < limits.critical)
    learnt = AT_BEST.holds(frame)
    if used is not None:
        learnt = learnt | rising(frame, used, memory)
    streak(low, usable & ~low, memory["low"])
    bounds = Bounds(
        info=low,
        warning=low & ~learnt,
        critical=none & ~learnt,
        warning_at=limits.warning,
        critical_at=limits.critical,
    )
    if used is not None:
        unknown.where &= ~used
    judgement = settle(entropy.name, entropy, bounds, excuses=excuses, unknown=[unknown], baseline=start)
    return apart(judgement, [] if used is None else [("entropy", used)])


def guard(frame: Frame, memory: Memory, limits: EntropyCollapseLimits) -> DeferralGuard:
    """Defer while entropy stays on the same side of both bounds; returns matter while it is low."""
    sides: dict[str, Sequence[Side] | None] = {"entropy_norm": (limits.warning, limits.critical), EPISODE_RETURN: FREE}
    sides |= {"choice_fraction": (0.0,), "entropy": (), "choices_unknown": same(frame["choices_unknown"])}
    sides |= {COUNTED: FREE, **held(frame, LOGGED)}
    matters = np.count_nonzero(memory["low"])
    return DeferralGuard(LASTING, {**sides, **(held(frame, AT_BEST) if matters else free(AT_BEST))})


def _cells(
    norm: float | None, choice: float | None = 1.0, entropy: float | None = 1.0, *, unknown: bool | None = False
) -> dict[str, object]:
    return {"entropy_norm": norm, "choice_fraction": choice, "entropy": entropy, "choices_unknown": unknown, COUNTED: 8}


def _slow(last: float) -> dict[str, object]:
    falling = [0.9 - (0.9 - last) * i / 59 for i in range(60)]
    rising = [1.0 + 0.1 * i for i in range(60)]
    return _cells(None) | {"entropy_norm": falling, "episode_return_mean": rising}


def _log(*entropy: float, unknown: bool | None = True) -> dict[str, object]:
    return _cells(None, None, None, unknown=unknown) | {"entropy": list(entropy), COUNTED: None}


RULE = Rule(
    name="entropy_collapse",
    table="updates",
    panels=("policy.entropy", "heads.head"),
    columns=("entropy_norm", "choice_fraction", "entropy", "choices_unknown", COUNTED, EPISODE_RETURN),
    context=("choice_fraction", "entropy", "choices_unknown", COUNTED, EPISODE_RETURN),
    conditions=(AT_BEST, LOGGED),
    memory={"low": zeros, **EARLY_MEMORY, **RISING_MEMORY},
    limits=EntropyCollapseLimits,
    judge=judge,
    guard=guard,
    title="Entropy collapsed",
    meaning="Where the masks left a choice, the policy almost always takes the same action. It no longer explores and "
    "its gradient vanishes; after a collapse within one update every other number looks normal. Where returns rose and "
    "stay near their best, it is the result of learning, and information.",
    look_first="kl_k3 and ratio_max of the update before; entropy coefficient; learning rate; whether the return "
    "says that being deterministic is right.",
    reference="Andrychowicz et al. 2021, What Matters in On-Policy RL, section on policy entropy",
    examples=(
        Example("exploring", "ok", _cells(0.7)),
        Example("nearly deterministic", "warning", _cells(0.05)),
        Example("collapsed", "critical", _cells(0.001)),
        Example("low at last, and returns rose", "info", _slow(0.09), updates=60),
        Example("nothing left at last, and returns rose", "info", _slow(0.0), updates=60),
        Example("NaN never passes", "critical", _cells(float("nan"))),
        Example("every head had one valid action", "not_applicable", _cells(None, choice=0.0)),
        Example("Gaussian actions", "not_applicable", _cells(None, choice=None)),
        Example("the number of actions is not known", "no_data", _cells(None, choice=None, unknown=True)),
        Example("recorded by a version that did not say so", "not_applicable", _cells(None, choice=None, unknown=None)),
        Example("not recorded", "no_data", _cells(None, choice=None, entropy=None)),
        Example("the entropy of a log, against its start", "critical", _log(1.3, 1.3, 1.3, 0.02), updates=4),
        Example("the entropy of a log, of continuous actions", "not_applicable", _log(1.3, unknown=None)),
    ),
    causes=(
        "setting_changed",
        "observations_changed",
        "parameters_changed",
        "losses_inconsistent",
        "policy_replaced",
        "numerical_instability",
        "kl_spike",
    ),
    follows=(
        "first_ratio",
        "gradient_explosion",
    ),
    higher_is_worse=False,
    statistics={"entropy": ENTROPY_OF_START},
    revision=3,
    restated=(VERDICT,),
)
