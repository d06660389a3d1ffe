"""Rule ``returns_inconsistent``: the value targets no longer follow from rewards, values and ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.conditions.relation import (
    EVIDENCE,
    UPDATES,
    established,
    establishing,
    relation_memory,
)
from esper_analyze.detector.deferral_guards import DeferralGuard, same
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Statistic, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.streaks import latest, nothing_yet
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle

RESIDUAL, CONTINUED, ENDS, GAMMA = "return_residual", "ends_continued_fraction", "rollout_ends", "return_gamma"
PASSED = "gamma"


@dataclass(frozen=True, slots=True)
class ReturnsInconsistentLimits(Limits):
    """Bounds on how far returns are from what rewards, values and ends make of them."""

    exact: float = limit(1e-3, "share of the returns: GAE in single precision stays below 1e-5", at_least=0.0)
    updates: int = limit(UPDATES, EVIDENCE, at_least=1)
    broken: float = limit(0.01, "share of the returns, where they were exact before (set by design)", at_least=0.0)
    continued: float = limit(0.999, "all ends go on, where none did before (by definition)", at_least=0.0)
    ends: int = limit(3, "ends of a rollout: fewer can all be time limits (set by design)", at_least=1)
    gamma: float = limit(1.0, "a discount above 1 lets values grow without bound (by definition)", at_least=0.0)
    rounding: float = limit(
        1e-3,
        "from here a fitted discount is another: of 1,172 recorded trainings only faults had one",
        at_least=0.0,
    )


def judge(frame: Frame, memory: Memory, limits: ReturnsInconsistentLimits) -> list[Judgement]:
    """Judge the distance of the returns from their formula, the ends that go on, and the discount that fits."""
    residual = frame[RESIDUAL]
    exact = residual.finite & (residual.values <= limits.exact)
    usual = established(exact, residual.finite, memory, RESIDUAL, limits.updates)
    broken = Bounds(critical=usual & residual.finite & (residual.values > limits.broken), critical_at=limits.broken)
    return [
        settle(residual.name, residual, broken),
        _ends(frame, memory, limits),
        _gamma(frame, memory, limits),
    ]


def _ends(frame: Frame, memory: Memory, limits: ReturnsInconsistentLimits) -> Judgement:
    share, ends = frame[CONTINUED], frame[ENDS]
    cut = share.equals(0.0)
    usual = established(cut, share.finite, memory, CONTINUED, limits.updates)
    on = share.finite & (share.values >= limits.continued)
    before = latest(share.values, share.finite & ~on, memory["continued_before"])
    many = ends.finite & (ends.values >= limits.ends)
    bounds = Bounds(info=on & usual, warning=on & usual & many & (before == 0.0), warning_at=limits.continued)
    nothing = Excuse(share.null & ends.equals(0.0), "no episode ended", quiet=True)
    return settle(share.name, share, bounds, excuses=[nothing])


def _gamma(frame: Frame, memory: Memory, limits: ReturnsInconsistentLimits) -> Judgement:
    """Judge the fitted discount against 1, and against the one that the loop passed where both agreed before."""
    gamma, residual, passed = frame[GAMMA], frame[RESIDUAL], frame[PASSED]
    fits = residual.finite & (residual.values <= limits.exact)
    known = fits & gamma.finite & passed.finite
    differs = known & (np.abs(gamma.values - passed.values) > limits.rounding)
    usual = established(known & ~differs, known, memory, GAMMA, limits.updates)
    bound = limits.gamma + limits.rounding
    beyond = fits & (gamma.values > bound)
    bounds = Bounds(
        info=differs,
        critical=beyond | (differs & usual),
        critical_at=np.where(beyond, bound, np.nan),
    )
    return settle(gamma.name, gamma, bounds, baseline=np.where(passed.finite, passed.values, np.nan))


def guard(frame: Frame, memory: Memory, limits: ReturnsInconsistentLimits) -> DeferralGuard:
    """Defer while every quantity stays on the same side of its bounds, and the discount passed is the same."""
    passed = frame[PASSED].values[-1]
    sides = {
        RESIDUAL: (limits.exact, limits.broken),
        CONTINUED: (0.0, limits.continued, *same(frame[CONTINUED])),
        ENDS: (0.0, float(limits.ends)),
        GAMMA: (limits.gamma + limits.rounding, passed - limits.rounding, passed + limits.rounding),
        PASSED: same(frame[PASSED]),
    }
    relations = (RESIDUAL, CONTINUED, GAMMA)
    return DeferralGuard(min(establishing(memory, name, limits.updates) for name in relations), sides)


def _cells(*residual: float | None, **others: object) -> dict[str, object]:
    return {RESIDUAL: list(residual), CONTINUED: 0.0, ENDS: 5, GAMMA: 0.99, PASSED: 0.99} | others


def _at_ends(*share: float | None) -> dict[str, object]:
    return _cells() | {RESIDUAL: 1e-7, CONTINUED: list(share)}


RULE = Rule(
    name="returns_inconsistent",
    table="updates",
    figures=("value",),
    columns=(RESIDUAL, CONTINUED, ENDS, GAMMA, PASSED),
    context=(ENDS, PASSED),
    optional=True,
    limits=ReturnsInconsistentLimits,
    judge=judge,
    guard=guard,
    title="Returns do not follow from the rewards",
    meaning="Returns, rewards and values of a rollout agreed with generalised advantage estimation of some discount "
    "and λ in every update, and no longer do: the value function learns targets that belong to other timesteps, or "
    "that were changed after they were computed.",
    meanings={
        CONTINUED: "The returns of all timesteps with which an episode ended look beyond the end, and before none "
        "did: ends are ignored, or every end is now a time limit after which the loop adds the value of the next "
        "state without handing that over with the rewards.",
        GAMMA: "The discount that fits the returns is not the one passed as a setting, and both agreed before: what "
        "returns are computed with was changed, or is no longer what the settings say. Or it is above 1: rewards "
        "count the more the later they come, and values grow without bound.",
    },
    look_first="How returns are computed, indexed and stored at this update: shifted by a timestep, of another axis, "
    "without the ends; the discount.",
    reference="Schulman et al. 2016, equation 16, which returns of GAE fulfil with any discount and λ",
    examples=(
        Example("exact", "ok", _cells(1e-7, 1e-7), updates=2),
        Example("never exact: another estimator", "ok", _cells(0.2, 0.3, 0.2, 0.3), updates=4),
        Example("no longer exact", "critical", _cells(1e-7, 1e-7, 1e-7, 0.2), updates=4),
        Example("ends cut off", "ok", _at_ends(0.0, 0.0), updates=2),
        Example("no end cuts off any more", "warning", _at_ends(0.0, 0.0, 0.0, 1.0), updates=4),
        Example("more and more ends are time limits", "info", _at_ends(0.0, 0.0, 0.0, 0.4, 1.0), updates=5),
        Example("a discount above 1", "critical", _cells(1e-7, return_gamma=1.05)),
        Example("not discounted", "ok", _cells(1e-7, return_gamma=1.0000004, gamma=1.0)),
        Example(
            "another discount than the one passed, always", "info", _cells(1e-7, 1e-7, return_gamma=0.9), updates=2
        ),
        Example(
            "no longer the discount passed",
            "critical",
            _cells(*[1e-7] * 5, return_gamma=[0.99] * 4 + [0.9]),
            updates=5,
        ),
        Example("no discount passed", "ok", _cells(1e-7, return_gamma=0.9, gamma=None)),
        Example("not passed", "no_data", dict.fromkeys((RESIDUAL, CONTINUED, ENDS, GAMMA))),
    ),
    memory={**relation_memory(RESIDUAL, CONTINUED, GAMMA), "continued_before": nothing_yet},
    causes=("numerical_instability",),
    statistics={
        RESIDUAL: Statistic("distance of the returns from their formula, as a share of them", column=RESIDUAL),
        GAMMA: Statistic("discount that fits the returns", baseline="the one passed", column=GAMMA),
    },
    revision=3,
    restated=("threshold", "baseline", VERDICT),
)
