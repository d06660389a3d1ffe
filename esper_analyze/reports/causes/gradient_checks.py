"""Checks of gradients, their weights and the optimizer."""

from __future__ import annotations

import numpy as np

from esper_analyze.reports.causes.cause import Checked, likely, not_recorded, possible, ruled_out
from esper_analyze.reports.causes.general_checks import jump
from esper_analyze.reports.causes.numbers import Numbers
from esper_analyze.schema.constants import HEAD_GROUP
from esper_analyze.wording import number

_SCALED = 5.0
"""From this factor on, a size is another one."""
_ALL = 0.999
"""Share of the optimizer's moments from which on all of them are gone."""


def detached(numbers: Numbers) -> Checked:
    """Say which groups and heads have no gradient at all."""
    without = _at_start(numbers, "groups", "tensors_without_grad")
    of = _at_start(numbers, "groups", "tensors")
    if not without:
        return not_recorded("gradients by group; pass the model to the recorder")
    gone = [name for name, cell in without.items() if cell and cell == of.get(name)]
    heads = [f"{HEAD_GROUP}{name}" for name, cell in _at_start(numbers, "heads", "params_without_grad").items() if cell]
    named = list(dict.fromkeys([*gone, *heads]))
    if named:
        return likely(f"no gradient at all: {', '.join(named)}")
    missing = {name: cell for name, cell in without.items() if cell}
    if not missing:
        return ruled_out("every tensor has a gradient, if only of zeros")
    counts = ", ".join(f"{name} {number(cell)}" for name, cell in missing.items())
    return ruled_out(f"tensors_without_grad {counts}, no group without any")


def _at_start(numbers: Numbers, table: str, name: str) -> dict[str, float]:
    found = {}
    for subject, (update, cells) in numbers.subjects(table, name).items():
        here = cells[(update == numbers.lead.start) & ~np.isnan(cells)]
        if len(here):
            found[subject] = float(here[-1])
    return found


def zero_gradient(numbers: Numbers) -> Checked:
    """Say which groups have gradients of zero, or next to none, though every tensor has one."""
    norms = _at_start(numbers, "groups", "grad_norm")
    if not norms:
        return not_recorded("gradients by group; pass the model to the recorder")
    usual = {name: float(np.nanmedian(cells)) for name, (_, cells) in numbers.subjects("groups", "grad_norm").items()
             if not np.isnan(cells).all()}  # fmt: skip
    dead = [name for name, cell in norms.items() if cell <= 1e-3 * usual.get(name, 0.0) or cell == 0.0]
    without = _at_start(numbers, "groups", "tensors_without_grad")
    zeros = [name for name in dead if without.get(name, 0.0) == 0.0]
    weak = {name: cell for name, cell in _at_start(numbers, "groups", "vanishing_severity").items() if cell > 0}
    if not zeros and weak:
        named = ", ".join(f"{name} {number(cell)}" for name, cell in weak.items())
        return likely(f"part of the tensors has next to no gradient, vanishing_severity of {named}")
    if zeros:
        return likely(
            "; ".join(f"grad_norm of {name} is {number(norms[name])}, its tensors have gradients" for name in zeros)
        )
    return ruled_out("; ".join(f"grad_norm of {name} is {number(cell)}" for name, cell in norms.items()))


def value_weight(numbers: Numbers) -> Checked:
    """Say whether the coefficient of the value loss rose, else whether gradients grew and the loss did not."""
    if numbers.recorded("value_coef"):
        step = numbers.step("value_coef")
        return ruled_out(f"value_coef is {number(numbers.since('value_coef'))}") if step is None else likely(step.words)
    if not numbers.recorded("value_loss"):
        return not_recorded("value_coef; pass rec.update(value_coef=…)")
    grown = [step for step in numbers.steps("groups", "grad_norm").values() if step.ratio >= _SCALED]
    if not grown and numbers.recorded("grad_norm_pre_clip"):
        grown = [step for step in [numbers.step("grad_norm_pre_clip")] if step is not None and step.ratio >= _SCALED]
    if not grown:
        return ruled_out("no gradient norm grew by a factor of 5 at once (value_coef is not recorded)")
    loss = numbers.step("value_loss")
    most = max(grown, key=lambda step: step.ratio)
    if loss is not None and loss.ratio >= most.ratio / _SCALED:
        return ruled_out(f"{most.words}, but the loss too: {loss.words}")
    return likely(f"{most.words}; value_loss did not (value_coef is not recorded: rec.update(value_coef=…))")


def advantage_scale(numbers: Numbers) -> Checked:
    """Say whether the policy's gradients grew and the critic's did not."""
    steps = numbers.steps("groups", "grad_norm")
    actor = [step for name, step in steps.items() if name != "critic" and step.ratio >= _SCALED]
    critic = steps.get("critic")
    if not actor:
        return ruled_out("no policy gradient grew by a factor of 5 at once")
    if critic is not None and critic.ratio >= _SCALED:
        return ruled_out(f"the critic's gradient grew too: {critic.words}")
    return possible("; ".join(step.words for step in actor))


def optimizer_restarted(numbers: Numbers) -> Checked:
    """Say whether the optimizer's state was lost before the incident."""
    lost = numbers.update[(numbers.cells("optimizer_state_lost") >= _ALL) & (numbers.update <= numbers.lead.start)]
    if not len(lost):
        return ruled_out("optimizer_state_lost is 0")
    return likely(f"optimizer_state_lost is 1 in update {lost[-1]:,}")


def clip_gone(numbers: Numbers) -> Checked:
    """Say whether gradients are still clipped."""
    start = numbers.measured("max_grad_norm", numbers.lead.start)
    if start is None or np.isinf(start):
        earlier = number(numbers.before("max_grad_norm"))
        now = "there is no clip call" if start is None else f"max_grad_norm is {number(start)}"
        return likely(f"in update {numbers.lead.start:,} {now}, {earlier} before")
    return ruled_out(f"max_grad_norm is {number(start)}")


def dead_units(numbers: Numbers) -> Checked:
    """Say whether the policy became indifferent and part of its gradient is zero, as where units died."""
    (old, new), found = jump(numbers, "entropy"), zero_gradient(numbers)
    words = f"entropy {number(old)} to {number(new)}"
    return ruled_out(words) if new < old else Checked(found.answer, f"{words}; {found.words}")


def no_advantage(numbers: Numbers) -> Checked:
    """Say whether there are advantages left to follow."""
    value, earlier = numbers.since("advantage_std"), numbers.before("advantage_std")
    return (likely if value <= 1e-3 * earlier else ruled_out)(
        f"advantage_std is {number(value)} ({number(earlier)} before)"
    )


def deterministic(numbers: Numbers) -> Checked:
    """Say whether the policy has a choice left."""
    value = numbers.since("entropy_norm")
    return (likely if value < 0.02 else ruled_out)(f"entropy_norm is {number(value)}")
