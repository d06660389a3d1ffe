"""Rule ``losses_inconsistent``: the losses that are differentiated are no longer PPO's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.conditions.relation import (
    EVIDENCE,
    UPDATES,
    established,
    establishing,
    relation_memory,
)
from esper_analyze.detector.deferral_guards import DeferralGuard, Side, same, until
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Statistic, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.streaks import latest, nothing_yet, previous, streak, zeros
from esper_analyze.detector.verdict import Bounds, Judgement, settle

ERROR, FACTOR = "policy_loss_error", "value_loss_factor"
SAFE = 0.99
"""Share of a distance up to which rounding cannot carry a number over it."""


@dataclass(frozen=True, slots=True)
class LossesInconsistentLimits(Limits):
    """Bounds on how far losses are from PPO's formulas."""

    exact: float = limit(1e-5, "share of mean |r·A|: single precision stays below 1e-6", at_least=0.0)
    broken: float = limit(1e-4, "share of mean |r·A|, where it was exact before (set by design)", at_least=0.0)
    never: float = limit(0.01, "share of mean |r·A|: half precision alone makes less than 0.001", at_least=0.0)
    sustained: int = limit(2, "updates: a second clip of large ratios alone acts in single ones", at_least=1)
    updates: int = limit(UPDATES, EVIDENCE, at_least=1)
    same: float = limit(1e-3, "share by which a constant factor may vary (set by design)", at_least=0.0)
    other: float = limit(
        0.2,
        "share by which it is another one: value clips and Huber losses begin with less (set by design)",
        at_least=0.0,
    )


def judge(frame: Frame, memory: Memory, limits: LossesInconsistentLimits) -> list[Judgement]:
    """Judge the policy loss against PPO's, and the factor of the value loss against what it was."""
    error = frame[ERROR]
    exact = error.finite & (error.values <= limits.exact)
    usual = established(exact, error.finite, memory, ERROR, limits.updates)
    apart = error.finite & (error.values > limits.broken)
    lasts = streak(apart & usual, error.finite & ~apart, memory["apart"]) >= limits.sustained
    never = error.finite & (error.values > limits.never)
    bounds = Bounds(info=never, warning=apart & lasts, info_at=limits.never, warning_at=limits.broken)
    return [settle(ERROR, error, bounds), _factor(frame, memory, limits)]


def _factor(frame: Frame, memory: Memory, limits: LossesInconsistentLimits) -> Judgement:
    """Judge the factor against the one it had in several updates in a row; a small change of it ends that."""
    factor = frame[FACTOR]
    last = previous(factor.values, factor.finite, memory["last"])
    change = np.abs(factor.values - last)
    holds = factor.finite & (change <= limits.same * np.abs(last))
    little = factor.finite & ~holds & (change <= limits.other * np.abs(last))
    run = streak(holds, factor.finite & ~holds, memory["holding"])
    known = factor.finite & ((run >= limits.updates) | little)
    usual = latest(np.where(little, np.nan, factor.values), known, memory["usual"])
    jumped = factor.finite & (np.abs(factor.values - usual) > limits.other * np.abs(usual))
    return settle(FACTOR, factor, Bounds(warning=jumped), baseline=usual)


def guard(frame: Frame, memory: Memory, limits: LossesInconsistentLimits) -> DeferralGuard | None:
    """Defer while the policy loss stays on its side of the bounds, and the factor where it is if it was constant."""
    factor, constant = frame[FACTOR], int(memory["holding"][0])
    lasting = min(establishing(memory, ERROR, limits.updates), until(memory["apart"], limits.sustained))
    sides: dict[str, Sequence[Side]] = {ERROR: (limits.exact, limits.broken, limits.never), FACTOR: same(factor)}
    if factor.all_finite and np.isnan(memory["usual"][0]):  # nothing to be compared with, until it was constant so long
        lasting, sides[FACTOR] = min(lasting, limits.updates - constant), ()
    elif factor.all_finite:
        if not constant:
            return None
        near = SAFE * limits.same / (2 + limits.same) * np.abs(factor.values[-1])  # no two in it are further apart
        far = limits.other * np.abs(memory["usual"])
        lasting = min(lasting, until(memory["holding"], limits.updates))
        around, usual = factor.values[-1], memory["usual"]
        sides[FACTOR] = (around - near, around + near, usual - far, usual + far)
    return DeferralGuard(lasting, sides)


def _cells(*error: float | None, factor: object = 0.5) -> dict[str, object]:
    return {ERROR: list(error), FACTOR: factor}


RULE = Rule(
    name="losses_inconsistent",
    table="updates",
    figures=("value",),
    columns=(ERROR, FACTOR),
    optional=True,
    limits=LossesInconsistentLimits,
    judge=judge,
    guard=guard,
    title="The losses are not PPO's",
    meaning="The policy loss that the loop passed is no longer −mean(min(r·A, clip(r)·A)) of the ratios, advantages "
    "and clip range beside it, which it was in several updates in a row: another surrogate, clip or sign, "
    "ratios or advantages that are not those passed. A loss that never was PPO's is information.",
    meanings={
        FACTOR: "The value loss was the same multiple of mean (V − R)² in several updates, and is no longer: another "
        "loss, another clip of values, shapes that broadcast, or values and returns that are not those passed.",
    },
    look_first="What computes the loss at this update: minimum or maximum, ratio or its logarithm, clip range, sign, "
    "heads that it counts where they were passed as not relevant, shapes of values and returns ([N, 1] − [N] makes "
    "[N, N]).",
    reference="Schulman et al. 2017, equation 7; the value loss is the mean of (V − R)², in some loops halved",
    examples=(
        Example("PPO's", "ok", _cells(1e-7, 1e-7), updates=2),
        Example("never PPO's", "info", _cells(0.2, 0.3, 0.2), updates=3),
        Example("no longer PPO's", "warning", _cells(*[1e-7] * 3, 0.2, 0.3), updates=5),
        Example("PPO's by chance", "info", _cells(*[0.2] * 4, *[1e-7] * 3, 0.2, 0.3), updates=9),
        Example("one update apart", "info", _cells(*[1e-7] * 3, 0.2), updates=4),
        Example("another value loss", "warning", _cells(*[1e-7] * 5, factor=[0.5] * 4 + [3.0]), updates=5),
        Example("a value clip begins to act", "ok", _cells(*[1e-7] * 6, factor=[0.5] * 4 + [0.55, 0.6]), updates=6),
        Example("not passed", "no_data", dict.fromkeys((ERROR, FACTOR))),
    ),
    memory={
        **relation_memory(ERROR),
        **{"apart": zeros, "holding": zeros, "last": nothing_yet, "usual": nothing_yet},
    },
    causes=("numerical_instability",),
    statistics={
        ERROR: Statistic("distance of the policy loss from PPO's, as a share of mean |r·A|", column=ERROR),
        FACTOR: Statistic("value loss divided by mean (V − R)²", baseline="what it was", column=FACTOR),
    },
    revision=2,
    restated=("threshold", VERDICT),
)
