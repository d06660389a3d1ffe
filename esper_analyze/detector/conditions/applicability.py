"""Excuses that several rules share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from esper_analyze.detector.deferral_guards import Side, same
from esper_analyze.detector.signals import Frame, choice_code
from esper_analyze.detector.verdict import Excuse

_BY_CONSTRUCTION = "ratio, KL and clip fraction are 1, 0 and 0 by construction"
_NOT_MEASURABLE = f"no minibatch after the first optimizer step: {_BY_CONSTRUCTION}"
FORMER_REASONS = {f"one epoch of one minibatch: {_BY_CONSTRUCTION}": _NOT_MEASURABLE}
"""Reasons given by earlier detectors, mapped to today's text, so that recorded findings compare as equal."""
NO_CLIP_CALL = "no clip call was seen: there is no clipping to judge"
FORMER_VERDICTS = {
    ("clipping_always", "no_data", "clip_active_fraction is missing"): ("not_applicable", NO_CLIP_CALL),
}
"""Rule, verdict and reason given by earlier detectors, mapped to today's, so that recorded findings are the same."""
_CATEGORICAL = choice_code("heads", "kind", "categorical")
_GAUSSIAN = choice_code("heads", "kind", "gaussian")


def inner_loop_not_measurable(frame: Frame) -> Excuse:
    """Excuse updates without a minibatch after their first optimizer step: ratio, KL and clip fraction are trivial."""
    return Excuse(frame["inner_loop_measurable"].equals(0.0), _NOT_MEASURABLE)


def nothing_learnable(frame: Frame) -> Excuse:
    """Excuse heads without a choice at any step."""
    return Excuse(
        frame["learnable_fraction"].equals(0.0),
        "0 % learnable: no step offered this head more than one valid action",
        quiet=True,  # mask_collapse reports it, once
    )


def not_categorical(frame: Frame) -> Excuse:
    """Excuse heads that are not categorical: they have neither masks nor normalised entropy."""
    kind = frame["kind"]
    return Excuse(~kind.null & ~kind.equals(_CATEGORICAL), "not a categorical head")


def not_gaussian(frame: Frame) -> Excuse:
    """Excuse heads that are not Gaussian: they have no standard deviation."""
    kind = frame["kind"]
    return Excuse(~kind.null & ~kind.equals(_GAUSSIAN) & frame["std_mean"].null, "not a Gaussian head", quiet=True)


def nothing_to_choose(frame: Frame) -> Excuse:
    """Excuse updates in which no head had a choice at any step."""
    return Excuse(frame["choice_fraction"].equals(0.0), "no head had a choice at any step")


def joint_entropy_undefined(frame: Frame) -> list[Excuse]:
    """Excuse updates without a normalised joint entropy by nature: no choice at all, or a continuous head."""
    return [
        nothing_to_choose(frame),
        Excuse(
            frame["entropy_norm"].null
            & frame["choice_fraction"].null
            & ~frame["entropy"].null
            & ~frame["choices_unknown"].equals(1.0),
            "continuous actions have no normalised entropy",
        ),
    ]


ACTIONS_UNKNOWN = "the number of actions is not known: give sizes= or masks="


def joint_actions_unknown(frame: Frame) -> Excuse:
    """Return where the joint entropy of categorical heads could not be normalised."""
    return Excuse(frame["entropy_norm"].null & frame["choices_unknown"].equals(1.0), ACTIONS_UNKNOWN)


def actions_unknown(frame: Frame) -> Excuse:
    """Return where the entropy of a head could not be normalised."""
    return Excuse(frame["entropy_norm"].null & frame["choice_samples"].null & ~frame["entropy"].null, ACTIONS_UNKNOWN)


RETURNS = ("ev_low_variance", "return_variance", "return_mean")
"""The columns that ``returns_hardly_vary`` reads."""


CLOSE = 1.1
"""Factor within which a variance is too close to its bound for a guard."""
FARTHEST = 1e-6
"""Share of the larger of a variance and its bound that the smaller one counts as at least."""
SMALLEST = 1e-280
"""Bound below which products lose digits."""
SLACK = 1.001
"""Factor larger than any rounding error."""


def returns_hardly_vary(frame: Frame, spread: float, table: str = "") -> Excuse:
    """Excuse updates whose returns differ by less than ``spread`` of their mean: mostly a solved task.

    ``table``: "updates." where the columns are joined to those of another table.
    """
    variance, mean = frame[f"{table}return_variance"], frame[f"{table}return_mean"]
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = variance.finite & mean.finite & (variance.values < np.square(spread * mean.values))
    return Excuse(
        frame[f"{table}ev_low_variance"].equals(1.0) | narrow,
        "the returns hardly vary: explained variance says nothing",
    )


def returns_held(frame: Frame, spread: float, table: str = "") -> dict[str, Sequence[Side]] | None:
    """Return the sides of ``RETURNS`` on which ``returns_hardly_vary`` stays the same, None if too close to a bound."""
    variance, mean = frame[f"{table}return_variance"], frame[f"{table}return_mean"]
    sides: dict[str, Sequence[Side]] = {f"{table}ev_low_variance": same(frame[f"{table}ev_low_variance"])}
    if not spread > 0.0:
        return sides | {f"{table}return_variance": (0.0,), f"{table}return_mean": ()}
    with np.errstate(all="ignore"):
        spot, square = variance.values, np.square(spread * mean.values)
        product = np.maximum(spot, FARTHEST * square) * np.maximum(square, FARTHEST * spot)
        middle = np.sqrt(product)
        narrow, wide = spot * CLOSE < square, spot > CLOSE * square
    sure = (narrow | wide) & np.isfinite(product) & (product > SMALLEST)
    none = (variance.values == 0.0) & (mean.values == 0.0)
    if np.count_nonzero(~(sure | none | variance.null | mean.null)):
        return None
    bound = np.sqrt(np.where(none, 0.0, middle)) / spread
    mean_side = np.where(none, 0.0, np.where(narrow, middle / SLACK, middle * SLACK))
    return sides | {f"{table}return_variance": (mean_side,), f"{table}return_mean": (bound, -bound)}
