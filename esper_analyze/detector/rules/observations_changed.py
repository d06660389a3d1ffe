"""Rule ``observations_changed``: the networks suddenly see other observations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.baselines import Rolling
from esper_analyze.detector.deferral_guards import LASTING, DeferralGuard
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Statistic, WarmUp, limit
from esper_analyze.detector.signals import Bools, Floats, Frame
from esper_analyze.detector.streaks import blank, nothing_yet, previous, tally, zeros
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle

SHIFT, SPREAD = "observation_shift", "observation_std"
CONSTANT, NONFINITE = "observation_constant_fraction", "observation_nonfinite_fraction"


def _least_and_most(windows: Floats) -> Floats:
    return np.stack([windows.min(axis=1), windows.max(axis=1)])


_RANGE = Rolling(_least_and_most, size=2, length=20, every=1, first=10)

WARM_UP = WarmUp("too early to know how much observations change", lambda *_: _RANGE.first + 1)


@dataclass(frozen=True, slots=True)
class ObservationsChangedLimits(Limits):
    """Bounds on ``updates.observation_shift`` and on what the observations are like."""

    least: float = limit(
        0.15, "of 1: with the next three it tells none of 108 known trainings without a fault", at_least=0.0
    )
    peaks: float = limit(
        3.0, "times its largest value over the last 20 updates: known sound trainings reach 2.9", at_least=0.0
    )
    spread: float = limit(0.05, "share beyond the standard deviations of the last 20 updates", at_least=0.0)
    far: float = limit(
        0.4,
        "of 1, where the spread stayed in its range: sound ones of Pendulum reach it, for one update",
        at_least=0.0,
    )
    scale: float = limit(
        2.0, "times the largest of these standard deviations, or by so much below the least, is a change", at_least=1.0
    )
    constant: float = limit(0.1, "more features constant than in any of the last 20 updates", at_least=0.0)


def judge(frame: Frame, memory: Memory, limits: ObservationsChangedLimits) -> list[Judgement]:
    """Judge a shift beyond all recent ones where, in the next update, the observations stay what they became.

    They come back where environments that began together are at another part of their episodes.
    """
    shift, constant = frame[SHIFT], frame[CONSTANT]
    _, largest = _RANGE.baseline(shift.values, shift.finite, memory, SHIFT)
    usual = _usual(frame, memory)
    shifted = shift.finite & (shift.values >= limits.least) & ~np.isnan(largest)
    moved = shifted & (shift.values >= limits.peaks * largest)
    odd = (moved & _beyond(frame, usual, limits)) | (shifted & _rescaled(frame, usual, limits))
    far = moved & (shift.values >= limits.far)
    everywhere = np.ones(odd.shape, bool)
    before = [previous(row, everywhere, carried) for row, carried in zip(usual, memory["usual"], strict=True)]
    stayed = _of_before(odd, memory["odd"]) & _beyond(frame, before, limits)
    stayed |= _of_before(far, memory["far"]) & shift.finite & (shift.values < limits.least)
    distance = np.where(stayed, previous(shift.values, everywhere, memory["shift"]), shift.values)
    _of_before(stayed, memory["stayed"])  # kept for the guard: the next verdict is another one
    young = WARM_UP.excuse(constant.finite & np.isnan(largest))
    others = Excuse(shift.null & constant.finite, "other features than before, or none before", quiet=True)
    bounds = Bounds(info=odd | far, warning=stayed, info_at=limits.least, warning_at=limits.least)
    shifted_by = settle(SHIFT, shift, bounds, excuses=[others, young], baseline=largest, judged=distance)
    return [shifted_by, _broken(frame, memory)]


def _of_before(flag: Bools, carried: Floats) -> Bools:
    """Return whether ``flag`` held in the update before; carry it on."""
    held: Bools = previous(flag.astype(np.float64), np.ones(flag.shape, bool), carried) == 1.0
    return held


def _usual(frame: Frame, memory: Memory) -> list[Floats]:
    """Return of the updates before each the least and the largest spread, and the largest share of constants."""
    narrow, wide = _RANGE.baseline(frame[SPREAD].values, frame[SPREAD].finite, memory, SPREAD)
    _, most = _RANGE.baseline(frame[CONSTANT].values, frame[CONSTANT].finite, memory, CONSTANT)
    return [narrow, wide, most]


def _beyond(frame: Frame, usual: Sequence[Floats], limits: ObservationsChangedLimits) -> Bools:
    """Return where the spread is beyond its usual range, or more features are constant."""
    (narrow, wide, most), spread, constant = usual, frame[SPREAD], frame[CONSTANT]
    other = (spread.values > (1 + limits.spread) * wide) | (spread.values < (1 - limits.spread) * narrow)
    beyond: Bools = (spread.finite & other) | (constant.finite & (constant.values >= most + limits.constant))
    return beyond


def _rescaled(frame: Frame, usual: Sequence[Floats], limits: ObservationsChangedLimits) -> Bools:
    """Return where the spread is several times as large or as small as usual."""
    (narrow, wide, _), spread = usual, frame[SPREAD]
    return spread.finite & ((spread.values >= limits.scale * wide) | (limits.scale * spread.values <= narrow))


def _broken(frame: Frame, memory: Memory) -> Judgement:
    """Judge observations that are not finite: at once where all were before."""
    share = frame[NONFINITE]
    whole = tally(share.equals(0.0), memory["whole"]) > 0
    broken = share.finite & (share.values > 0)
    return settle(NONFINITE, share, Bounds(info=broken, critical=broken & whole, critical_at=0.0))


def guard(frame: Frame, memory: Memory, limits: ObservationsChangedLimits) -> DeferralGuard | None:
    """Defer while the shift is small, once it has been judged."""
    shift = frame[SHIFT]
    young = np.count_nonzero(memory[f"{SHIFT}_count"] <= _RANGE.first)
    pending = young or any(np.count_nonzero(memory[flag]) for flag in ("odd", "far", "stayed"))
    if pending or not shift.all_finite or np.count_nonzero(shift.values[-1] >= limits.least):
        return None
    sides = {SHIFT: (limits.least,), SPREAD: (), CONSTANT: (), NONFINITE: (0.0,)}
    return DeferralGuard(LASTING, sides)


def _cells(*shift: float | None, **others: object) -> dict[str, object]:
    return {SHIFT: list(shift), SPREAD: 1.0, CONSTANT: 0.0, NONFINITE: 0.0} | others


def _then(usual: float, now: float) -> list[float]:
    return [usual] * 12 + [now] * 2


_USUAL, _FAR = [0.02] * 12, [0.08] * 12

RULE = Rule(
    name="observations_changed",
    table="updates",
    figures=("timeline",),
    columns=(SHIFT, SPREAD, CONSTANT, NONFINITE),
    context=(SHIFT, SPREAD, CONSTANT),
    optional=True,
    limits=ObservationsChangedLimits,
    warm_up=WARM_UP,
    judge=judge,
    guard=guard,
    title="Observations changed",
    meaning="The observations of this rollout are several times as far from those of the one before as in any of the "
    "last 20 updates, and very far, or their standard deviation is beyond its range in these, or more features are "
    "constant; and in the next update they stay what they became. The environment, a "
    "sensor, a wrapper, the normalisation or the order of features changed. The networks were not trained on what they "
    "see now.",
    meanings={
        NONFINITE: "Observations are NaN or ±Inf, and were not before: what the networks make of them is not a number "
        "either."
    },
    look_first="The rollout's observations at this update, feature by feature, beside those of the update before: "
    "scale, constant features, order; the environment and its wrappers, the normaliser's statistics.",
    reference="Hellinger 1909: a distance of distributions between 0 and 1, here of each feature's mean and variance",
    examples=(
        Example("as usual", "ok", _cells(*_USUAL), updates=12),
        Example("another scale", "warning", _cells(*_USUAL, 0.3, 0.02, **{SPREAD: _then(1.0, 1.3)}), updates=14),
        Example("seen once", "info", _cells(*_USUAL, 0.3, **{SPREAD: [1.0] * 12 + [1.3]}), updates=13),
        Example("for one update", "ok", _cells(*_USUAL, 0.3, 0.3, **{SPREAD: [1.0] * 12 + [1.3, 1.0]}), updates=14),
        Example("sensors stopped", "warning", _cells(*_USUAL, 0.3, 0.02, **{CONSTANT: _then(0.0, 0.25)}), updates=14),
        Example("twice the scale", "warning", _cells(*_FAR, 0.16, 0.02, **{SPREAD: _then(1.0, 2.0)}), updates=14),
        Example("somewhat wider", "ok", _cells(*_FAR, 0.16, **{SPREAD: [1.0] * 12 + [1.3]}), updates=13),
        Example("another place, seen as before", "ok", _cells(*_USUAL, 0.3), updates=13),
        Example("features in another order", "warning", _cells(*_USUAL, 0.5, 0.02), updates=14),
        Example("there and back", "ok", _cells(*_USUAL, 0.5, 0.5), updates=14),
        Example("a value is infinite", "critical", _cells(*_USUAL, **{NONFINITE: [0.0] * 11 + [0.01]}), updates=12),
        Example("gaps from the beginning", "info", _cells(*_USUAL, **{NONFINITE: 0.01}), updates=12),
        Example("not passed", "no_data", dict.fromkeys((SHIFT, SPREAD, CONSTANT, NONFINITE))),
    ),
    revision=2,
    restated=("threshold", VERDICT),
    causes=("setting_changed", "parameters_changed"),
    follows=("kl_spike", "policy_replaced", "entropy_collapse", "ratio_explosion", "gradient_explosion"),
    memory={
        **_RANGE.memory(SHIFT),
        **_RANGE.memory(SPREAD),
        **_RANGE.memory(CONSTANT),
        "usual": lambda k: np.full((3, k), np.nan),
        "odd": blank,
        "far": blank,
        "stayed": blank,
        "shift": nothing_yet,
        "whole": zeros,
    },
    statistics={
        SHIFT: Statistic(
            "distance to the observations of the update before (one update ago, where they stayed so)",
            baseline="its largest in 20 updates",
        ),
        NONFINITE: Statistic("share of observations that are not finite", column=NONFINITE),
    },
)
