"""Checks of rewards, ends, environments, observations and returns."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from esper_analyze.reports.causes.cause import Checked, likely, not_recorded, possible, ruled_out
from esper_analyze.reports.causes.numbers import RECENT, Numbers, Step
from esper_analyze.wording import many, number

_EXACT, _INEXACT = 1e-3, 0.01
"""Returns that follow from rewards and values up to rounding, and those that do not."""
_CONTINUED = 0.999
"""Share of the ends at which returns look beyond them: all."""
_CONSTANT = 1e-6
"""Standard deviation below which rewards are constant."""
_SAME_SIZE = 3.0
"""Within this factor, two sizes are alike."""
_SCALED = 5.0
"""From this factor on, a size is another one."""


def reward_constant(numbers: Numbers) -> Checked:
    """Say since when all rewards of a rollout are alike."""
    earlier = numbers.before("reward_std")
    since = numbers.holds_since("reward_std", lambda cells: cells <= _CONSTANT * max(earlier, 1.0))
    if since is None or not earlier > _CONSTANT:
        return ruled_out(f"reward_std is {number(numbers.since('reward_std'))} ({number(earlier)} before)")
    return likely(
        f"reward_std is {number(numbers.since('reward_std'))} since update {since:,} ({number(earlier)} before)"
    )


def rewards_absent(numbers: Numbers) -> Checked:
    """Say whether no rollout so far had two rewards that differ."""
    cells = numbers.cells("reward_std")
    cells = cells[(numbers.update <= numbers.lead.start) & ~np.isnan(cells)]
    words = f"reward_std was at most {number(float(cells.max(initial=0.0)))} in {many(len(cells), 'update')} up to here"
    return (likely if len(cells) and not (cells > _CONSTANT).any() else ruled_out)(words)


def reward_sign(numbers: Numbers) -> Checked:
    """Say whether the mean reward became its negative."""
    swapped = _extremes_swapped(numbers)
    if swapped is not None:
        return swapped
    step = numbers.step("reward_mean")
    if step is None and abs(numbers.since("reward_mean")) < 0.1 * numbers.since("reward_std"):
        return possible(f"reward_mean is {number(numbers.since('reward_mean'))}, too near 0 to tell its sign")
    if step is None:
        return ruled_out(f"reward_mean has no step ({number(numbers.since('reward_mean'))})")
    if step.before * step.after < 0 and 1 / _SAME_SIZE < step.ratio < _SAME_SIZE:
        return likely(step.words)
    return ruled_out(f"{step.words}: not its negative")


def _extremes_swapped(numbers: Numbers) -> Checked | None:
    """Say whether the least reward is what the greatest was, with the other sign; None where both look alike."""
    low, high = (numbers.before(name) for name in ("reward_min", "reward_max"))
    least, most = (numbers.since(name) for name in ("reward_min", "reward_max"))
    room = 0.2 * (high - low)
    if not abs(low + high) > room > 0:
        return None
    words = f"rewards are from {number(least)} to {number(most)} ({number(low)} to {number(high)} before)"
    if abs(least + high) <= room and abs(most + low) <= room:
        return likely(words)
    return ruled_out(words) if abs(least - low) <= room and abs(most - high) <= room else None


def _scaled(columns: Iterable[str], numbers: Numbers) -> list[Step]:
    steps = [step for name in columns if (step := numbers.step(name)) is not None]
    return [step for step in steps if step.ratio >= _SCALED or step.ratio <= 1 / _SCALED]


def reward_scale(numbers: Numbers) -> Checked:
    """Say whether rewards or returns grew by a factor of 5 at once."""
    names = [name for name in ("reward_std", "return_std") if numbers.recorded(name)]
    if not names:
        return not_recorded("reward_std, return_std")
    larger = [step for step in _scaled(names, numbers) if step.ratio >= _SCALED]
    if larger:
        return likely("; ".join(step.words for step in larger))
    return ruled_out(
        "no step by a factor of 5 in " + ", ".join(f"{name} ({number(numbers.since(name))})" for name in names)
    )


def reward_unrelated(numbers: Numbers) -> Checked:
    """Say whether the rewards changed, not their scale, and the critic explains them less."""
    steps = [step for name in ("reward_mean", "reward_std") if (step := numbers.step(name)) is not None]
    if numbers.since("reward_std") <= _CONSTANT:
        return ruled_out("rewards are constant")
    if not steps:
        return ruled_out(f"reward_mean and reward_std have no step ({number(numbers.since('reward_mean'))}, "
                         f"{number(numbers.since('reward_std'))})")  # fmt: skip
    if any(step.ratio >= _SCALED for step in steps):
        return possible(f"their scale changed: {'; '.join(step.words for step in steps)}")
    fell = numbers.step("explained_variance")
    if fell is not None and fell.after < fell.before / 2:
        return likely(f"{'; '.join(step.words for step in steps)}; {fell.words}")
    return possible("; ".join(step.words for step in steps))


def ends_ignored(numbers: Numbers) -> Checked:
    """Compare the ends in the rollouts with the episodes that finished."""
    last = numbers.update >= numbers.lead.start
    ends = float(np.nansum(numbers.cells("rollout_ends")[last]))
    episodes = float(np.nansum(numbers.cells("episodes_finished")[last]))
    words = f"rollout_ends {number(ends)} while {number(episodes)} episodes finished, in the same updates"
    if not episodes:
        return possible("no episode finished around the incident")
    if ends < 0.5 * episodes:
        return likely(words)
    continued = numbers.since("ends_continued_fraction")
    if continued >= _CONTINUED:
        earlier = numbers.before("ends_continued_fraction")
        words = f"ends_continued_fraction is {number(continued)} ({number(earlier)} before)"
        if numbers.recorded("return_residual") and numbers.since("return_residual") > _INEXACT:
            return possible(f"{words}, and so at other timesteps")
        return likely(words) if earlier < _CONTINUED else possible(f"{words}: so it is with time limits, too")
    return ruled_out(words)


def environments(numbers: Numbers) -> Checked:
    """Compare the number of environments with the number that differ."""
    distinct, of = numbers.since("environments_distinct"), numbers.since("environments")
    words = f"environments_distinct {number(distinct)} of {number(of)}"
    if distinct >= of or of <= 1:
        return ruled_out(words)
    return likely(words) if distinct <= 1 and numbers.since("value_std") != 0 else possible(words)


def other_action(numbers: Numbers) -> Checked:
    """Say that no column shows it, and which ones look sound."""
    known = [name for name in ("first_ratio_error", "advantage_alignment") if numbers.recorded(name)]
    values = ", ".join(f"{name} {number(numbers.since(name))}" for name in known)
    return possible(
        f"no column shows it ({values or 'nothing'}): compare the action given to env.step with the stored one"
    )


def observations(numbers: Numbers) -> Checked:
    """Say whether observations changed, else whether values and entropy of the rollouts jumped or left their range."""
    other = numbers.incident("observations_changed")
    if other is not None or "observations_changed" in numbers.lead.seen_by:
        return likely(f"observations_changed alarmed at update {(other or numbers.lead).start:,}")
    return _by_values(numbers) if numbers.recorded("value_mean") else _NO_OBSERVATIONS


_NO_OBSERVATIONS = not_recorded("observations, value_mean; pass rec.update(observations=…) or rec.update(values=…)")


def _by_values(numbers: Numbers) -> Checked:
    steps = [step for name in ("value_mean", "value_std", "entropy") if (step := numbers.step(name)) is not None]
    jumped = [step for step in steps if step.update >= numbers.lead.onset - RECENT]
    if not jumped:
        drifted = [name for name in ("value_mean", "value_std") if numbers.left_range(name)]
        if drifted:
            named = (
                f"{name} {number(numbers.since(name))} ({number(numbers.before(name))} before)" for name in drifted
            )
            return possible(", ".join(named))
        return ruled_out("value_mean and value_std of the rollouts are in their earlier range")
    reward = numbers.step("reward_mean") if numbers.recorded("reward_mean") else None
    words = "; ".join(step.words for step in jumped)
    if reward is not None and reward.update < min(step.update for step in jumped):
        return possible(f"{words}; but first {reward.words}")
    return possible(words)


def gamma(numbers: Numbers) -> Checked:
    """Say which discount fits the returns, else which one is set."""
    if numbers.recorded("return_gamma") and not numbers.since("return_residual") > _INEXACT:
        fit = numbers.since("return_gamma")
        above = numbers.recorded("gamma") and fit > numbers.since("gamma") + 0.02
        return (likely if fit > 1.0 + _EXACT or above else ruled_out)(
            f"return_gamma, fitted to the returns, is {number(fit)}"
        )
    if not numbers.recorded("gamma"):
        return not_recorded("gamma, return_gamma; pass rec.update(gamma=…, rewards=…, returns=…)")
    gamma = numbers.since("gamma")
    return (likely if gamma > 1.0 else ruled_out)(f"gamma is {number(gamma)}")


def targets(numbers: Numbers) -> Checked:
    """Say whether the returns fit the rewards and values."""
    residual, earlier = numbers.since("return_residual"), numbers.before("return_residual")
    words = f"return_residual is {number(residual)} ({number(earlier)} before)"
    if residual <= _INEXACT:
        return ruled_out(words)
    return likely(words) if earlier < _EXACT else possible(f"{words}: it was never exact")


def less_data(numbers: Numbers) -> Checked:
    """Say whether updates have fewer samples."""
    steps = [step for name in ("samples", "rollout_samples") if (step := numbers.step(name)) is not None]
    fewer = [step for step in steps if step.ratio < 0.5]
    if fewer:
        return likely("; ".join(step.words for step in fewer))
    return ruled_out(f"samples an update: {number(numbers.since('samples'))}")


def outlier(numbers: Numbers) -> Checked:
    """Say how many standard deviations the largest advantage is."""
    largest = max(abs(numbers.since("advantage_max")), abs(numbers.since("advantage_min")))
    spread = numbers.since("advantage_std")
    words = f"the largest advantage is {number(largest / spread if spread else np.nan)} standard deviations"
    return (likely if spread and largest > 20 * spread else ruled_out)(words)


def learnt(numbers: Numbers) -> Checked:
    """Say whether returns rose."""
    now, earlier = numbers.since("episode_return_mean"), numbers.before("episode_return_mean")
    words = f"episode_return_mean {number(now)}, {number(earlier)} before"
    return (likely if now > earlier + 0.1 * abs(earlier) else ruled_out)(words)


def less_choice(numbers: Numbers) -> Checked:
    """Say whether masks leave a choice less often."""
    step = numbers.step("choice_fraction")
    if step is not None and step.after < step.before / 2:
        return likely(step.words)
    return ruled_out(f"choice_fraction is {number(numbers.since('choice_fraction'))}")
