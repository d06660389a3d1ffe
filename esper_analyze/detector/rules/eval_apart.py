"""Rule ``eval_apart``: evaluations do not return what training does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.baselines import EARLY_MEMORY, early_level
from esper_analyze.detector.conditions.convergence import AT_BEST, EARLY_UPDATES, EPISODE_RETURN
from esper_analyze.detector.conditions.shared import free
from esper_analyze.detector.deferral_guards import LASTING, DeferralGuard
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Statistic, limit
from esper_analyze.detector.signals import Floats, Frame, Signal
from esper_analyze.detector.streaks import blank, latest, nothing_yet, previous, streak, tally, zeros
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle

EVALUATED = "eval_return_mean"


@dataclass(frozen=True, slots=True)
class EvalApartLimits(Limits):
    """Bound on ``updates.eval_return_mean``, relative to how far the returns of training rose."""

    share: float = limit(
        0.5,
        "of the rise of the training's returns: a policy without exploration returns as much or more (set by design)",
        at_least=0.0,
    )
    sustained: int = limit(3, "evaluations in a row: one is a few episodes", at_least=1)


def judge(frame: Frame, memory: Memory, limits: EvalApartLimits) -> list[Judgement]:
    """Judge evaluations while the returns of training are at their best: they must have risen, too."""
    evaluated, returns = frame[EVALUATED], frame[EPISODE_RETURN]
    start = early_level(returns.values, returns.finite, memory, EARLY_UPDATES)
    trained = latest(returns.values, returns.finite, memory["trained"])
    bound = start + limits.share * (trained - start)
    risen = evaluated.finite & AT_BEST.holds(frame) & (trained > start)
    low = risen & (evaluated.values < bound - _scatter(evaluated, memory))
    lasting = streak(low, evaluated.finite & ~low, memory["low"]) >= limits.sustained
    none = Excuse(evaluated.null & frame.present & ~returns.null, "no evaluation in this update", quiet=True)
    bounds = Bounds(warning=lasting & evaluated.finite, warning_at=bound)
    watched = Signal(evaluated.name, np.where(returns.nonfinite, np.nan, evaluated.values), evaluated.null)
    return [settle(watched.name, watched, bounds, excuses=[none], needs=[returns], baseline=trained)]


def _scatter(evaluated: Signal, memory: Memory) -> Floats:
    """Return by how much evaluations so far differed from the one before on average, [n, k]; 0 before the second."""
    change = np.abs(evaluated.values - previous(evaluated.values, evaluated.finite, memory["evaluated"]))
    counted = evaluated.finite & ~np.isnan(change)
    number = tally(counted, memory["changes"])
    total = np.add.accumulate(np.concatenate([memory["changed_by"][None], np.where(counted, change, 0.0)]))
    memory["changed_by"][:] = total[-1]
    return np.asarray(total[1:] / np.maximum(number, 1))


def guard(frame: Frame, memory: Memory, limits: EvalApartLimits) -> DeferralGuard | None:  # noqa: ARG001
    """Defer while nothing is evaluated."""
    if not np.count_nonzero(frame[EVALUATED].null):
        return None
    return DeferralGuard(LASTING, {EVALUATED: (), EPISODE_RETURN: (), **free(AT_BEST)})


def _cells(*evaluated: float | None) -> dict[str, object]:
    rising = [min(10.0 * i, 100.0) for i in range(len(evaluated))]
    return {EVALUATED: list(evaluated), EPISODE_RETURN: rising}


RULE = Rule(
    name="eval_apart",
    table="updates",
    figures=("returns",),
    panels=("returns.return",),
    columns=(EVALUATED, EPISODE_RETURN),
    context=(EVALUATED,),
    conditions=(AT_BEST,),
    memory={
        "trained": nothing_yet,
        "low": zeros,
        "evaluated": nothing_yet,
        "changes": zeros,
        "changed_by": blank,
        **EARLY_MEMORY,
    },
    limits=EvalApartLimits,
    judge=judge,
    guard=guard,
    title="Evaluations do not follow",
    meaning="The returns of training rose and stay near their best, but evaluations of the same policy show less than "
    "half of that rise, by more than they differ from each other (the baseline is the training's return). What is "
    "evaluated is not what is trained.",
    look_first="Statistics of observation normalisation that the evaluation lacks or updates (VecNormalize must be "
    "shared, with training=False), another reward scale, frame stack or time limit, a policy that is only good with "
    "its exploration noise.",
    reference="The documentation of Stable-Baselines3 on VecNormalize and EvalCallback",
    examples=(
        Example("both rise", "ok", _cells(*[10.0 * i for i in range(14)]), updates=14),
        Example("evaluations stay at the start", "warning", _cells(*[0.0] * 14), updates=14),
        Example(
            "evaluations of few episodes",
            "ok",
            _cells(*[20.0, 80.0] * 5, 20.0, 40.0, 20.0, 40.0),
            updates=14,
        ),
        Example("of two evaluations too early to say", "ok", _cells(*[None] * 12, 1.0, 0.0), updates=14),
        Example("no evaluation", "not_applicable", _cells(*[None] * 14), updates=14),
        Example("no episode of the training", "no_data", _cells(1.0) | {EPISODE_RETURN: None}),
    ),
    causes=("observations_changed",),
    higher_is_worse=False,
    revision=2,
    restated=(VERDICT,),
    statistics={EVALUATED: Statistic(EVALUATED, baseline="the training's episode return", column=EVALUATED)},
)
