"""Rule ``gradient_drift``: a group's gradient norm or health stays away from its own moving average. Never an alarm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.ema import ema_baseline, ema_memory
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Statistic, WarmUp, limit
from esper_analyze.detector.signals import Bools, Floats, Frame, Signal
from esper_analyze.detector.streaks import latest, streak
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle

METRICS = (("grad_norm", "norm"), ("health", "health"))
HEALTH = 1
"""Its index among them."""

EPSILON = 1e-8
"""Keeps the drift defined where the average is 0."""

LARGEST = float(np.finfo(np.float64).max)
"""Bound on the drift: a finite value after an average of 0 can overflow the quotient without being non-finite."""

WARM_UP = WarmUp("warming up", lambda limits, _: limits.warmup + 1)


@dataclass(frozen=True, slots=True)
class GradientDriftLimits(Limits):
    """Bounds on drift = |x − ema| / (ema + 1e-8), with the EMA before x is added."""

    info: float = limit(0.5, "50 % deviation from the EMA (from a review of a PPO code base)", at_least=0.0)
    sustained: int = limit(3, "3 updates in a row (set by design)", at_least=1)
    noise: float = limit(15.0, "sound runs drift by up to 13 × their own change from update to update", at_least=0.0)
    momentum: float = limit(
        0.99, "an EMA over about 100 updates (from a review of a PPO code base)", at_least=0.0, below=1.0
    )
    warmup: int = limit(10, "no drift before 10 updates (from a review of a PPO code base)", at_least=1)
    escalate: int = limit(0, "information never escalates")


def judge(frame: Frame, memory: Memory, limits: GradientDriftLimits) -> list[Judgement]:
    """Judge the drift of norm (both ways) and health (downwards); leave both drifts for the recorder to write."""
    signals = [frame[metric] for metric, _ in METRICS]
    values = np.stack([signal.values for signal in signals], axis=1)  # [n, 2, k]: both metrics in one go
    usable = np.stack([signal.finite for signal in signals], axis=1)
    average = ema_baseline(values, usable, memory, "ema", keep=limits.momentum, warmup=limits.warmup)
    has_average = ~np.isnan(average)
    away = np.abs(values - average)
    drift = np.minimum(away / (average + EPSILON), LARGEST)
    beyond = has_average & (away > limits.noise * _step(values, usable, memory, limits))
    beyond[:, HEALTH] &= values[:, HEALTH] < average[:, HEALTH]  # it rose in sound runs by twice its average
    far = beyond & (drift > limits.info)
    long_far = streak(far, has_average & ~far, memory["far"]) >= limits.sustained
    judgements = []
    for row, (metric, short) in enumerate(METRICS):
        memory[f"drift_{short}"] = drift[:, row]
        bounds = Bounds(info=long_far[:, row], info_at=limits.info)
        judgements.append(_settled(metric, signals[row], drift[:, row], average[:, row], has_average[:, row], bounds))
    return judgements


def _settled(
    metric: str, signal: Signal, drift: Floats, average: Floats, has_average: Bools, bounds: Bounds
) -> Judgement:
    young = signal.finite & ~has_average
    if signal.all_finite and not np.count_nonzero(young):
        return settle(metric, Signal(metric, drift, signal.null), bounds, baseline=average)
    excuses = [
        Excuse(signal.nonfinite, "non-finite: judged by numerical_instability", quiet=True),
        WARM_UP.excuse(young),
    ]
    return settle(metric, Signal(metric, drift, signal.null), bounds, excuses=excuses, baseline=average)


def _step(values: Floats, usable: Bools, memory: Memory, limits: GradientDriftLimits) -> Floats:
    """Return the moving average of |x − previous x|, [n, 2, k]: the usual change of a metric."""
    carried = memory["last"]
    warmup = max(limits.warmup - 1, 1)
    if len(values) == 1:
        change = np.abs(values - carried)
        np.copyto(carried, values[0], where=usable[0])
        counted = usable & np.isfinite(change)
        return ema_baseline(change, counted, memory, "step", keep=limits.momentum, warmup=warmup)
    first = carried.copy()
    now = latest(values, usable, carried)
    change = np.abs(values - np.concatenate([first[None], now[:-1]]))
    counted = usable & np.isfinite(change)
    return ema_baseline(change, counted, memory, "step", keep=limits.momentum, warmup=warmup)


def _cells(*values: float | None) -> dict[str, object]:
    return {"grad_norm": list(values), "health": 1.0}


RULE = Rule(
    name="gradient_drift",
    table="groups",
    figures=("drift",),
    columns=("grad_norm", "health"),
    limits=GradientDriftLimits,
    warm_up=WARM_UP,
    judge=judge,
    title="Gradients drifted",
    meaning="The group's gradient has been far from its own moving average for several updates: it grows, fades or "
    "its tensors vanish or explode, without any single update being alarming. Health counts only when it falls. "
    "It is information: gradients also grow and fade by tens of times in trainings that go well.",
    look_first="Learning-rate schedule, scale of advantages and returns, entropy; which group moved first.",
    reference="Relative deviation from a bias-corrected EMA (Kingma & Ba 2015)",
    examples=(
        Example("steady", "ok", _cells(*[1.0] * 14), updates=14),
        Example("warming up", "not_applicable", _cells(1.0, 5.0), updates=2),
        Example("twice the average, three updates running", "info", _cells(*[1.0] * 11, 2.0, 2.0, 2.0), updates=14),
        Example("two updates only", "ok", _cells(*[1.0] * 11, 2.0, 2.0), updates=13),
        Example("five times the average", "info", _cells(*[1.0] * 11, 5.0, 5.0, 5.0), updates=14),
        Example("no gradient", "no_data", _cells(None), updates=1),
    ),
    memory={
        **ema_memory("ema", 2),
        **ema_memory("step", 2),
        "last": lambda k: np.full((2, k), np.nan),
        "far": lambda k: np.zeros((2, k), np.int64),
    },
    causes=("numerical_instability", "kl_spike", "entropy_collapse", "head_entropy_collapse"),
    follows=(
        "gradient_explosion",
        "value_divergence",
        "value_collapse",
    ),
    confirmed_by="sustained",
    fills=("drift_norm", "drift_health"),
    statistics={
        metric: Statistic(f"drift of {metric}", baseline=f"the moving average of {metric}", column=f"drift_{short}")
        for metric, short in METRICS
    },
    revision=2,
    restated=("threshold", VERDICT),
)
