"""Checks of the first ratio: which mismatch of rollout and update fits mean ratio and KL."""

from __future__ import annotations

import numpy as np

from esper_analyze.reports.causes.cause import Checked, likely, not_recorded, possible, ruled_out
from esper_analyze.reports.causes.general_checks import at_start_of_incident
from esper_analyze.reports.causes.numbers import Numbers
from esper_analyze.wording import number

_SCALED = 5.0
"""From this factor on, a size is another one."""
_FORBIDDEN = 25.0
"""Log-ratio of an action that is forbidden now, or was when it was taken."""
_BIASED = 0.03
"""Mean ratio that far from 1: actions were not drawn from the policy whose log-probs were stored."""


def _moments(numbers: Numbers) -> tuple[float, float, float]:
    """Return mean ratio − 1, mean −log r (k1) and mean ½ log² r (k2) in the updates of the incident.

    Actions drawn from the policy whose log-probs were stored have a mean ratio of 1 and k1 about k2, however different
    the policy is that the update evaluates. Log-probs of other samples have k1 about 0; those that are too low k1 < 0.
    """
    return numbers.since("ratio_mean") - 1.0, numbers.since("kl_k1"), numbers.since("kl_k2")


def _ratio_words(numbers: Numbers) -> str:
    names = [name for name in ("ratio_mean", "ratio_max", "kl_k1", "kl_k2") if numbers.recorded(name)]
    return ", ".join(f"{name} {number(numbers.since(name))}" for name in names)


def masks_differ(numbers: Numbers) -> Checked:
    """Say whether the actions taken became less likely and none more, as where masks are missing."""
    lowest = {
        head: cells for head, (_, cells) in numbers.subjects("heads", "single_action_fraction").items() if len(cells)
    }
    fewest = numbers.subjects("heads", "valid_actions_min")
    most = numbers.subjects("heads", "valid_actions_max")
    masked = any(_lowest(fewest[head][1]) < _highest(most[head][1]) for head in fewest)
    if not masked and not any(np.nanmax(cells, initial=0.0) > 0 for cells in lowest.values()):
        return ruled_out("no action was ever masked" if fewest else "no categorical head")
    error = at_start_of_incident(numbers, "first_ratio_error")
    excess, kl, _ = _moments(numbers)
    words = _ratio_words(numbers)
    if error is not None and error > _FORBIDDEN:
        both = numbers.since("ratio_max") > _SCALED
        return (possible if both else likely)(f"{words}: an action that was taken is forbidden now")
    if excess < -_BIASED / 3 or (kl > 0 and excess < 0):
        return likely(f"{words}: actions became less likely and none more, as where masks are missing")
    if excess > _BIASED and kl < 0:
        return ruled_out(f"{words}: actions became more likely")
    return possible(words)


def _lowest(cells: np.ndarray) -> float:
    return float(np.nanmin(cells)) if len(cells) and not np.isnan(cells).all() else np.nan


def _highest(cells: np.ndarray) -> float:
    return float(np.nanmax(cells)) if len(cells) and not np.isnan(cells).all() else np.nan


def stale(numbers: Numbers) -> Checked:
    """Say whether the stored log-probs are too low, or scatter around the right ones."""
    excess, kl, size = _moments(numbers)
    words = _ratio_words(numbers)
    error = at_start_of_incident(numbers, "first_ratio_error")
    if error is not None and error > _FORBIDDEN:
        return ruled_out(f"{words}: an action that was taken is forbidden now")
    if kl < 0 and -kl > size / 8:
        return likely(f"{words}: a negative kl_k1 means that the stored log-probs are too low")
    if kl < size / 4:
        return likely(f"{words}: the log-ratios scatter around 0, as with log-probs of other samples")
    if abs(excess) <= _BIASED:
        return ruled_out(f"{words}: the actions are distributed as their log-probs say")
    return possible(words)


def shifted(numbers: Numbers) -> Checked:
    """Say whether the stored actions are unlikely under the policy that acted."""
    excess, kl, _ = _moments(numbers)
    words = _ratio_words(numbers)
    error = at_start_of_incident(numbers, "first_ratio_error")
    if error is not None and error > _FORBIDDEN and numbers.since("ratio_max") > _SCALED:
        return likely(f"{words}: actions that were taken are forbidden now, and others far more likely")
    if excess > _BIASED and kl >= excess / 4:
        return likely(f"{words}: the stored actions are unlikely under the policy that acted")
    if kl < 0 or excess < -_BIASED or abs(excess) <= _BIASED:
        return ruled_out(words)
    return possible(words)


def hidden_state(numbers: Numbers) -> Checked:
    """Say whether a network with memory has ratios whose mean stays 1."""
    if not numbers.has_memory:
        return not_recorded("no hidden state (a network without memory has none); pass rec.lstm(…)")
    excess, kl, _ = _moments(numbers)
    words = _ratio_words(numbers)
    if excess > 4 * _BIASED or kl < 0:
        return ruled_out(f"{words}: a state that differs leaves the mean ratio at 1")
    return likely(f"{words}: the mean ratio stays near 1, as with actions of another state's policy")


def dropout(numbers: Numbers) -> Checked:
    """Say whether the mismatch was there in earlier updates."""
    earlier = numbers.cells("first_ratio_error")[numbers.update < numbers.lead.onset]
    if len(earlier) and np.nanmax(earlier, initial=0.0) < 1e-4:
        return ruled_out(
            f"first_ratio_error was at most {number(float(np.nanmax(earlier)))} before: it would show in every update"
        )
    return possible(_ratio_words(numbers))


def normaliser_moved(numbers: Numbers) -> Checked:
    """Say whether the ratios' mean stays 1, as with observations that are seen a little differently."""
    excess, _, _ = _moments(numbers)
    words = _ratio_words(numbers)
    return ruled_out(f"{words}: the mean ratio would stay at 1") if abs(excess) > 4 * _BIASED else possible(words)
