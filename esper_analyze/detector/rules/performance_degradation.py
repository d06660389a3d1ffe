"""Rule ``performance_degradation``: episodes return less than they did."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from esper_analyze.detector.baselines import EARLY_MEMORY, Rolling, early_level
from esper_analyze.detector.conditions.convergence import EARLY_UPDATES, EPISODE_RETURN
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Statistic, WarmUp, limit
from esper_analyze.detector.signals import Floats, Frame
from esper_analyze.detector.verdict import Bounds, Judgement, settle

NEWER, OLDER = 5, 20
"""Updates with finished episodes in the window that is judged, and in the one before it."""
LEAST = 15
"""Such updates before the first verdict."""


def _compared(windows: Floats, share: float) -> Floats:
    """Return mean of the older part, drop to the newer one, its standard error, least level of the older; [4, m].

    The error is that of two means of values that scatter as the older ones do. The least level is the smallest mean of
    as many older updates in a row as the newer part has. Both are NaN where the drop is below ``share`` of the mean.
    """
    older, newer = windows[:, :-NEWER], windows[:, -NEWER:].mean(axis=1)
    before = older.mean(axis=1)
    drop = before - newer
    error, least = np.full((2, len(windows)), np.nan)
    fallen = np.flatnonzero(~(drop < share * np.abs(before)) & (drop > 0))
    if len(fallen):
        older = older[fallen]
        error[fallen] = older.std(axis=1, ddof=1) * np.sqrt(1 / NEWER + 1 / older.shape[1])
        totals = np.cumsum(older, axis=1)
        levels = totals[:, NEWER - 1 :].copy()
        levels[:, 1:] -= totals[:, :-NEWER]
        least[fallen] = levels.min(axis=1) / NEWER
    return np.stack([before, drop, error, least])


def _windows(share: float) -> Rolling:
    return Rolling(partial(_compared, share=share), size=4, length=NEWER + OLDER, every=1, first=LEAST, inclusive=True)


WARM_UP = WarmUp("too early to speak of a level", lambda *_: LEAST)


@dataclass(frozen=True, slots=True)
class PerformanceDegradationLimits(Limits):
    """Bounds on the drop of the mean episode return, as shares of what it was, or of what it had risen by."""

    info: float = limit(0.10, "10 % of the mean of the updates before (set by design)", at_least=0.0)
    warning: float = limit(
        0.40, "40 % of it: 1 of 244 known sound trainings of the fault bench fell by more", at_least=0.0
    )
    critical: float = limit(0.75, "sound runs of PPO on CartPole lose up to 60 % and recover", at_least=0.0)
    noise: float = limit(4.0, "drops of sound runs stay below 4 standard errors of the two means", at_least=0.0)


def judge(frame: Frame, memory: Memory, limits: PerformanceDegradationLimits) -> list[Judgement]:
    """Judge the mean return of the last 5 updates against the 20 before, beyond their scatter and their least level."""
    returns = frame[EPISODE_RETURN]
    early = early_level(returns.values, returns.finite, memory, EARLY_UPDATES)
    before, drop, error, least = _windows(min(limits.info, limits.warning, limits.critical)).baseline(
        returns.values, returns.finite, memory, "windows"
    )
    scale = np.fmax(np.abs(before), np.abs(before - early))
    clear = (drop > limits.noise * error) & (before - drop < least)
    bounds = Bounds(
        info=clear & (drop >= limits.info * scale),
        warning=clear & (drop >= limits.warning * scale),
        critical=clear & (drop >= limits.critical * scale),
        info_at=before - limits.info * scale,
        warning_at=before - limits.warning * scale,
        critical_at=before - limits.critical * scale,
    )
    young = WARM_UP.excuse(returns.finite & np.isnan(before))
    return [settle(returns.name, returns, bounds, excuses=[young], baseline=before, judged=before - drop)]


def _cells(*values: float | None) -> dict[str, object]:
    return {EPISODE_RETURN: list(values)}


RULE = Rule(
    name="performance_degradation",
    table="updates",
    figures=("returns",),
    panels=("returns.return",),
    columns=(EPISODE_RETURN,),
    limits=PerformanceDegradationLimits,
    warm_up=WARM_UP,
    judge=judge,
    title="Returns fell",
    meaning="The mean episode return of the last 5 updates is a tenth or more below that of the 20 before (the "
    "baseline), by more than their own scatter explains, and lower than of any 5 of those in a row.",
    look_first="What the other rules said in the updates before the drop; whether the environment changed.",
    reference="Henderson et al. 2018, Deep Reinforcement Learning that Matters (on the scatter of returns)",
    examples=(
        Example("steady", "ok", _cells(*[10.0, 11.0] * 15), updates=30),
        Example("rising", "ok", _cells(*[10.0] * 20, *[20.0] * 5), updates=25),
        Example(
            "within its own scatter", "ok", _cells(*[10.0, 30.0] * 10, *[10.0, 25.0, 10.0, 25.0, 10.0]), updates=25
        ),
        Example("fell by a fifth", "info", _cells(*[10.0, 11.0] * 10, *[8.0] * 5), updates=25),
        Example("fell by half", "warning", _cells(*[10.0, 11.0] * 10, *[5.0] * 5), updates=25),
        Example("fell to nothing", "critical", _cells(*[10.0, 11.0] * 10, *[1.0] * 5), updates=25),
        Example("negative returns, fell by half", "warning", _cells(*[-10.0, -11.0] * 10, *[-16.0] * 5), updates=25),
        Example(
            "fell by half of a small part of its rise",
            "info",
            _cells(*[-90.0] * 3, *[-10.0, -11.0] * 10, *[-20.0] * 5),
            updates=28,
        ),
        Example("too early to say", "not_applicable", _cells(*[10.0] * 5), updates=5),
        Example("no episode finished", "no_data", _cells(None)),
    ),
    memory={**EARLY_MEMORY, **_windows(0.0).memory("windows")},
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
            f"mean of episode_return_mean over {NEWER} updates", baseline=f"its mean over the {OLDER} before"
        )
    },
    reach=NEWER + OLDER,
    revision=4,
    restated=("value", "threshold", "baseline", VERDICT),
)
