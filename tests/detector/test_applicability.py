"""Excuses that rules share, by definition; and the sides of returns on which they stay what they are."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from esper_analyze.detector.conditions.applicability import (
    actions_unknown,
    inner_loop_not_measurable,
    joint_actions_unknown,
    joint_entropy_undefined,
    not_categorical,
    nothing_learnable,
    returns_hardly_vary,
    returns_held,
)
from esper_analyze.detector.signals import Frame
from tests.detector.batches import frame


def test_the_joint_entropy_is_undefined_without_a_choice_or_for_continuous_actions() -> None:
    """Every combination of cells that are missing, 0 and 1."""
    names = ("entropy_norm", "choice_fraction", "entropy", "choices_unknown")
    cells = list(product((None, 0.5), (None, 0.0, 1.0), (None, 1.0), (None, False, True)))
    whole = frame("updates", {name: [[row[i]] for row in cells] for i, name in enumerate(names)})
    without, continuous = joint_entropy_undefined(whole)
    unknown = joint_actions_unknown(whole)
    for i, (norm, choice, entropy, unknown_choices) in enumerate(cells):
        assert bool(without.where[i, 0]) == (choice == 0.0)
        undefined = norm is None and choice is None and entropy is not None and unknown_choices is not True
        assert bool(continuous.where[i, 0]) == undefined
        assert bool(unknown.where[i, 0]) == (norm is None and unknown_choices is True)
    assert not without.quiet
    assert not continuous.quiet


def test_excuses_of_heads() -> None:
    names = ("entropy_norm", "choice_samples", "entropy", "learnable_fraction", "kind")
    cells = list(product((None, 0.5), (None, 0, 3), (None, 1.0), (None, 0.0, 0.5), (None, "categorical", "gaussian")))
    whole = frame("heads", {name: [[row[i]] for row in cells] for i, name in enumerate(names)})
    for i, (norm, samples, entropy, learnable, kind) in enumerate(cells):
        assert bool(actions_unknown(whole).where[i, 0]) == (norm is None and samples is None and entropy is not None)
        assert bool(nothing_learnable(whole).where[i, 0]) == (learnable == 0.0)
        assert bool(not_categorical(whole).where[i, 0]) == (kind == "gaussian")
    assert nothing_learnable(whole).quiet, "mask_collapse reports it"
    assert not not_categorical(whole).quiet


def test_an_inner_loop_is_trivial_only_where_it_is_said_to_be() -> None:
    whole = frame("updates", {"inner_loop_measurable": [[None], [False], [True]]})
    assert inner_loop_not_measurable(whole).where.tolist() == [[False], [True], [False]]
    assert not inner_loop_not_measurable(whole).quiet


def returns(mean: float | None, variance: float | None, *, low: bool | None = False) -> Frame:
    return frame("updates", {"ev_low_variance": [[low]], "return_variance": [[variance]], "return_mean": [[mean]]})


NUMBERS = (None, math.nan, math.inf, 0.0, 1e-12, 1e-4, 0.9, 1.0, 1.1, 100.0, 1e200)


@pytest.mark.parametrize("spread", [0.0, 0.01, 0.5])
def test_returns_hardly_vary_where_their_deviation_is_below_the_share_of_their_mean(spread: float) -> None:
    for mean, variance, low in product((*NUMBERS, -100.0), NUMBERS, (None, False, True)):
        known = mean is not None and variance is not None and math.isfinite(mean) and math.isfinite(variance)
        square = math.inf if mean is not None and abs(spread * mean) > 1e154 else (spread * (mean or 0.0)) ** 2
        narrow = known and variance is not None and variance < square
        excuse = returns_hardly_vary(returns(mean, variance, low=low), spread)
        assert excuse.where.tolist() == [[low is True or narrow]]
        assert not excuse.quiet


def held(mean: float | None, variance: float | None, spread: float = 0.01) -> dict[str, list[float]] | None:
    sides = returns_held(returns(mean, variance), spread)
    if sides is None:
        return None
    return {name: [float(np.asarray(side).reshape(-1)[-1]) for side in given or ()] for name, given in sides.items()}


@pytest.mark.parametrize(
    ("mean", "variance", "possible"),
    [
        (100.0, 1.0, False),  # on the bound: 1 % of the mean is a deviation of 1
        (100.0, 1.0 / 1.1001, True),
        (100.0, 1.0 / 1.0999, False),
        (100.0, 1.1, False),
        (100.0, 1.1001, True),
        (100.0, 1.0999, False),
        (-100.0, 1.1001, True),
        (100.0, 0.0, True),
        (0.0, 4.0, True),
        (0.0, 0.0, True),
        (None, 4.0, True),
        (100.0, None, True),
        (None, None, True),
        (1e200, 1.0, False),  # its square is infinite
        (1e-68, 1.01e-140 * 1.1, True),  # times 1e-140, the square of 1 % of the mean
        (1e-68, 0.99e-140 / 1.1, False),  # a product that small may have lost digits
        (1e-79, 1e-162, False),
    ],
)
def test_returns_near_their_bound_are_held_to_no_side(
    mean: float | None, variance: float | None, possible: bool
) -> None:
    assert (held(mean, variance) is not None) is possible


@pytest.mark.parametrize(("mean", "variance"), [(100.0, 4.0), (-100.0, 4.0), (100.0, 0.25), (10.0, 1e-3)])
def test_variance_and_mean_are_each_held_at_their_middle(mean: float, variance: float) -> None:
    """The middle of the variance and of the square of 1 % of the mean, by which factor they are apart."""
    middle = math.sqrt(variance * (0.01 * mean) ** 2)
    narrow = variance < (0.01 * mean) ** 2
    sides = held(mean, variance)
    assert sides is not None
    assert sides["ev_low_variance"] == [0.0]
    assert sides["return_mean"] == pytest.approx([math.sqrt(middle) / 0.01, -math.sqrt(middle) / 0.01], rel=1e-12)
    assert sides["return_variance"] == pytest.approx([middle / 1.001 if narrow else middle * 1.001], rel=1e-12)


def test_a_number_that_is_far_smaller_counts_as_a_millionth_of_the_other() -> None:
    sides = held(0.0, 4.0)
    assert sides is not None
    middle = math.sqrt(4.0 * 4e-6)
    assert sides["return_variance"] == pytest.approx([1.001 * middle], rel=1e-12)
    assert sides["return_mean"] == pytest.approx([math.sqrt(middle) / 0.01, -math.sqrt(middle) / 0.01], rel=1e-12)
    sides = held(200.0, 0.0)
    assert sides is not None
    middle = math.sqrt(4.0 * 4e-6)
    assert sides["return_variance"] == pytest.approx([middle / 1.001], rel=1e-12)


def test_returns_that_are_all_0_are_held_there_and_without_a_share_only_the_sign_of_the_variance_is() -> None:
    assert held(0.0, 0.0) == {"ev_low_variance": [0.0], "return_variance": [0.0], "return_mean": [0.0, -0.0]}
    for mean, variance in ((100.0, 1.0), (1e200, 4.0), (None, None)):
        expected = {"ev_low_variance": [0.0], "return_variance": [0.0], "return_mean": []}
        assert held(mean, variance, 0.0) == expected


@pytest.mark.parametrize("seed", range(20))
def test_inside_of_these_sides_returns_vary_as_they_did(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mean, variance = (
        float(rng.choice([0.0, 1e-3, 3.0, 100.0, -100.0])),
        float(rng.choice([0.0, 1e-8, 1e-4, 0.5, 2.0, 1e4])),
    )
    sides = held(mean, variance)
    if sides is None:
        return
    now = bool(returns_hardly_vary(returns(mean, variance), 0.01).where[0, 0])
    (least,), (most, lowest) = sides["return_variance"], sides["return_mean"]

    def beside(side: float, number: float) -> list[float]:
        near = (math.nextafter(side, -math.inf), side, math.nextafter(side, math.inf), number, 0.0, 1e300, -1e300)
        return [one for one in near if (one > side) == (number > side) and (one < side) == (number < side)]

    for other in beside(least, variance):
        for number in beside(most, mean):
            if (number > lowest) == (mean > lowest) and (number < lowest) == (mean < lowest) and other >= 0.0:
                assert bool(returns_hardly_vary(returns(number, other), 0.01).where[0, 0]) == now
