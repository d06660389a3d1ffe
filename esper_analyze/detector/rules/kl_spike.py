"""Rule ``kl_spike``: one update moved the policy too far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.baselines import recent_median, recent_median_memory, recent_median_steady
from esper_analyze.detector.conditions.applicability import inner_loop_not_measurable
from esper_analyze.detector.conditions.shared import held
from esper_analyze.detector.conditions.stand_ins import COUNTED, KL_LOG, LAST_EPOCH, LOGGED, apart, kl_logged, movement
from esper_analyze.detector.deferral_guards import FREE, DeferralGuard, Side, same, steady, until
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.streaks import recent, streak, window, zeros
from esper_analyze.detector.verdict import Bounds, Judgement, settle

LONGEST = 50
"""Bound on ``window``: the flags of so many updates are carried, whatever the window is set to."""


@dataclass(frozen=True, slots=True)
class KlSpikeLimits(Limits):
    """Bounds on ``updates.kl_k3``, nats."""

    warning: float = limit(
        0.1,
        "0.05–0.1 is usual (from a review of a PPO code base); sound fast learners reach 0.12 once",
        at_least=0.0,
    )
    usual: float = limit(
        5.0,
        "times the median of its last 50 updates: where every update is that large, none is a spike",
        at_least=0.0,
    )
    window_hits: int = limit(2, "crossings within the window (set by design)", at_least=1)
    window: int = limit(
        5,
        "the last 5 updates, the present one included (set by design)",
        at_least=1,
        below=LONGEST + 1,
    )
    alone: float = limit(
        0.3, "a single one in a log: of 400 known sound trainings one has a last epoch of that much", at_least=0.0
    )
    log_hits: int = limit(
        4,
        "crossings within the window of a log, however usual: of 400 known sound trainings one has as many",
        at_least=1,
    )
    critical: float = limit(0.5, "at once (set by design)", at_least=0.0)
    target_factor: float = limit(1.5, "Stable-Baselines3 stops an epoch above 1.5 × target_kl", at_least=0.0)
    target_updates: int = limit(3, "3 updates in a row (set by design)", at_least=1)
    escalate: int = limit(10, "10 updates of detail for ratio and KL (set by design)")


def judge(frame: Frame, memory: Memory, limits: KlSpikeLimits) -> list[Judgement]:
    """Judge kl_k3: a single crossing is information, repeated ones a warning, a large one critical.

    A log has no ratios or gradients that would say more of a single one.
    """
    kl, target = movement(frame), frame["target_kl"]
    excuse = inner_loop_not_measurable(frame)
    usable = kl.finite & ~excuse.where
    level = recent_median(kl.values, usable, memory, "level")
    crossed = usable & (kl.values > limits.warning)
    far = crossed & ~(kl.values <= limits.usual * level)
    hits = recent(far, memory["far"], limits.window)
    goal = np.where(target.finite, limits.target_factor * target.values, np.inf)
    over = usable & (kl.values > goal)
    sustained = streak(over, usable & ~over, memory["over"]) >= limits.target_updates
    logged = kl_logged(frame)
    of_log = crossed & LOGGED.holds(frame)
    alone = far & of_log & (kl.values > limits.alone)
    kept = recent(of_log, memory["of_log"], limits.window) >= limits.log_hits
    often = (hits >= limits.window_hits) | alone | kept
    bounds = Bounds(
        info=crossed,
        warning=often | sustained,
        critical=usable & (kl.values > limits.critical),
        info_at=limits.warning,
        warning_at=np.where(
            sustained & ~often,
            goal,
            np.where(
                kept, limits.warning, np.fmax(np.where(alone, limits.alone, limits.warning), limits.usual * level)
            ),
        ),
        critical_at=limits.critical,
    )
    return apart(settle("kl_k3", kl, bounds, excuses=[excuse]), logged)


def guard(frame: Frame, memory: Memory, limits: KlSpikeLimits) -> DeferralGuard | None:
    """Defer while KL stays on the same side of its bounds; its own level matters beyond the warning's."""
    kl, target = frame["kl_k3"], frame["target_kl"]
    if not steady(memory["far"], limits.window):
        return None
    sides: list[Side] = [limits.warning, limits.critical, limits.target_factor * target.values]
    lasting = until(memory["over"], limits.target_updates)
    if np.count_nonzero(kl.values > limits.warning):
        usable = kl.finite & ~inner_loop_not_measurable(frame).where
        sides.append(limits.usual * memory["level_level"][0])
        lasting = min(lasting, recent_median_steady(memory, "level", usable))
    watched: dict[str, Sequence[Side] | None] = {
        "inner_loop_measurable": same(frame["inner_loop_measurable"]),
        target.name: same(target),
    }
    watched |= {**dict.fromkeys(KL_LOG, FREE), **held(frame, LOGGED)}
    return DeferralGuard(lasting, {kl.name: sides, **watched})


def _cells(*values: float | None, target: float | None = None) -> dict[str, object]:
    return {"kl_k3": list(values), "target_kl": target, "inner_loop_measurable": True, COUNTED: 8}


def _log(*last_epoch: float) -> dict[str, object]:
    return {"kl_k3": None, LAST_EPOCH: list(last_epoch), COUNTED: None}


RULE = Rule(
    name="kl_spike",
    table="updates",
    panels=("policy.kl",),
    columns=("kl_k3", "target_kl", "inner_loop_measurable", *KL_LOG),
    context=("target_kl", *KL_LOG),
    conditions=(LOGGED,),
    limits=KlSpikeLimits,
    judge=judge,
    guard=guard,
    title="KL divergence spiked",
    meaning="The policy moved further in one update than the clipped surrogate is valid for. Large steps precede "
    "exploding ratios and collapsed entropy.",
    look_first="Learning rate, number of epochs, minibatch size; a target_kl would have stopped the update early.",
    reference="Schulman 2020, Approximating KL Divergence (k3); Schulman et al. 2017, section 4",
    examples=(
        Example("a sound update", "ok", _cells(0.01), updates=1),
        Example("one crossing", "info", _cells(0.01, 0.12), updates=2),
        Example("two crossings in five updates", "warning", _cells(0.12, 0.01, 0.01, 0.15), updates=4),
        Example("far too far", "critical", _cells(0.9), updates=1),
        Example("over the target three times", "warning", _cells(0.02, 0.02, 0.02, target=0.01), updates=3),
        Example("not recorded", "no_data", _cells(None), updates=1),
        Example("a log's last epoch, twice", "warning", _log(0.01, 0.15, 0.15), updates=3),
        Example("a log's last epoch, ever larger", "warning", _log(*[0.03] * 20, *[0.12] * 4), updates=24),
        Example("a log's last epoch, once and far", "warning", _log(0.01, 0.4), updates=2),
        Example("a log's last epoch, far too far", "critical", _log(0.01, 0.9), updates=2),
    ),
    memory={"far": window(LONGEST), "of_log": window(LONGEST), "over": zeros, **recent_median_memory("level")},
    causes=(
        "setting_changed",
        "observations_changed",
        "parameters_changed",
        "losses_inconsistent",
        "optimizer_restarted",
        "first_ratio",
        "numerical_instability",
    ),
    follows=("advantage_outlier",),
    revision=2,
    restated=("threshold", VERDICT),
)
