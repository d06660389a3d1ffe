"""Rule ``advantage_inconsistent``: the advantages are not those of these returns and values."""

from __future__ import annotations

from dataclasses import dataclass

from esper_analyze.detector.conditions.relation import (
    EVIDENCE,
    UPDATES,
    established,
    establishing,
    relation_memory,
)
from esper_analyze.detector.deferral_guards import DeferralGuard
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, limit
from esper_analyze.detector.signals import Frame, Signal
from esper_analyze.detector.streaks import tally, zeros
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle

COLUMNS = ("advantage_consistency", "minibatch_advantage_consistency")
SPREAD = "advantage_std"


@dataclass(frozen=True, slots=True)
class AdvantageInconsistentLimits(Limits):
    """Bounds on the correlation of advantages with returns − values."""

    equal: float = limit(0.9999, "1 up to rounding for GAE and all estimators with returns = advantages + values")
    updates: int = limit(UPDATES, EVIDENCE, at_least=1)
    broken: float = limit(0.9, "far from 1, where it was 1 before (set by design)")
    unrelated: float = limit(0.1, "not related to returns − values, or contrary to them (set by design)")


def judge(frame: Frame, memory: Memory, limits: AdvantageInconsistentLimits) -> list[Judgement]:
    """Judge each correlation against 1 where it used to be 1, and else against none at all."""
    return [_judged(frame[name], frame[SPREAD], memory, limits) for name in COLUMNS]


def _judged(signal: Signal, spread: Signal, memory: Memory, limits: AdvantageInconsistentLimits) -> Judgement:
    equal = signal.finite & (signal.values >= limits.equal)
    usual = established(equal, signal.finite, memory, signal.name, limits.updates)
    bounds = Bounds(
        warning=signal.finite & (signal.values <= limits.unrelated),
        critical=usual & signal.finite & (signal.values < limits.broken),
        warning_at=limits.unrelated,
        critical_at=limits.broken,
    )
    passed = tally(signal.finite, memory[f"{signal.name}_known"]) > 0
    alike = Excuse(signal.null & spread.finite & passed, "advantages, or returns − values, are all alike", quiet=True)
    return settle(signal.name, signal, bounds, excuses=[alike])


def guard(frame: Frame, memory: Memory, limits: AdvantageInconsistentLimits) -> DeferralGuard:  # noqa: ARG001
    """Defer while each correlation stays on the same side of every bound."""
    sides = (limits.equal, limits.broken, limits.unrelated)
    lasting = min(establishing(memory, name, limits.updates) for name in COLUMNS)
    return DeferralGuard(lasting, {**dict.fromkeys(COLUMNS, sides), SPREAD: ()})


def _cells(*values: float | None) -> dict[str, object]:
    return {name: list(values) for name in COLUMNS} | {SPREAD: 1.0}


RULE = Rule(
    name="advantage_inconsistent",
    table="updates",
    figures=("value",),
    columns=(*COLUMNS, SPREAD),
    context=(SPREAD,),
    optional=True,
    limits=AdvantageInconsistentLimits,
    judge=judge,
    guard=guard,
    title="Advantages do not belong to the returns",
    meaning="The advantages are no longer proportional to returns − values, as they were in every update before "
    "(critical), or not related to them at all (warning). Their sign, their order (shuffled, reshaped, rolled), or the "
    "returns and values beside them are not those of the same timesteps.",
    look_first="What happens to advantages between their computation and the loss: sign, indexing, reshaping, "
    "normalisation over another axis; and to returns and values, if they are changed alone.",
    reference="Schulman et al. 2016: returns are advantages + values, so that the correlation is 1 whatever the scale",
    examples=(
        Example("another estimator", "ok", _cells(0.93, 0.97, 0.95), updates=3),
        Example("the same", "ok", _cells(1.0, 1.0), updates=2),
        Example("no longer the same", "critical", _cells(1.0, 1.0, 1.0, 0.6), updates=4),
        Example("the sign changed", "critical", _cells(1.0, 1.0, 1.0, -1.0), updates=4),
        Example("contrary from the start", "warning", _cells(-1.0)),
        Example("undefined where advantages are alike", "not_applicable", _cells(1.0, None), updates=2),
        Example("not passed", "no_data", _cells(None)),
    ),
    revision=2,
    restated=("threshold", VERDICT),
    memory={**relation_memory(*COLUMNS), **{f"{name}_known": zeros for name in COLUMNS}},
    causes=("numerical_instability",),
    higher_is_worse=False,
)
