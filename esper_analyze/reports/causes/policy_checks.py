"""Checks of settings, of steps of the policy, and of what it follows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from esper_analyze.detector.rules.parameters_changed import SHIFT as _SHIFT
from esper_analyze.detector.rules.parameters_changed import ParametersChangedLimits
from esper_analyze.detector.signals import Floats
from esper_analyze.reports.causes.cause import Checked, Likelihood, likely, not_recorded, possible, ruled_out
from esper_analyze.reports.causes.general_checks import jump
from esper_analyze.reports.causes.numbers import RECENT, Numbers, Step
from esper_analyze.wording import number

_SETTINGS = (
    *("learning_rate", "clip_range", "entropy_coef", "value_coef", "gamma", "target_kl", "max_grad_norm", "epochs"),
    "loss_scale",
)
_ARGUMENTS = ("entropy_coef", "value_coef", "gamma")
"""Settings that a loop passes to ``rec.update``."""
_SETTING_FACTOR = 1.5
"""More minibatches by this factor are not those of an early stop that did not come."""
_BY_MINIBATCH = "minibatch_advantage_consistency"
_ALIGNMENT = "advantage_alignment; pass rec.minibatch(returns=…, old_values=…)"
_CONSISTENT = 0.5
"""Correlation of advantages with returns − values from which on they are of the same samples."""
_EARLY = 10
"""An incident in so many first updates began with the run."""
_SETTING_STEP = 0.2
"""Change of a setting from one update to the next that no schedule makes."""
_RAMP = 3.0
"""A setting that rose by this factor within the reach of the incident was changed, step by step."""
_CONSTANT, _GRADUAL = "unchanged", "changed little by little"
_ROUNDING = ParametersChangedLimits().rounding
_SAME_SIZE = 3.0
"""Within this factor, two sizes are alike."""


def setting_changed(numbers: Numbers) -> Checked:
    """Say which setting changed before the incident, from one update to the next or step by step."""
    found: dict[str, list[str]] = {kind: [] for kind in ("missing", "changed", _GRADUAL, _CONSTANT)}
    for name in _SETTINGS:
        if numbers.recorded(name):
            kind, words = _course(numbers, name)
            found[kind].append(words)
        elif name not in ("target_kl", "loss_scale"):
            found["missing"].append(name)
    more = None if numbers.recorded("epochs") else numbers.step("minibatches")
    if more is not None and more.before < more.after / _SETTING_FACTOR:
        found["changed"].append(f"{more.words} (epochs are not recorded)")
    if found["changed"]:
        return likely("; ".join(found["changed"]))
    missing = found["missing"]
    unchanged = "; ".join(f"{kind}: {', '.join(found[kind])}" for kind in (_CONSTANT, _GRADUAL) if found[kind])
    if not missing:
        return ruled_out(unchanged)
    calls = ", ".join(f"{name}=…" for name in missing if name in _ARGUMENTS)
    call = f"; pass rec.update({calls})" if calls else ""
    return not_recorded("; ".join(filter(None, (", ".join(missing), unchanged))) + call)


def _course(numbers: Numbers, name: str) -> tuple[str, str]:
    """Return whether a setting changed before the incident, and its name with how."""
    first = numbers.lead.onset - max(numbers.reach, 20)
    cells, update = numbers.cells(name), numbers.update
    old, new = cells[:-1], cells[1:]
    with np.errstate(invalid="ignore"):
        jumped = np.abs(new - old) > _SETTING_STEP * np.maximum(np.abs(old), np.abs(new))
    jumped |= np.isinf(new) & np.isfinite(old)
    at = np.flatnonzero(jumped & (update[1:] >= first) & (update[1:] <= numbers.lead.start))
    if len(at):
        last = int(at[-1])
        return "changed", Step(name, int(update[last + 1]), float(old[last]), float(new[last])).words
    before, after = _ends(cells[(update >= first - 1) & (update <= numbers.lead.start)])
    if before == after or np.isnan(before):
        return _CONSTANT, name
    if 0 < before * _RAMP <= after:
        return "changed", f"{name} rose step by step from {number(before)} to {number(after)}"
    return _GRADUAL, f"{name} {number(before)} → {number(after)}"


def _ends(cells: Floats) -> tuple[float, float]:
    """Return the first and the last number, NaN without one."""
    finite = cells[np.isfinite(cells)]
    return (float(finite[0]), float(finite[-1])) if len(finite) else (np.nan, np.nan)


def too_large_from_the_start(numbers: Numbers) -> Checked:
    """Say whether the incident began with the run, with settings that were never others."""
    first = int(numbers.update[0]) if len(numbers.update) else 0
    words = f"it began at update {numbers.lead.start:,}"
    if numbers.lead.start - first >= _EARLY:
        return ruled_out(f"{words}, after {numbers.lead.start - first:,} updates without")
    names = [name for name in ("learning_rate", "clip_range", "minibatches") if numbers.recorded(name)]
    return likely(f"{words}, with {', '.join(f'{name} {number(numbers.since(name))}' for name in names)}")


def misaligned(numbers: Numbers) -> Checked:
    """Say whether the policy moves with the advantages."""
    mean = numbers.since("advantage_alignment")
    words = f"advantage_alignment is {number(mean)}"
    return likely(words) if mean <= 0 else possible(words) if mean < 0.03 else ruled_out(words)


def sign_flipped(numbers: Numbers) -> Checked:
    """Say whether the policy moves against the advantages, or these are the negative of returns − values."""
    consistency = _consistency(numbers)
    if consistency is not None and consistency[1] < _CONSISTENT:
        name, value = consistency
        return (likely if value < -_CONSISTENT else ruled_out)(f"{name} is {number(value)}")
    if not numbers.recorded("advantage_alignment"):
        return not_recorded(_ALIGNMENT)
    mean = numbers.since("advantage_alignment")
    words = f"advantage_alignment is {number(mean)}"
    return likely(words) if mean <= -0.03 else possible(words) if mean < 0.0 else ruled_out(words)


def shuffled(numbers: Numbers) -> Checked:
    """Say whether the policy moves neither with nor against the advantages, or these are of other samples."""
    consistency = _consistency(numbers)
    if consistency is not None:
        name, value = consistency
        if abs(value) < _CONSISTENT or value < 0 or name == _BY_MINIBATCH:
            return (likely if abs(value) < _CONSISTENT else ruled_out)(f"{name} is {number(value)}")
    if not numbers.recorded("advantage_alignment"):
        return not_recorded(_ALIGNMENT)
    mean = numbers.since("advantage_alignment")
    words = f"advantage_alignment is {number(mean)}"
    return ruled_out(words) if mean <= -0.1 or mean > 0.05 else likely(words) if mean > -0.03 else possible(words)


def _consistency(numbers: Numbers) -> tuple[str, float] | None:
    """Return how the advantages correlate with returns − values, in the minibatches if that is recorded."""
    name = next((name for name in (_BY_MINIBATCH, "advantage_consistency") if numbers.recorded(name)), None)
    return None if name is None else (name, numbers.since(name))


def _parameters(numbers: Numbers) -> Checked | None:
    """Say whether anything but the optimizer changed the parameters before the incident; None if it is not known."""
    if "parameters_changed" in numbers.lead.seen_by or numbers.incident("parameters_changed") is not None:
        alarm = numbers.incident("parameters_changed") or numbers.lead
        return likely(f"parameters_changed alarmed at update {alarm.start:,}")
    near = (numbers.update >= numbers.lead.onset - RECENT) & (numbers.update <= numbers.lead.start)
    shifts = numbers.cells(_SHIFT)[near]
    if not len(shifts) or not np.isfinite(shifts).all():
        return None
    if shifts.max() <= _ROUNDING:
        return ruled_out(f"{_SHIFT} is 0")
    return possible(f"{_SHIFT} is {number(float(shifts.max()))} in update {numbers.update[near][shifts.argmax()]:,}")


def unless_untouched(check: Callable[[Numbers], Checked]) -> Callable[[Numbers], Checked]:
    """Return the check of a cause that writes to parameters: ruled out where nothing did."""

    def checked(numbers: Numbers) -> Checked:
        written = _parameters(numbers)
        return check(numbers) if written is None or written.answer is not Likelihood.RULED_OUT else written

    return checked


def replaced(numbers: Numbers) -> Checked:
    """Say whether parameters, else entropy or values, jumped between two updates."""
    written = _parameters(numbers)
    if written is not None:
        return written
    if not numbers.recorded("entropy"):
        return not_recorded("entropy; pass rec.minibatch(entropy=…), and the model to the recorder")
    other = numbers.incident("policy_replaced")
    if other is not None:
        return likely(f"policy_replaced alarmed at update {other.start:,}")
    steps = [step for name in ("entropy", "value_std") if (step := numbers.step(name)) is not None]
    jumped = [step for step in steps if step.update >= numbers.lead.onset - RECENT]
    if jumped:
        return possible("; ".join(step.words for step in jumped))
    return ruled_out("policy_replaced did not alarm, entropy and value_std have no step")


def large_steps(numbers: Numbers) -> Checked:
    """Say whether updates were too large before the incident."""
    for rule in ("kl_spike", "ratio_explosion", "clip_saturation"):
        other = numbers.incident(rule)
        if other is not None and other.start <= numbers.lead.start:
            return likely(
                f"{rule} alarmed at update {other.start:,}; kl_k3 {number(numbers.measured('kl_k3', other.start))}"
            )
    return ruled_out(f"kl_k3 is {number(numbers.since('kl_k3'))} ({number(numbers.before('kl_k3'))} before)")


def pushed(numbers: Numbers) -> Checked:
    """Say whether entropy fell at once and the values did not change."""
    (old, new), (was, now) = jump(numbers, "entropy"), jump(numbers, "value_std")
    words = f"entropy {number(old)} to {number(new)}, value_std {number(was)} to {number(now)}"
    if new >= old:
        return ruled_out(words)
    return likely(words) if not now > _SAME_SIZE * was and not now < was / _SAME_SIZE else possible(words)


def reset(numbers: Numbers) -> Checked:
    """Say whether entropy is at once what it was in the first updates."""
    (old, new), (was, now) = jump(numbers, "entropy"), jump(numbers, "value_std")
    first, first_std = numbers.first("entropy"), numbers.first("value_std")
    words = f"entropy {number(old)} to {number(new)}, {number(first)} in the first updates"
    if new <= old or now > 10 * max(was, first_std):
        return ruled_out(f"{words}; value_std {number(was)} to {number(now)}")
    (mean, mean_now) = jump(numbers, "value_mean")
    if abs(now - was) <= 0.3 * was and abs(mean_now - mean) <= max(was, 0.3 * abs(mean)):
        return possible(f"{words}; but the values hardly changed, value_std {number(was)} to {number(now)}")
    return (likely if new >= 0.7 * first else possible)(words)


def weights_scaled(numbers: Numbers) -> Checked:
    """Say whether the values grew at once by an order of magnitude."""
    was, now = jump(numbers, "value_std")
    words = f"value_std {number(was)} to {number(now)}"
    if np.isnan(was):
        return not_recorded("value_std; pass rec.update(values=…)")
    return likely(words) if now > 10 * was else ruled_out(words)


def normaliser_reset(numbers: Numbers) -> Checked:
    """Say whether policy and values jumped together."""
    (old, new), (was, now) = jump(numbers, "entropy"), jump(numbers, "value_std")
    words = f"entropy {number(old)} to {number(new)}, value_std {number(was)} to {number(now)}"
    if np.isnan(was):
        return possible(words)
    return ruled_out(words) if abs(now - was) <= 0.1 * was else possible(words)
