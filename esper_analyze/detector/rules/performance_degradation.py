"""Rule ``performance_degradation``: episodes return less than they did."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.baselines import EARLY_MEMORY, early_level
from esper_analyze.detector.best_level import EPISODES, FIRST, LEVEL_MEMORY, UPDATES, below_best
from esper_analyze.detector.conditions.convergence import EARLY_UPDATES, EPISODE_RETURN
from esper_analyze.detector.conditions.stand_ins import (
    COUNTED,
    LOGGED,
    SMOOTHED,
    SMOOTHING_MEMORY,
    episodes_of,
    smoothing,
)
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Statistic, WarmUp, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.verdict import Bounds, Judgement, settle

EPISODES_FINISHED = "episodes_finished"
WARM_UP = WarmUp("too early to speak of a level", lambda *_: FIRST + UPDATES, also=f" and {2 * EPISODES} episodes")


@dataclass(frozen=True, slots=True)
class PerformanceDegradationLimits(Limits):
    """Bounds on the drop of the mean episode return, as shares of what it was at best, or of what it had risen by."""

    info: float = limit(0.10, "10 % of the best mean before (set by design)", at_least=0.0)
    warning: float = limit(
        0.25,
        "a quarter of it: 0 of 93 known sound trainings of the fault bench fell by more, 1 of 88 others",
        at_least=0.0,
    )
    critical: float = limit(0.75, "sound runs of PPO on CartPole lose up to 60 % and recover", at_least=0.0)
    noise: float = limit(6.0, "standard errors: of the best of many means, drops by chance reach 5", at_least=0.0)


def judge(frame: Frame, memory: Memory, limits: PerformanceDegradationLimits) -> list[Judgement]:
    """Judge the mean return of the newest episodes against the best such mean before, beyond their scatter."""
    returns = frame[EPISODE_RETURN]
    early = early_level(returns.values, returns.finite, memory, EARLY_UPDATES)
    least = min(limits.info, limits.warning, limits.critical)
    level = below_best(returns, episodes_of(frame), memory, least)
    drop, best = level.best - level.mean, level.best
    error = level.error * smoothing(frame, memory)
    scale = np.fmax(np.abs(best), np.abs(best - early))
    clear = (drop > 0) & (drop > limits.noise * error)
    bounds = Bounds(
        info=clear & (drop >= limits.info * scale),
        warning=clear & (drop >= limits.warning * scale),
        critical=clear & (drop >= limits.critical * scale),
        info_at=best - limits.info * scale,
        warning_at=best - limits.warning * scale,
        critical_at=best - limits.critical * scale,
    )
    young = WARM_UP.excuse(returns.finite & np.isnan(best))
    return [settle(returns.name, returns, bounds, excuses=[young], baseline=best, judged=level.mean)]


def _cells(*values: float | None, episodes: int | None = 10) -> dict[str, object]:
    return {EPISODE_RETURN: list(values), EPISODES_FINISHED: episodes, COUNTED: 8}


RULE = Rule(
    name="performance_degradation",
    table="updates",
    figures=("returns",),
    panels=("returns.return",),
    columns=(EPISODE_RETURN, EPISODES_FINISHED, *SMOOTHED),
    context=(EPISODES_FINISHED, *SMOOTHED),
    conditions=(LOGGED,),
    limits=PerformanceDegradationLimits,
    warm_up=WARM_UP,
    judge=judge,
    title="Returns fell",
    meaning="The mean return of the newest episodes is a tenth or more below the best such mean before (the baseline), "
    "by more than the scatter of single episodes explains. A mean is of the last 3 updates with a finished episode, or "
    "of as many more as 20 episodes take.",
    look_first="What the other rules said in the updates before the drop; whether the environment changed.",
    reference="Henderson et al. 2018, Deep Reinforcement Learning that Matters (on the scatter of returns)",
    examples=(
        Example("steady", "ok", _cells(*[10.0, 11.0] * 15), updates=30),
        Example("rising", "ok", _cells(*[10.0] * 20, *[20.0] * 5), updates=25),
        Example(
            "within its own scatter", "ok", _cells(*[10.0, 30.0] * 10, *[10.0, 25.0, 10.0, 25.0, 10.0]), updates=25
        ),
        Example("fell by a fifth", "info", _cells(*[10.0, 10.2] * 10, *[8.0] * 3), updates=23),
        Example("fell by half", "warning", _cells(*[10.0, 10.2] * 10, *[5.0] * 3), updates=23),
        Example("fell to nothing", "critical", _cells(*[10.0, 10.2] * 10, *[1.0] * 3), updates=23),
        Example("negative returns, fell by half", "warning", _cells(*[-10.0, -10.2] * 10, *[-16.0] * 3), updates=23),
        Example(
            "fell by an eighth of its rise",
            "info",
            _cells(*[-90.0 + i for i in range(80)], *[-10.0] * 40, *[-20.0] * 3),
            updates=123,
        ),
        Example("fell, of one episode each", "warning", _cells(*[10.0] * 40, *[5.0] * 20, episodes=1), updates=60),
        Example("of so few episodes too early", "not_applicable", _cells(*[10.0] * 30, episodes=1), updates=30),
        Example("too early to say", "not_applicable", _cells(*[10.0] * 5), updates=5),
        Example("no episode finished", "no_data", _cells(None)),
    ),
    memory={**EARLY_MEMORY, **LEVEL_MEMORY, **SMOOTHING_MEMORY},
    causes=(
        "observations_changed",
        "parameters_changed",
        "losses_inconsistent",
        "policy_replaced",
        "optimizer_restarted",
        "advantage_inconsistent",
        "returns_inconsistent",
        "ends_ignored",
        "environments_alike",
        "advantage_misaligned",
        "numerical_instability",
        "first_ratio",
        "kl_spike",
        "spike_then_silence",
        "entropy_collapse",
    ),
    follows=(
        "head_entropy_collapse",
        "value_fit_lost",
        "value_divergence",
        "value_collapse",
        "gradient_explosion",
        "setting_changed",
    ),
    higher_is_worse=False,
    statistics={
        EPISODE_RETURN: Statistic(
            f"mean of episode_return_mean over {EPISODES} episodes or more", baseline="the best such mean before"
        )
    },
    reach=EPISODES,
    revision=5,
    restated=("value", "threshold", "baseline", VERDICT),
)
