"""Rule ``gradient_drift``: a group's gradient norm or health leaves its own moving average for good."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.carry import blank, streak, zeros
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, limit
from esper_analyze.detector.signals import Bools, Floats, Frame, Signal
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle

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
    momentum: float = limit(0.99, "subsystem review on the EMA tracker", at_least=0.0, below=1.0)
    warmup: int = limit(10, "subsystem review L4: no drift before 10 updates", at_least=1)
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
    known = ~np.isnan(baseline)
    if metric == "health":  # health above its average is no trouble: it rose in sound runs by twice its average
        drift = np.where(signal.values > baseline, 0.0, drift)
    far, out = drift > limits.warning, drift > limits.critical
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
    usable = signal.finite
    if len(usable) == 1:
        return _drift_of_one(signal, usable[0], memory, short, limits)
    drift, baseline = np.full(usable.shape, np.nan), np.full(usable.shape, np.nan)
    for k in range(signal.values.shape[1]):
        rows = np.flatnonzero(usable[:, k])
        average, count = float(memory[f"ema_{short}"][k]), int(memory[f"count_{short}"][k])
        values = signal.values[rows, k]
        held, average, count = _averages(values, average, count, limits)
        baseline[rows, k] = held
        with np.errstate(all="ignore"):
            drift[rows, k] = np.minimum(np.abs(values - held) / (held + EPSILON), LARGEST)
        memory[f"ema_{short}"][k], memory[f"count_{short}"][k] = average, count
    return drift, baseline


def _drift_of_one(
    signal: Signal, usable: Bools, memory: Memory, short: str, limits: GradientDriftLimits
) -> tuple[Floats, Floats]:
    """Return the same for a single update, all subjects at once: the same operations on the same numbers."""
    keep, values = limits.momentum, signal.values[0]
    average, count = memory[f"ema_{short}"], memory[f"count_{short}"]
    warm = usable & (count >= limits.warmup)
    held = np.where(warm, average, np.nan)
    with np.errstate(all="ignore"):
        drift = np.minimum(np.abs(values - held) / (held + EPSILON), LARGEST)
        np.copyto(average, keep * average + (1.0 - keep) * values, where=usable)
    warming = usable & ~warm
    if np.count_nonzero(warming):
        count += warming
        average[warming & (count == limits.warmup)] /= 1.0 - keep**limits.warmup
    return drift[None, :], held[None, :]


def _averages(values: Floats, average: float, count: int, limits: GradientDriftLimits) -> tuple[Floats, float, int]:
    """Return the average before each value, then the carried state.

    The first ``warmup`` values make a bias-corrected mean (m / (1 − βᵗ), Kingma & Ba 2015) and are held against
    nothing (NaN); after them the plain recurrence goes on from that mean.
    """
    keep = limits.momentum
    terms: list[float] = ((1.0 - keep) * values).tolist()
    warming = min(max(limits.warmup - count, 0), len(terms))
    for term in terms[:warming]:
        average = keep * average + term
    count += warming
    if warming and count == limits.warmup:
        average /= 1.0 - keep**count
    held = [np.nan] * warming + [average]
    held += [average := keep * average + term for term in terms[warming:]]
    return np.array(held[:-1]), average, count


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
        **{f"{name}_{short}": zeros for name in ("count", "far", "out") for short in ("norm", "health")},
        **{f"ema_{short}": blank for short in ("norm", "health")},
    },
    causes=("numerical_instability", "kl_spike", "entropy_collapse", "head_entropy_collapse"),
    confirmed_by="sustained",
    fills=("drift_norm", "drift_health"),
)
