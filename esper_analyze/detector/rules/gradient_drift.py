"""Rule ``gradient_drift``: a group's gradient norm or health leaves its own moving average for good."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.carry import blank, streak, zeros
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, limit
from esper_analyze.detector.signals import Floats, Frame, Signal
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle

EPSILON = 1e-8
"""Keeps the drift defined where the average is 0."""


@dataclass(frozen=True, slots=True)
class GradientDriftLimits(Limits):
    """Bounds on drift = |x − ema| / (ema + 1e-8), taken before the average takes x in."""

    warning: float = limit(0.5, "subsystem review on the EMA tracker: 50 % deviation")
    critical: float = limit(2.0, "detector specification")
    sustained: int = limit(3, "detector specification: sustained 3")
    momentum: float = limit(0.99, "subsystem review on the EMA tracker")
    warmup: int = limit(10, "subsystem review L4: no drift before 10 updates")
    escalate: int = limit(5, "detector specification: drift 5")


def judge(frame: Frame, memory: Memory, limits: GradientDriftLimits) -> list[Judgement]:
    """Judge the drift of norm (both ways) and health (downwards); leave both drifts for the recorder to write."""
    judgements = []
    for metric, short in (("grad_norm", "norm"), ("health", "health")):
        signal = frame[metric]
        drift, baseline = _drift(signal, memory, short, limits)
        memory[f"drift_{short}"] = drift
        judgements.append(_judge_one(metric, signal, drift, baseline, memory, short, limits))
    return judgements


def _judge_one(
    metric: str,
    signal: Signal,
    drift: Floats,
    baseline: Floats,
    memory: Memory,
    short: str,
    limits: GradientDriftLimits,
) -> Judgement:
    known = ~np.isnan(drift)
    if metric == "health":  # health above its average is no trouble: it rose in sound runs by twice its average
        drift = np.where(signal.values > baseline, 0.0, drift)
    far, out = known & (drift > limits.warning), known & (drift > limits.critical)
    bounds = Bounds(
        warning=streak(far, known & ~far, memory[f"far_{short}"]) >= limits.sustained,
        critical=streak(out, known & ~out, memory[f"out_{short}"]) >= limits.sustained,
        warning_at=limits.warning,
        critical_at=limits.critical,
    )
    excuses = [
        Excuse(signal.nonfinite, "non-finite: judged by numerical_instability", quiet=True),
        Excuse(signal.finite & ~known, "warming up", quiet=True),
    ]
    judged = Signal(metric, drift, signal.null)
    return settle(metric, judged, bounds, excuses=excuses, baseline=baseline)


def _drift(signal: Signal, memory: Memory, short: str, limits: GradientDriftLimits) -> tuple[Floats, Floats]:
    """Return drift and the average it was held against, [n, k]; NaN while warming up, missing or non-finite.

    The recurrence runs update by update in float64, so that any cut into batches gives the same bits.
    """
    drift, baseline = np.full(signal.values.shape, np.nan), np.full(signal.values.shape, np.nan)
    usable = signal.finite
    for k in range(signal.values.shape[1]):
        rows = np.flatnonzero(usable[:, k])
        average, count = float(memory[f"ema_{short}"][k]), int(memory[f"count_{short}"][k])
        averages, average, count = _averages(signal.values[rows, k].tolist(), average, count, limits)
        held = np.array(averages)
        baseline[rows, k] = held
        drift[rows, k] = np.abs(signal.values[rows, k] - held) / (held + EPSILON)
        memory[f"ema_{short}"][k], memory[f"count_{short}"][k] = average, count
    return drift, baseline


def _averages(
    values: list[float], average: float, count: int, limits: GradientDriftLimits
) -> tuple[list[float], float, int]:
    """Return the average before each value, then the carried state.

    The first ``warmup`` values make a bias-corrected mean (m / (1 − βᵗ), Kingma & Ba 2015) and are held against
    nothing (NaN); after them the plain recurrence goes on from that mean.
    """
    keep, take = limits.momentum, 1.0 - limits.momentum
    held: list[float] = []
    place = 0
    while place < len(values) and count < limits.warmup:
        average = keep * average + take * values[place]
        count, place = count + 1, place + 1
        held.append(np.nan)
        if count == limits.warmup:
            average /= 1.0 - keep**count
    for value in values[place:]:
        held.append(average)
        average = keep * average + take * value
    return held, average, count


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
    "its tensors vanish or explode, without any single update being alarming.",
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
        **{f"{name}_{short}": zeros for name in ("count", "far", "out") for short in ("norm", "health")},
        **{f"ema_{short}": blank for short in ("norm", "health")},
    },
    causes=("numerical_instability", "kl_spike", "entropy_collapse", "head_entropy_collapse"),
    confirmed_by="sustained",
    fills=("drift_norm", "drift_health"),
)
