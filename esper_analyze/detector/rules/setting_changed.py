"""Rule ``setting_changed``: a setting of the training jumped, or got a value that it cannot be meant to have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.deferral_guards import LASTING, DeferralGuard, Side, same, until
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Statistic, limit
from esper_analyze.detector.signals import Frame, Signal
from esper_analyze.detector.streaks import latest, nothing_yet, previous, streak, zeros
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle

SETTINGS = ("learning_rate", "clip_range", "entropy_coef", "value_coef", "gamma", "max_grad_norm")
MORE = (*SETTINGS[3:], "epochs")
"""What a loop may leave out."""
DECAYING = ("learning_rate", "clip_range")
"""Settings whose schedules end at 0, and where a training takes more steps than planned, a little below it."""
MAY_BE_ZERO = "entropy_coef"
"""A setting that is meant to end at some update."""
EPOCHS, EARLY_STOP = "epochs", "target_kl"
WIDE = 1e100
"""A clip norm of as much or more clips nothing: compared as this number, and told as infinity."""
SAFE = 0.99
"""Share of a distance up to which rounding cannot carry a number over it."""


@dataclass(frozen=True, slots=True)
class SettingChangedLimits(Limits):
    """Bounds on a setting against what it was."""

    change: float = limit(0.2, "a fifth from one update to the next: schedules go slower (set by design)", at_least=0.0)
    rise: float = limit(
        5.0, "times its largest value so far: adaptive learning rates at most double in an update", at_least=1.0
    )
    constant: int = limit(
        5, "updates in a row with as many epochs as before: an early stop makes them vary (set by design)", at_least=1
    )
    discount: float = limit(1.0, "a discount above 1 lets values grow without bound (by definition)", at_least=0.0)
    fall: float = limit(
        0.01,
        "of its last value: schedules and adaptive rates fall slower (set by design)",
        at_least=0.0,
    )
    ended: float = limit(
        0.1, "share of its largest value from which a fall to 0 is the end of a schedule (set by design)", at_least=0.0
    )


def judge(frame: Frame, memory: Memory, limits: SettingChangedLimits) -> list[Judgement]:
    """Judge each setting against its last and its largest value; a change is information, a jump a warning."""
    return [*(_judged(name, frame, memory, limits) for name in SETTINGS), _epochs(frame, memory, limits)]


def _epochs(frame: Frame, memory: Memory, limits: SettingChangedLimits) -> Judgement:
    """Judge the epochs of an update against those before, where they did not vary."""
    epochs = frame[EPOCHS]
    last = previous(epochs.values, epochs.finite, memory["epochs_last"])
    equal = epochs.finite & (epochs.values == last)
    run = streak(equal, epochs.finite & ~equal, memory["epochs_equal"])
    usual = latest(epochs.values, run >= limits.constant, memory["epochs_usual"])
    fixed = frame[EARLY_STOP].null | (frame[EARLY_STOP].values <= 0)
    jumped = fixed & epochs.finite & (usual > 0) & (epochs.values >= limits.rise * usual)
    bounds = Bounds(warning=jumped, warning_at=limits.rise * usual)
    return settle(epochs.name, epochs, bounds, excuses=_unpassed(epochs, frame), baseline=usual)


def _judged(name: str, frame: Frame, memory: Memory, limits: SettingChangedLimits) -> Judgement:
    setting = frame[name]
    recorded = setting.values
    if name == "max_grad_norm":  # infinity: gradients are not clipped
        setting = Signal(name, np.minimum(recorded, WIDE), setting.null)
    last = previous(setting.values, setting.finite, memory[f"{name}_last"])
    most = np.fmax.accumulate(
        np.concatenate([memory[f"{name}_most"][None], np.where(setting.finite, setting.values, np.nan)]), axis=0
    )
    if len(setting.values):
        memory[f"{name}_most"] = most[-1].copy()
    largest = most[:-1]
    changed = setting.finite & (np.abs(setting.values - last) > limits.change * np.abs(last))
    jumped = setting.finite & (largest > 0) & (setting.values >= limits.rise * largest)
    far = setting.equals(0.0) | (setting.finite & (setting.values < limits.fall * last) & (last < WIDE))
    fell = far & (last > limits.ended * largest) & (name != MAY_BE_ZERO)
    past_end = (last >= 0) & (last <= limits.ended * largest) & (setting.values >= -limits.ended * largest)
    negative = (setting.values < 0) & ~(past_end & (name in DECAYING))
    impossible = setting.finite & (negative | ((name == "gamma") & (setting.values > limits.discount)))
    latest((changed | jumped | fell).astype(np.int64), setting.finite, memory[f"{name}_moved"])
    bounds = Bounds(
        info=changed,
        warning=jumped | fell | impossible,
        info_at=np.where(setting.values > last, (1 + limits.change) * last, np.nan),
        warning_at=np.where(jumped, limits.rise * largest, np.nan),
    )
    baseline = np.where(last >= WIDE, np.inf, last)
    return settle(name, setting, bounds, excuses=_unpassed(setting, frame), baseline=baseline, judged=recorded)


def _unpassed(setting: Signal, frame: Frame) -> list[Excuse]:
    """Excuse settings that a loop may leave out."""
    return [Excuse(setting.null & frame.present, "not passed", quiet=True)] if setting.name in MORE else []


def guard(frame: Frame, memory: Memory, limits: SettingChangedLimits) -> DeferralGuard | None:
    """Defer while each setting stays so near to its value that no two of its values can be a change apart.

    A setting that has just changed is judged once more: it is the usual value of the next update.
    """
    if limits.rise <= 1 or limits.fall >= 1 or any(np.count_nonzero(memory[f"{name}_moved"]) for name in SETTINGS):
        return None
    near = SAFE * min(limits.change / (2 + limits.change), limits.rise - 1, (1 - limits.fall) / (1 + limits.fall))
    sides = {name: _near(frame[name], near) for name in SETTINGS}
    sides["gamma"] = (*sides["gamma"], limits.discount)
    lasting = min(LASTING, until(memory["epochs_equal"], limits.constant))
    return DeferralGuard(lasting, {**sides, EPOCHS: same(frame[EPOCHS]), EARLY_STOP: (0.0,)})


def _near(setting: Signal, share: float) -> Sequence[Side]:
    if not setting.all_finite:
        return same(setting)
    width = share * np.abs(setting.values)
    return setting.values - width, setting.values + width


def _cells(*rate: float | None, **others: object) -> dict[str, object]:
    usual = {"clip_range": 0.2, "entropy_coef": 0.01, "value_coef": 0.5, "gamma": 0.99, "max_grad_norm": 0.5}
    return usual | {EPOCHS: 4, EARLY_STOP: None} | {"learning_rate": list(rate)} | others


RULE = Rule(
    name="setting_changed",
    table="updates",
    figures=("timeline",),
    columns=(*SETTINGS, EPOCHS, EARLY_STOP),
    context=(*MORE, EARLY_STOP),
    limits=SettingChangedLimits,
    judge=judge,
    guard=guard,
    title="A setting jumped",
    meaning="Learning rate, clip range, a coefficient of the loss or the clip norm of gradients rose in one update to "
    "several times the largest value it had so far, or fell to 0 or next to nothing in the middle of its schedule; or "
    "it is negative, which turns a bonus into a penalty or descent into ascent, by more than a last step past the end "
    "of its schedule; or the discount is above 1. Any other change from one update "
    "to the next is information. What follows is likely its consequence.",
    meanings={
        EPOCHS: "Each update takes several times as many epochs over its rollout as before, without an early stop that "
        "would make them vary: the policy moves further in each."
    },
    look_first="The code or the schedule that set it at this update; a restart with other arguments.",
    reference="The recorded settings themselves",
    examples=(
        Example("constant", "ok", _cells(3e-4, 3e-4), updates=2),
        Example("a linear schedule", "ok", _cells(3e-4, 2.9e-4, 2.8e-4), updates=3),
        Example("halved", "info", _cells(4e-4, 4e-4, 2e-4), updates=3),
        Example("ten times as large", "warning", _cells(3e-4, 3e-4, 3e-3), updates=3),
        Example("back to where it was", "info", _cells(3e-3, 3e-4, 3e-3), updates=3),
        Example("0 in the middle", "warning", _cells(3e-4, 3e-4, 0.0), updates=3),
        Example("a thousandth in the middle", "warning", _cells(3e-4, 3e-4, 3e-7), updates=3),
        Example("a discount of 0", "warning", _cells(*[3e-4] * 2, gamma=[0.99, 0.0]), updates=2),
        Example("clipping begins", "info", _cells(*[3e-4] * 2, max_grad_norm=[float("inf"), 0.5]), updates=2),
        Example("0 at the end of its schedule", "info", _cells(3e-4, 1e-4, 1e-5, 0.0), updates=4),
        Example("a step past the end of its schedule", "info", _cells(3e-4, 1e-4, 1e-5, -1e-5), updates=4),
        Example("on past the end of its schedule", "warning", _cells(3e-4, 1e-4, 1e-5, -1e-5, -3e-5), updates=5),
        Example("a penalty on entropy", "warning", _cells(3e-4, entropy_coef=-0.01)),
        Example("a discount above 1", "warning", _cells(3e-4, gamma=1.05)),
        Example("ten times as many epochs", "warning", _cells(*[3e-4] * 7, epochs=[4] * 6 + [40]), updates=7),
        Example("epochs that vary", "ok", _cells(*[3e-4] * 4, epochs=[1, 1, 1, 10]), updates=4),
        Example("not recorded", "no_data", dict.fromkeys((*SETTINGS, EPOCHS, EARLY_STOP))),
    ),
    memory={
        **{f"{name}_{part}": nothing_yet for name in SETTINGS for part in ("last", "most")},
        **{f"{name}_moved": zeros for name in SETTINGS},
        **{"epochs_last": nothing_yet, "epochs_usual": nothing_yet, "epochs_equal": zeros},
    },
    statistics={name: Statistic(name, baseline="its value before", column=name) for name in (*SETTINGS, EPOCHS)},
    persists=True,
    revision=4,
    restated=(VERDICT,),
)
