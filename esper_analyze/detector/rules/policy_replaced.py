"""Rule ``policy_replaced``: the policy's entropy jumped between two updates, and no update moved it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.baselines import Rolling
from esper_analyze.detector.deferral_guards import DeferralGuard, before
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Statistic, WarmUp, limit
from esper_analyze.detector.signals import Bools, Floats, Frame, Signal
from esper_analyze.detector.streaks import latest, nothing_yet, zeros
from esper_analyze.detector.verdict import Bounds, Judgement, settle


def _means_and_largest(windows: Floats) -> Floats:
    return np.stack([windows.mean(axis=1), windows.max(axis=1)])


_STEPS = Rolling(_means_and_largest, size=2, length=20, every=1, first=5)

WARM_UP = WarmUp("too early to know how much entropy changes from update to update", lambda *_: _STEPS.first + 2)


@dataclass(frozen=True, slots=True)
class PolicyReplacedLimits(Limits):
    """Bounds on the change of ``updates.entropy`` from one update to the next."""

    steps: float = limit(8.0, "times its mean change over the last 20 updates", at_least=0.0)
    peaks: float = limit(
        3.0, "times its largest change over the last 20 updates: memories swing now and then", at_least=0.0
    )
    least: float = limit(0.1, "nats: below it the policy is still the same one (set by design)", at_least=0.0)
    moved: float = limit(
        4.0,
        "nats for each square root of a nat of KL in both updates: by so much they may have changed it",
        at_least=0.0,
    )


def judge(frame: Frame, memory: Memory, limits: PolicyReplacedLimits) -> list[Judgement]:
    """Judge the change of entropy against its usual change, and against what KL says that the updates did."""
    entropy, kl = frame["entropy"], frame["kl_k3"]
    earlier, kl_before = (
        _last(entropy.values, entropy.finite, memory, "entropy"),
        _last(kl.values, kl.finite, memory, "kl"),
    )
    change = np.abs(entropy.values - earlier)
    known = entropy.finite & np.isfinite(earlier)
    usual, largest = _STEPS.baseline(change, known, memory, "steps")
    moved = np.sqrt(np.fmax(kl.values, 0.0) + np.fmax(kl_before, 0.0))
    swings = np.fmax(limits.steps * usual, limits.peaks * largest)
    bound = np.fmax(swings, np.fmax(limits.moved * moved, limits.least))
    young = WARM_UP.excuse(entropy.finite & kl.finite & ~(known & np.isfinite(usual)))
    jumped = known & (change > bound)
    latest((jumped | np.isnan(earlier)).astype(np.int64), entropy.finite, memory["unsettled"])
    bounds = Bounds(warning=jumped, warning_at=bound)
    watched = Signal(entropy.name, np.where(kl.nonfinite, np.nan, entropy.values), entropy.null)
    return [settle(entropy.name, watched, bounds, excuses=[young], needs=[kl], baseline=earlier, judged=change)]


def guard(frame: Frame, memory: Memory, limits: PolicyReplacedLimits) -> DeferralGuard | None:
    """Defer while entropy stays so near to its value that no change can reach the least bound."""
    entropy = frame["entropy"]
    if np.count_nonzero(memory["unsettled"]):
        return None
    lasting = before(memory["steps_count"], entropy.finite[-1], _STEPS.first + 1)
    near = 0.49 * limits.least
    return DeferralGuard(lasting, {entropy.name: (entropy.values - near, entropy.values + near), "kl_k3": ()})


def _last(values: Floats, finite: Bools, memory: Memory, name: str) -> Floats:
    """Return the value of the update before each [n, k]: NaN where it was not finite."""
    line = np.concatenate([memory[name][None], np.where(finite, values, np.nan)])
    if len(values):
        memory[name] = line[-1].copy()
    return line[:-1]


def _cells(*entropy: float | None, kl: float | None = 0.005) -> dict[str, object]:
    return {"entropy": list(entropy), "kl_k3": kl}


_SLOW = [1.0 - 0.005 * i for i in range(20)]

RULE = Rule(
    name="policy_replaced",
    table="updates",
    panels=("policy.entropy",),
    columns=("entropy", "kl_k3"),
    limits=PolicyReplacedLimits,
    warm_up=WARM_UP,
    judge=judge,
    guard=guard,
    title="Another policy between two updates",
    meaning="Entropy changed from one update to the next by many times what it usually does, and by more than the KL "
    "of both updates can have done. Something else changed the policy's parameters or what it sees: weights loaded, "
    "reset or scaled, another network, other observations.",
    look_first="What happened between the two updates: loading a checkpoint, a reset, a change of the network, its "
    "normalisation or the environments.",
    reference="A change of policy of KL nats changes its entropy by no more than the square root of it says, up to a "
    "factor (Pinsker's inequality and the continuity of entropy, Fannes 1973)",
    examples=(
        Example("slowly falling", "ok", _cells(*_SLOW), updates=20),
        Example("gone at once", "warning", _cells(*_SLOW, 0.1), updates=21),
        Example("back to its maximum at once", "warning", _cells(*_SLOW, 2.0), updates=21),
        Example("gone by one huge update", "ok", _cells(*_SLOW, 0.1) | {"kl_k3": [0.005] * 20 + [1.0]}, updates=21),
        Example("too early to say", "not_applicable", _cells(1.0, 0.1), updates=2),
        Example("not recorded", "no_data", _cells(None)),
    ),
    memory={"entropy": nothing_yet, "kl": nothing_yet, "unsettled": zeros, **_STEPS.memory("steps")},
    causes=("parameters_changed", "numerical_instability", "kl_spike"),
    revision=2,
    restated=("threshold", VERDICT),
    statistics={
        "entropy": Statistic(
            "change of entropy from the update before", "nats", baseline="entropy of the update before"
        )
    },
)
