"""Rule ``gradient_drift``: a group's gradient norm or health leaves its own moving average for good."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.carry import latest, nothing_yet, streak, zeros
from esper_analyze.detector.moving import moving_average, moving_memory
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, limit
from esper_analyze.detector.signals import Bools, Floats, Frame, Signal
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle

METRICS = (("grad_norm", "norm"), ("health", "health"))

EPSILON = 1e-8
"""Keeps the drift defined where the average is 0."""

LARGEST = float(np.finfo(np.float64).max)
"""Bound on the drift: a finite value after an average of 0 can overflow the quotient, and is not itself non-finite."""


@dataclass(frozen=True, slots=True)
class GradientDriftLimits(Limits):
    """Bounds on drift = |x − ema| / (ema + 1e-8), taken before the average takes x in."""

    warning: float = limit(0.5, "subsystem review on the EMA tracker: 50 % deviation")
    critical: float = limit(2.0, "detector specification")
    sustained: int = limit(3, "detector specification: sustained 3", at_least=1)
    noise: float = limit(15.0, "sound runs drift by up to 13 × their own change from update to update", at_least=0.0)
    momentum: float = limit(0.99, "subsystem review on the EMA tracker", at_least=0.0, below=1.0)
    warmup: int = limit(10, "subsystem review L4: no drift before 10 updates", at_least=1)
    escalate: int = limit(5, "detector specification: drift 5")


def judge(frame: Frame, memory: Memory, limits: GradientDriftLimits) -> list[Judgement]:
    """Judge the drift of norm (both ways) and health (downwards); leave both drifts for the recorder to write."""
    return [_judge_one(frame[metric], memory, short, limits) for metric, short in METRICS]


def _judge_one(signal: Signal, memory: Memory, short: str, limits: GradientDriftLimits) -> Judgement:
    usable, values = signal.finite, signal.values
    average = moving_average(values, usable, memory, short, keep=limits.momentum, warmup=limits.warmup)
    known = ~np.isnan(average)
    with np.errstate(all="ignore"):
        away = np.abs(values - average)
        drift = np.minimum(away / (average + EPSILON), LARGEST)
    memory[f"drift_{short}"] = drift
    with np.errstate(all="ignore"):
        beyond = known & (away > limits.noise * _step(values, usable, memory, short, limits))
    if short == "health":  # health above its average is no trouble: it rose in sound runs by twice its average
        beyond &= values < average
    far, out = beyond & (drift > limits.warning), beyond & (drift > limits.critical)
    bounds = Bounds(
        warning=streak(far, known & ~far, memory[f"far_{short}"]) >= limits.sustained,
        critical=streak(out, known & ~out, memory[f"out_{short}"]) >= limits.sustained,
        warning_at=limits.warning,
        critical_at=limits.critical,
    )
    excuses = [
        Excuse(signal.nonfinite, "non-finite: judged by numerical_instability", quiet=True),
        Excuse(usable & ~known, "warming up", quiet=True),
    ]
    return settle(signal.name, Signal(signal.name, drift, signal.null), bounds, excuses=excuses, baseline=average)


def _step(values: Floats, usable: Bools, memory: Memory, short: str, limits: GradientDriftLimits) -> Floats:
    """Return the moving average of |x − the x before|, [n, k]: how much the metric changes of itself."""
    carried = memory[f"last_{short}"]
    first = carried.copy()
    now = latest(values, usable, carried)
    change = np.abs(values - np.concatenate([first[None, :], now[:-1]]))
    counted = usable & np.isfinite(change)
    return moving_average(
        change, counted, memory, f"step_{short}", keep=limits.momentum, warmup=max(limits.warmup - 1, 1)
    )


def _cells(*values: float | None) -> dict[str, object]:
    return {"grad_norm": list(values), "health": 1.0}


RULE = Rule(
    name="gradient_drift",
    table="groups",
    columns=("grad_norm", "health"),
    limits=GradientDriftLimits,
    judge=judge,
    title="Gradients drifted",
    meaning="The group's gradient has been far from its own moving average for several updates: it grows, fades or "
    "its tensors vanish or explode, without any single update being alarming. Health counts only when it falls.",
    look_first="Learning-rate schedule, scale of advantages and returns, entropy; which group moved first.",
    reference="Gradient review C3; subsystem review on gradient_ema",
    examples=(
        Example("steady", "ok", _cells(*[1.0] * 14), updates=14),
        Example("warming up", "not_applicable", _cells(1.0, 5.0), updates=2),
        Example("twice the average, three updates running", "warning", _cells(*[1.0] * 11, 2.0, 2.0, 2.0), updates=14),
        Example("two updates only", "ok", _cells(*[1.0] * 11, 2.0, 2.0), updates=13),
        Example("five times the average", "critical", _cells(*[1.0] * 11, 5.0, 5.0, 5.0), updates=14),
        Example("no gradient", "no_data", _cells(None), updates=1),
    ),
    memory={
        name: first
        for short in ("norm", "health")
        for name, first in {
            **moving_memory(short),
            **moving_memory(f"step_{short}"),
            f"last_{short}": nothing_yet,
            f"far_{short}": zeros,
            f"out_{short}": zeros,
        }.items()
    },
    causes=("numerical_instability", "kl_spike", "entropy_collapse", "head_entropy_collapse"),
    confirmed_by="sustained",
    fills=("drift_norm", "drift_health"),
)
