"""Rule ``performance_degradation``: episodes return less than they did."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.baselines import Rolling
from esper_analyze.detector.deferral_guards import DeferralGuard, before
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, Statistic, WarmUp, limit
from esper_analyze.detector.signals import Floats, Frame
from esper_analyze.detector.streaks import tally, zeros
from esper_analyze.detector.verdict import Bounds, Judgement, settle

WINDOW = 20
"""Updates with finished episodes in each of the two windows that are compared."""


def _compared(windows: Floats) -> Floats:
    """Return mean of the older half, drop to the newer half, standard error of that drop; [3, m]."""
    older, newer = windows[:, :WINDOW], windows[:, WINDOW:]
    with np.errstate(over="ignore", invalid="ignore"):
        before = older.mean(axis=1)
        error = np.sqrt((older.var(axis=1) + newer.var(axis=1)) / (WINDOW - 1))
        return np.stack([before, before - newer.mean(axis=1), error])


_WINDOWS = Rolling(_compared, size=3, length=2 * WINDOW, every=10, first=2 * WINDOW, inclusive=True)

WARM_UP = WarmUp(
    "too early to speak of a level",
    lambda limits, planned: 2 * WINDOW if planned else max(2 * WINDOW, limits.warmup_updates + 1),
    lambda limits: limits.after_progress,
)


@dataclass(frozen=True, slots=True)
class PerformanceDegradationLimits(Limits):
    """Bounds on the drop of the mean episode return from 20 updates to the next 20."""

    info: float = limit(0.10, "10 % of the mean of the previous window (set by design)", at_least=0.0)
    warning: float = limit(0.30, "30 % of the mean of the previous window (set by design)", at_least=0.0)
    critical: float = limit(0.75, "sound runs of PPO on CartPole lose up to 60 % and recover", at_least=0.0)
    noise: float = limit(4.0, "drops of sound runs stay below 4 standard errors of the two means", at_least=0.0)
    after_progress: float = limit(0.1, "only after 10 % of the training (set by design)")
    warmup_updates: int = limit(50, "where progress is unknown, as value_collapse", at_least=0)


def judge(frame: Frame, memory: Memory, limits: PerformanceDegradationLimits) -> list[Judgement]:
    """Judge the mean return of the last 20 updates against the 20 before, in shares of the latter."""
    returns = frame["episode_return_mean"]
    before, drop, error = _WINDOWS.baseline(returns.values, returns.finite, memory, "windows")
    number = tally(frame.present, memory["updates"])
    progress = frame["progress"]
    early = np.where(progress.finite, progress.values < limits.after_progress, number <= limits.warmup_updates)
    scale = np.abs(before)
    clear = drop > limits.noise * error
    bounds = Bounds(
        info=clear & (drop >= limits.info * scale) & (drop > 0),
        warning=clear & (drop >= limits.warning * scale) & (drop > 0),
        critical=clear & (drop >= limits.critical * scale) & (drop > 0),
        info_at=before - limits.info * scale,
        warning_at=before - limits.warning * scale,
        critical_at=before - limits.critical * scale,
    )
    young = WARM_UP.excuse(returns.finite & (early | np.isnan(before)))
    return [settle(returns.name, returns, bounds, excuses=[young], baseline=before, judged=before - drop)]


def guard(frame: Frame, memory: Memory, limits: PerformanceDegradationLimits) -> DeferralGuard:
    """Defer until the windows are compared again."""
    returns, progress = frame["episode_return_mean"], frame["progress"]
    lasting = _WINDOWS.steady(memory, "windows", returns.finite)
    young = before(memory["updates"], frame.present[-1], limits.warmup_updates + 1)
    return DeferralGuard(min(lasting, young), {returns.name: (), progress.name: (limits.after_progress,)})


def _cells(*values: float | None, progress: float | None = 0.5) -> dict[str, object]:
    return {"episode_return_mean": list(values), "progress": progress}


RULE = Rule(
    name="performance_degradation",
    table="updates",
    figures=("returns",),
    panels=("returns.return",),
    columns=("episode_return_mean", "progress"),
    context=("progress",),
    limits=PerformanceDegradationLimits,
    warm_up=WARM_UP,
    judge=judge,
    guard=guard,
    title="Returns fell",
    meaning="The mean episode return of the last 20 updates (looked at after every tenth) is a tenth or more below "
    "that of the 20 before (the baseline), by more than their own scatter explains.",
    look_first="What the other rules said in the updates before the drop; whether the environment changed.",
    reference="Henderson et al. 2018, Deep Reinforcement Learning that Matters (on the scatter of returns)",
    examples=(
        Example("steady", "ok", _cells(*[10.0, 11.0] * 25), updates=50),
        Example("rising", "ok", _cells(*[10.0] * 20, *[20.0] * 20), updates=40),
        Example("within its own scatter", "ok", _cells(*[10.0, 30.0] * 10, *[10.0, 25.0] * 10), updates=40),
        Example("fell by a fifth", "info", _cells(*[10.0, 11.0] * 10, *[8.0, 8.5] * 10), updates=40),
        Example("fell by half", "warning", _cells(*[10.0, 11.0] * 10, *[5.0, 5.5] * 10), updates=40),
        Example("fell to nothing", "critical", _cells(*[10.0, 11.0] * 10, *[1.0, 1.5] * 10), updates=40),
        Example("negative returns, fell by half", "warning", _cells(*[-10.0] * 20, *[-15.0, -16.0] * 10), updates=40),
        Example("too early to say", "not_applicable", _cells(*[10.0] * 5), updates=5),
        Example("no episode finished", "no_data", _cells(None)),
    ),
    memory={"updates": zeros, **_WINDOWS.memory("windows")},
    causes=("numerical_instability", "first_ratio", "kl_spike", "spike_then_silence", "entropy_collapse"),
    follows=(
        "head_entropy_collapse",
        "value_divergence",
        "value_collapse",
        "gradient_explosion",
    ),
    higher_is_worse=False,
    statistics={
        "episode_return_mean": Statistic(
            f"mean of episode_return_mean over {WINDOW} updates", baseline=f"its mean over the {WINDOW} before"
        )
    },
    reach=2 * WINDOW,
    revision=2,
    restated=("value", "threshold"),
)
