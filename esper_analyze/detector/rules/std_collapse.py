"""Rule ``std_collapse``: a Gaussian head has stopped exploring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.baselines import EARLY_MEMORY, Rolling, early_known, early_level
from esper_analyze.detector.conditions.applicability import not_gaussian
from esper_analyze.detector.conditions.convergence import AT_BEST, EPISODE_RETURN
from esper_analyze.detector.conditions.shared import free
from esper_analyze.detector.deferral_guards import FREE, LASTING, DeferralGuard, Side, same
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, Statistic, limit
from esper_analyze.detector.signals import Floats, Frame
from esper_analyze.detector.streaks import nothing_yet, previous, streak, zeros
from esper_analyze.detector.verdict import Bounds, Judgement, settle

PLUNGE = 0.5
"""Share of its last value: halved in one update, a std that is learnt itself, not its logarithm, is next below 0."""
EARLY, WINDOW = 3, 20
"""Updates whose mean is the start; updates within which a fall is quick."""


def _largest(windows: Floats) -> Floats:
    largest: Floats = windows.max(axis=1)[None]
    return largest


_LARGEST = Rolling(_largest, length=WINDOW + 1, every=1, first=1, inclusive=True)


@dataclass(frozen=True, slots=True)
class StdCollapseLimits(Limits):
    """Bounds on ``heads.std_mean`` relative to its start."""

    warning: float = limit(
        0.1, "of the mean of its first 3 updates: of 18 sound trainings each kept 0.19 or more", at_least=0.0
    )
    critical: float = limit(
        0.02, "of the mean of its first 3 updates: a fiftieth, as for entropy (set by design)", at_least=0.0
    )
    quick: float = limit(
        0.2,
        "of the largest of the last 20 updates: returns that rose do not excuse so quick a fall; of 18 "
        "sound trainings each kept 0.22 or more",
        at_least=0.0,
    )
    sustained: int = limit(3, "3 updates in a row (set by design)", at_least=1)


def judge(frame: Frame, memory: Memory, limits: StdCollapseLimits) -> list[Judgement]:
    """Judge whether almost nothing is left of the mean standard deviation, unless returns are at their best."""
    std = frame["std_mean"]
    excuse = not_gaussian(frame)
    usable = std.finite & ~excuse.where
    start = early_level(std.values, usable, memory, EARLY)
    low, none = usable & (std.values < limits.warning * start), usable & (std.values < limits.critical * start)
    lasting = streak(low, usable & ~low, memory["low"]) >= limits.sustained
    (recent,) = _LARGEST.baseline(std.values, usable, memory, "largest")
    quick = streak(low & (std.values < limits.quick * recent), usable & ~low, memory["quick"]) > 0
    plunged = low & (std.values < PLUNGE * previous(std.values, usable, memory["before"]))
    learnt = AT_BEST.holds(frame) & ~quick
    bounds = Bounds(
        info=lasting,
        warning=(lasting & ~learnt) | plunged,
        critical=lasting & none & ~learnt,
        warning_at=limits.warning * start,
        critical_at=limits.critical * start,
    )
    return [settle(std.name, std, bounds, excuses=[excuse], baseline=start)]


def guard(frame: Frame, memory: Memory, limits: StdCollapseLimits) -> DeferralGuard | None:
    """Defer while the mean stays above both bounds."""
    std = frame["std_mean"]
    usable = std.finite & ~not_gaussian(frame).where
    if not early_known(usable, memory, EARLY) or np.count_nonzero(memory["low"]):
        return None
    start = memory["early_sum"] / np.maximum(memory["early_count"], 1)
    sides: dict[str, Sequence[Side] | None] = {"std_mean": (limits.warning * start, limits.critical * start)}
    sides |= {"kind": same(frame["kind"]), f"updates.{EPISODE_RETURN}": FREE}
    return DeferralGuard(LASTING, {**sides, **free(AT_BEST)})


def _cells(*values: float | None, kind: str | None = "gaussian", returns: object = None) -> dict[str, object]:
    return {"std_mean": list(values), "kind": kind, f"updates.{EPISODE_RETURN}": returns}


_FALLING = [0.01 ** (i / 59) for i in range(60)]


RULE = Rule(
    name="std_collapse",
    table="heads",
    panels=("heads.head",),
    columns=("std_mean", "kind"),
    context=("kind",),
    limits=StdCollapseLimits,
    judge=judge,
    guard=guard,
    title="A Gaussian head stopped exploring",
    meaning="Almost nothing is left of this head's standard deviation: the policy tries one action per state and no "
    "longer learns what others would give; ratios become extreme. Where returns rose and stay near their best, it is "
    "the result of learning, and information, unless it fell within a few updates.",
    look_first="The sign of the entropy bonus in the loss; learning rate, and that of a separate log_std; kl_k3 and "
    "ratio_max of the updates before; whether log_std is bounded from below.",
    reference="Andrychowicz et al. 2021, What Matters in On-Policy RL, on the standard deviation of Gaussian policies",
    examples=(
        Example("a sound run", "ok", _cells(*[1.0] * 5, 0.7, 0.5, 0.4)),
        Example("low for two updates", "ok", _cells(*[1.0] * 5, 0.05, 0.05)),
        Example("low for three updates", "warning", _cells(*[1.0] * 5, 0.05, 0.05, 0.05)),
        Example("nothing left", "critical", _cells(*[1.0] * 5, *[0.001] * 3)),
        Example("on its way below 0", "warning", _cells(*[1.0] * 5, 0.15, 0.08, 0.02)),
        Example("small from the beginning", "ok", _cells(*[0.05] * 8)),
        Example(
            "low at last, and returns rose",
            "info",
            _cells(*_FALLING, returns=[1.0 + 0.1 * i for i in range(60)]),
            updates=60,
        ),
        Example(
            "within ten updates, though returns rose",
            "warning",
            _cells(*[1.0] * 50, *[0.06] * 10, returns=[1.0 + 0.1 * i for i in range(60)]),
            updates=60,
        ),
        Example(
            "low at last, and returns did not rise", "critical", _cells(*_FALLING, *[0.01] * 2, returns=1.0), updates=62
        ),
        Example("NaN never passes", "critical", _cells(*[1.0] * 5, float("nan"))),
        Example("a categorical head", "not_applicable", _cells(None, kind="categorical")),
        Example("not recorded", "no_data", _cells(None)),
    ),
    memory={"low": zeros, "quick": zeros, "before": nothing_yet, **EARLY_MEMORY, **_LARGEST.memory("largest")},
    beside={"updates": (EPISODE_RETURN,)},
    conditions=(AT_BEST,),
    causes=(
        "std_nonpositive",
        "setting_changed",
        "parameters_changed",
        "losses_inconsistent",
        "numerical_instability",
        "kl_spike",
    ),
    confirmed_by="sustained",
    higher_is_worse=False,
    optional=True,
    statistics={
        "std_mean": Statistic("mean standard deviation", baseline="the mean of its first 3 updates", column="std_mean")
    },
)
