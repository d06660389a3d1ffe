"""Rule ``returns_inconsistent``: the value targets no longer follow from rewards, values and ends."""

from __future__ import annotations

from dataclasses import dataclass

from esper_analyze.detector.conditions.relation import (
    EVIDENCE,
    UPDATES,
    established,
    establishing,
    relation_memory,
)
from esper_analyze.detector.deferral_guards import DeferralGuard, same
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, Statistic, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.streaks import latest, nothing_yet
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle

RESIDUAL, CONTINUED, ENDS, GAMMA = "return_residual", "ends_continued_fraction", "rollout_ends", "return_gamma"


@dataclass(frozen=True, slots=True)
class ReturnsInconsistentLimits(Limits):
    """Bounds on how far returns are from what rewards, values and ends make of them."""

    exact: float = limit(1e-3, "share of the returns: GAE in single precision stays below 1e-5", at_least=0.0)
    updates: int = limit(UPDATES, EVIDENCE, at_least=1)
    broken: float = limit(0.01, "share of the returns, where they were exact before (set by design)", at_least=0.0)
    continued: float = limit(0.999, "all ends go on, where none did before (by definition)", at_least=0.0)
    ends: int = limit(3, "ends of a rollout: fewer can all be time limits (set by design)", at_least=1)
    gamma: float = limit(1.0, "a discount above 1 lets values grow without bound (by definition)", at_least=0.0)
    rounding: float = limit(1e-3, "by so much a fitted discount of 1 may be above it (set by design)", at_least=0.0)


def judge(frame: Frame, memory: Memory, limits: ReturnsInconsistentLimits) -> list[Judgement]:
    """Judge the distance of the returns from their formula, the ends that go on, and the discount that fits."""
    residual = frame[RESIDUAL]
    exact = residual.finite & (residual.values <= limits.exact)
    usual = established(exact, residual.finite, memory, RESIDUAL, limits.updates)
    broken = Bounds(critical=usual & residual.finite & (residual.values > limits.broken), critical_at=limits.broken)
    return [
        settle(residual.name, residual, broken),
        _ends(frame, memory, limits),
        _gamma(frame, limits),
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


def _gamma(frame: Frame, limits: ReturnsInconsistentLimits) -> Judgement:
    gamma, residual = frame[GAMMA], frame[RESIDUAL]
    fits = residual.finite & (residual.values <= limits.exact)
    bound = limits.gamma + limits.rounding
    bounds = Bounds(critical=fits & (gamma.values > bound), critical_at=bound)
    return settle(gamma.name, gamma, bounds)


def guard(frame: Frame, memory: Memory, limits: ReturnsInconsistentLimits) -> DeferralGuard:
    """Defer while every quantity stays on the same side of its bounds."""
    sides = {
        RESIDUAL: (limits.exact, limits.broken),
        CONTINUED: (0.0, limits.continued, *same(frame[CONTINUED])),
        ENDS: (0.0, float(limits.ends)),
        GAMMA: (limits.gamma + limits.rounding,),
    }
    return DeferralGuard(min(establishing(memory, name, limits.updates) for name in (RESIDUAL, CONTINUED)), sides)


def _cells(*residual: float | None, ends: int | None = 5, gamma: float | None = 0.99) -> dict[str, object]:
    return {RESIDUAL: list(residual), CONTINUED: 0.0, ENDS: ends, GAMMA: gamma}


def _at_ends(*share: float | None, ends: int = 5) -> dict[str, object]:
    return {RESIDUAL: 1e-7, CONTINUED: list(share), ENDS: ends, GAMMA: 0.99}


RULE = Rule(
    name="returns_inconsistent",
    table="updates",
    figures=("value",),
    columns=(RESIDUAL, CONTINUED, ENDS, GAMMA),
    context=(ENDS,),
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
        "did: ends are ignored, or every end is now a time limit after which the loop adds the value of the next state "
        "without handing that over with the rewards.",
        GAMMA: "The discount that fits the returns is above 1: rewards count the more the later they come, and values "
        "grow without bound.",
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
        Example("a discount above 1", "critical", _cells(1e-7, gamma=1.05)),
        Example("not discounted", "ok", _cells(1e-7, gamma=1.0000004)),
        Example("not passed", "no_data", dict.fromkeys((RESIDUAL, CONTINUED, ENDS, GAMMA))),
    ),
    memory={**relation_memory(RESIDUAL, CONTINUED), "continued_before": nothing_yet},
    causes=("numerical_instability",),
    statistics={
        RESIDUAL: Statistic("distance of the returns from their formula, as a share of them", column=RESIDUAL),
    },
)
