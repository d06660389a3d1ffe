"""Rule ``entropy_low``: the policy explores little where it has a choice."""

from __future__ import annotations

from dataclasses import dataclass

from esper_analyze.detector.baselines import EARLY_MEMORY
from esper_analyze.detector.conditions.applicability import joint_actions_unknown, joint_entropy_undefined
from esper_analyze.detector.conditions.shared import held
from esper_analyze.detector.conditions.stand_ins import (
    COUNTED,
    ENTROPY_OF_START,
    LOGGED,
    apart,
    share_of_start,
    stands_in,
)
from esper_analyze.detector.deferral_guards import FREE, LASTING, DeferralGuard, same
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.verdict import Bounds, Judgement, settle


@dataclass(frozen=True, slots=True)
class EntropyLowLimits(Limits):
    """Bound on ``updates.entropy_norm``."""

    info: float = limit(0.3, "a sound run that has learnt its task gets there too (set by design)")
    escalate: int = limit(0, "information never escalates")


def judge(frame: Frame, memory: Memory, limits: EntropyLowLimits) -> list[Judgement]:
    """Judge where normalised entropy is low."""
    entropy, start = share_of_start(frame, memory)
    used, unknown = stands_in(frame, "entropy_norm"), joint_actions_unknown(frame)
    bounds = Bounds(info=entropy.values < limits.info, warning_at=limits.info)
    excuses = joint_entropy_undefined(frame)
    if used is not None:
        unknown.where &= ~used
    return apart(
        settle(entropy.name, entropy, bounds, excuses=excuses, unknown=[unknown], baseline=start),
        [] if used is None else [("entropy", used)],
    )


def guard(frame: Frame, memory: Memory, limits: EntropyLowLimits) -> DeferralGuard:  # noqa: ARG001
    """Defer while entropy stays on the same side of the bound."""
    return DeferralGuard(
        LASTING,
        {
            "entropy_norm": (limits.info,),
            "choice_fraction": (0.0,),
            "entropy": (),
            "choices_unknown": same(frame["choices_unknown"]),
            COUNTED: FREE,
            **held(frame, LOGGED),
        },
    )


def _cells(
    norm: float | None, choice: float | None = 1.0, entropy: float | None = 1.0, *, unknown: bool | None = False
) -> dict[str, object]:
    return {"entropy_norm": norm, "choice_fraction": choice, "entropy": entropy, "choices_unknown": unknown, COUNTED: 8}


def _log(*entropy: float, unknown: bool | None = True) -> dict[str, object]:
    return _cells(None, None, None, unknown=unknown) | {"entropy": list(entropy), COUNTED: None}


RULE = Rule(
    name="entropy_low",
    table="updates",
    panels=("policy.entropy",),
    columns=("entropy_norm", "choice_fraction", "entropy", "choices_unknown", COUNTED),
    context=("choice_fraction", "entropy", "choices_unknown", COUNTED),
    conditions=(LOGGED,),
    memory=EARLY_MEMORY,
    limits=EntropyLowLimits,
    judge=judge,
    guard=guard,
    title="Entropy is low",
    meaning="Where the masks left a choice, the policy uses less than a third of the possible entropy. Late in a run "
    "that learns, this is success; early, it often precedes a collapse.",
    look_first="Whether the return still rises; the entropy coefficient.",
    reference="Andrychowicz et al. 2021, What Matters in On-Policy RL, section on policy entropy",
    examples=(
        Example("exploring", "ok", _cells(0.7)),
        Example("low", "info", _cells(0.2)),
        Example("NaN never passes", "critical", _cells(float("nan"))),
        Example("every head had one valid action", "not_applicable", _cells(None, choice=0.0)),
        Example("Gaussian actions", "not_applicable", _cells(None, choice=None)),
        Example("the number of actions is not known", "no_data", _cells(None, choice=None, unknown=True)),
        Example("recorded by a version that did not say so", "not_applicable", _cells(None, choice=None, unknown=None)),
        Example("not recorded", "no_data", _cells(None, choice=None, entropy=None)),
        Example("the entropy of a log, against its start", "info", _log(1.3, 1.3, 1.3, 0.02), updates=4),
        Example("the entropy of a log, of continuous actions", "not_applicable", _log(1.3, unknown=None)),
    ),
    causes=("numerical_instability",),
    higher_is_worse=False,
    statistics={"entropy": ENTROPY_OF_START},
)
