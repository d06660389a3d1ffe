"""Rule ``std_runaway``: the standard deviation of a Gaussian head grows without end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.baselines import EARLY_MEMORY, Rolling, early_level
from esper_analyze.detector.conditions.applicability import not_gaussian
from esper_analyze.detector.deferral_guards import LASTING, DeferralGuard, same
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, Statistic, WarmUp, limit
from esper_analyze.detector.signals import Floats, Frame
from esper_analyze.detector.verdict import Bounds, Judgement, settle

EARLY, WINDOW = 3, 20
"""Updates whose mean is the start; updates from which the slope of log std is taken."""


def _slope(windows: Floats) -> Floats:
    """Return the least-squares slope of log std an update, [1, m]."""
    steps = np.arange(windows.shape[1]) - (windows.shape[1] - 1) / 2
    slope: Floats = (np.log(windows) * steps).sum(axis=1)[None] / np.square(steps).sum()
    return slope


LOG_STD_SLOPE = Rolling(_slope, length=WINDOW, every=1, first=WINDOW, inclusive=True)


@dataclass(frozen=True, slots=True)
class StdRunawayLimits(Limits):
    """Bounds on ``heads.std_mean`` relative to its start, and on how fast it still grows."""

    warning: float = limit(
        2.0, "times the mean of its first 3 updates: of 18 sound trainings none exceeds 1.2", at_least=1.0
    )
    critical: float = limit(
        5.0, "times the mean of its first 3 updates: no sound training comes near (set by design)", at_least=1.0
    )
    wide: float = limit(
        1.5, "less is no wider than actions from −1 to 1 call for: sound runs stay at 0.3–1.5", at_least=0.0
    )
    rising: float = limit(
        0.005,
        "slope of log std an update over 20 updates, a tenth in these: none of these exceeds 0.0045",
        at_least=0.0,
    )


def judge(frame: Frame, memory: Memory, limits: StdRunawayLimits) -> list[Judgement]:
    """Judge whether the mean standard deviation is far above its start and still grows."""
    std = frame["std_mean"]
    usable = std.finite & (std.values > 0.0)
    start = early_level(std.values, usable, memory, EARLY)
    (slope,) = LOG_STD_SLOPE.baseline(std.values, usable, memory, "slope")
    wide = usable & (std.values > limits.wide)
    far = wide & (std.values > limits.critical * start)
    bounds = Bounds(
        warning=wide & (std.values > limits.warning * start) & (slope > limits.rising),
        critical=far,
        warning_at=np.maximum(limits.warning * start, limits.wide),
        critical_at=np.maximum(limits.critical * start, limits.wide),
    )
    early = WARM_UP.excuse(usable & np.isnan(slope) & ~far)
    return [settle(std.name, std, bounds, excuses=[not_gaussian(frame), early], baseline=start)]


def guard(frame: Frame, memory: Memory, limits: StdRunawayLimits) -> DeferralGuard | None:
    """Defer while the mean stays below the width of sound runs: nothing else matters there."""
    std = frame["std_mean"]
    counted = memory["slope_count"] >= WINDOW
    if np.count_nonzero(std.finite & ((std.values > limits.wide) | (std.values <= 0.0) | ~counted)):
        return None
    return DeferralGuard(LASTING, {"std_mean": (limits.wide, 0.0), "kind": same(frame["kind"])})


WARM_UP = WarmUp("too few updates to know its course", updates=lambda limits, planned: WINDOW)  # noqa: ARG005


def _cells(*values: float | None, kind: str | None = "gaussian") -> dict[str, object]:
    return {"std_mean": list(values), "kind": kind}


def _grown(factor: float, updates: int = 60) -> list[float]:
    return [factor ** (i / (updates - 1)) for i in range(updates)]


RULE = Rule(
    name="std_runaway",
    table="heads",
    panels=("heads.head",),
    columns=("std_mean", "kind"),
    context=("kind",),
    limits=StdRunawayLimits,
    judge=judge,
    guard=guard,
    title="The standard deviation runs away",
    meaning="The standard deviation of a Gaussian head is several times what it began with, and grows. Actions become "
    "noise at the bounds of their space, and what the policy has learnt no longer shows. The usual cause is an entropy "
    "bonus that pays more than the advantages do.",
    look_first="The entropy coefficient: divide it by ten, or set it to 0 where the action space is continuous. Then "
    "action_bound_fraction, and whether rewards are so small or constant that advantages say nothing.",
    reference="Andrychowicz et al. 2021, What Matters in On-Policy RL, on the entropy of Gaussian policies",
    examples=(
        Example("a sound run", "ok", _cells(*_grown(0.4))),
        Example("from 1 to 1.3", "ok", _cells(*_grown(1.3))),
        Example("three times, and still growing", "warning", _cells(*_grown(3.0))),
        Example("three times, and at rest", "ok", _cells(*_grown(3.0), *[3.0] * 25)),
        Example("ten times", "critical", _cells(*_grown(10.0))),
        Example("four times, from almost nothing", "ok", _cells(*(0.1 * std for std in _grown(4.0)))),
        Example("too early to know", "not_applicable", _cells(1.0, 1.5, 2.0)),
        Example("NaN never passes", "critical", _cells(*[1.0] * 20, float("nan"))),
        Example("a categorical head", "not_applicable", _cells(None, kind="categorical")),
        Example("not recorded", "no_data", _cells(None)),
    ),
    memory={**EARLY_MEMORY, **LOG_STD_SLOPE.memory("slope")},
    causes=("std_nonpositive", "setting_changed"),
    follows=("kl_spike", "advantage_collapse"),
    warm_up=WARM_UP,
    optional=True,
    statistics={
        "std_mean": Statistic("mean standard deviation", baseline="the mean of its first 3 updates", column="std_mean")
    },
)
