"""Checks of where values stopped being finite."""

from __future__ import annotations

import numpy as np

from esper_analyze.reports.causes.cause import Checked, Likelihood, likely, not_recorded, possible, ruled_out
from esper_analyze.reports.causes.general_checks import at_start_of_incident
from esper_analyze.reports.causes.numbers import Numbers
from esper_analyze.wording import number

_REWARDS = "rec.update(rewards=…)"


def _finite(cell: float | None) -> bool:
    return cell is not None and bool(np.isfinite(cell))


def _nonfinite(cell: float | None) -> bool:
    return cell is not None and not np.isfinite(cell)


def _shown(numbers: Numbers, *names: str) -> str:
    return ", ".join(
        f"{name} {number(at_start_of_incident(numbers, name))}"
        for name in names
        if at_start_of_incident(numbers, name) is not None
    )


def nan_reward(numbers: Numbers) -> Checked:
    """Say whether the rewards, and not the observations, were not finite."""
    reward, returns, value = (
        at_start_of_incident(numbers, name) for name in ("reward_mean", "return_mean", "value_mean")
    )
    words = _shown(numbers, "reward_mean", "return_mean", "value_mean") or "nothing of the rollout is recorded"
    if _nonfinite(reward) and not _nonfinite(value):
        return likely(words)
    if _finite(reward) or (reward is None and _finite(returns)):
        return ruled_out(words)
    if reward is None and _nonfinite(returns) and _finite(value):
        return likely(f"{words}; the rewards themselves: {_REWARDS}")
    if reward is None and returns is None:
        ratio, loss = at_start_of_incident(numbers, "first_ratio_error"), at_start_of_incident(numbers, "total_loss")
        if _finite(ratio) and _nonfinite(loss):
            told = _shown(numbers, "first_ratio_error", "policy_loss", "value_loss", "total_loss")
            return likely(
                f"{told}: the policy is finite, what the loss is made of is not; the rewards themselves: {_REWARDS}"
            )
        return not_recorded(f"reward_mean and return_mean of update {numbers.lead.start:,}; pass {_REWARDS}")
    return possible(words)


def bad_observation(numbers: Numbers) -> Checked:
    """Say whether the network's answers while acting were not finite."""
    value = at_start_of_incident(numbers, "value_mean")
    if value is None and _cut_short(numbers):
        return possible(f"update {numbers.lead.start:,} ended before its first minibatch did, while acting or after")
    if value is None:
        return not_recorded(f"value_mean of update {numbers.lead.start:,}; pass rec.update(values=…)")
    words = _shown(numbers, "value_mean", "reward_mean")
    if _finite(value):
        return ruled_out(f"{words}: the network answered all observations of the rollout")
    return likely(words) if bad_parameters(numbers).answer is not Likelihood.LIKELY else possible(words)


def _cut_short(numbers: Numbers) -> bool:
    """Return whether the update of the incident has a row, but not one minibatch."""
    return (
        at_start_of_incident(numbers, "optimisation_s") is not None
        and at_start_of_incident(numbers, "minibatches") is None
    )


def bad_stored(numbers: Numbers) -> Checked:
    """Say whether the first minibatch was not finite though the rollout was."""
    if _cut_short(numbers):
        return possible(f"update {numbers.lead.start:,} ended before its first minibatch did, while acting or after")
    ratio, bad = at_start_of_incident(numbers, "first_ratio_error"), at_start_of_incident(numbers, "ratio_nonfinite")
    value, returns = at_start_of_incident(numbers, "value_mean"), at_start_of_incident(numbers, "return_mean")
    words = _shown(
        numbers, "value_mean", "return_mean", "first_ratio_error", "ratio_nonfinite", "nonfinite_minibatches"
    )
    if _finite(ratio) and not bad:
        return ruled_out(words)
    if ratio is None and bad is None:
        return not_recorded("first_ratio_error; pass rec.minibatch(log_prob=…, old_log_prob=…)")
    if _nonfinite(value) or _nonfinite(returns):
        return ruled_out(f"already the rollout is not finite: {words}")
    return likely(words)


def bad_parameters(numbers: Numbers) -> Checked:
    """Say whether the update before had gradients that are not finite."""
    before = numbers.lead.start - 1
    if before < 0:
        return possible("no update came before it; what the parameters were at the start is not recorded")
    counts = {
        name: numbers.measured(name, before) for name in ("nan_grad_count", "inf_grad_count", "nonfinite_minibatches")
    }
    known = {name: cell for name, cell in counts.items() if cell is not None}
    words = ", ".join(f"{name} {number(cell)}" for name, cell in known.items())
    if not known:
        return possible(f"update {before:,} before it has no count of gradients that are not finite")
    return (likely if any(known.values()) else ruled_out)(f"in update {before:,} before it: {words}")


def overflow(numbers: Numbers) -> Checked:
    """Say whether the gradients are not finite though the loss is."""
    loss = at_start_of_incident(numbers, "total_loss")
    grads = [at_start_of_incident(numbers, name) for name in ("grad_norm_pre_clip_max", "grad_norm_pre_clip")]
    counts = [at_start_of_incident(numbers, name) for name in ("nan_grad_count", "inf_grad_count", "tensors_nonfinite")]
    words = _shown(numbers, "total_loss", "grad_norm_pre_clip_max", "inf_grad_count", "nan_grad_count", "loss_scale")
    bad = any(_nonfinite(cell) for cell in grads) or any(counts)
    if all(cell is None for cell in (*grads, *counts)):
        return not_recorded("gradients; pass the model to the recorder")
    if not bad:
        return ruled_out(f"the gradients are finite: {words}")
    before = ("return_mean", "first_ratio_error", "policy_loss", "value_loss", "entropy")
    if _nonfinite(loss) or any(_nonfinite(at_start_of_incident(numbers, name)) for name in before):
        return ruled_out(f"not finite before the gradients: {words or _shown(numbers, *before)}")
    if loss is None:
        return possible(f"the gradients are not finite, the loss is not recorded{words and ': '}{words}")
    return likely(f"{words}: the loss is finite, its gradient is not")
