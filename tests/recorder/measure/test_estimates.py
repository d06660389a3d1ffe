"""What is said of a rollout's agreement with itself, against estimates of known discount and λ."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from recorder.measure import estimates
from recorder.measure.estimates import DEFINED_FIELDS, RETURN_FIELDS, environment_statistics, return_statistics

Rollout = tuple[Tensor, Tensor, Tensor, Tensor]


def rollout(gamma: float, smoothing: float, *, steps: int = 60, count: int = 3, seed: int = 0) -> Rollout:
    """Return values, returns, rewards and ends [T, B] of generalised advantage estimation."""
    random = torch.Generator().manual_seed(seed)
    values, rewards = torch.randn(2, steps, count, generator=random)
    ends = torch.rand(steps, count, generator=random) < 0.1
    advantages, running, ahead = torch.zeros(steps, count), torch.zeros(count), torch.randn(count, generator=random)
    for t in reversed(range(steps)):
        running = rewards[t] - values[t] + gamma * ~ends[t] * (ahead + smoothing * running)
        advantages[t], ahead = running, values[t]
    return values, advantages + values, rewards, ends


def measured(parts: Rollout) -> dict[str, float]:
    return dict(zip((*RETURN_FIELDS, *DEFINED_FIELDS), return_statistics(*parts).tolist(), strict=True))


@pytest.mark.parametrize("gamma", [0.5, 0.99, 1.0, 1.05])
@pytest.mark.parametrize("smoothing", [0.0, 0.8, 1.0])
def test_discount_and_smoothing_are_found_in_the_returns(gamma: float, smoothing: float) -> None:
    cells = measured(rollout(gamma, smoothing))
    assert cells["return_gamma"] == pytest.approx(gamma, abs=1e-5)
    assert cells["return_lambda"] == pytest.approx(smoothing, abs=1e-5)
    assert cells["return_residual"] < 1e-5
    assert cells["ends_continued_fraction"] == 0.0


def test_a_shift_and_ignored_ends_are_seen() -> None:
    values, returns, rewards, ends = rollout(0.99, 0.9)
    assert measured((values, returns.roll(1, 0), rewards, ends))["return_residual"] > 0.1
    beyond = torch.where(ends, returns + 1.0, returns)
    assert measured((values, beyond, rewards, ends))["ends_continued_fraction"] == 1.0
    assert measured((values, returns, rewards, torch.zeros_like(ends)))["return_residual"] > 0.1


@pytest.mark.parametrize("piece", [1, 3, 7, 59, 60, 61, 10**6])
def test_pieces_say_what_the_whole_says(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    parts = rollout(0.9, 0.7)
    whole, distinct = return_statistics(*parts), environment_statistics(parts[0])
    monkeypatch.setattr(estimates, "PIECE", 3 * piece)
    torch.testing.assert_close(return_statistics(*parts), whole, rtol=1e-9, atol=1e-7)
    assert environment_statistics(parts[0]).tolist() == distinct.tolist() == [3.0, 3.0]


def test_what_is_too_short_constant_or_broken_is_not_a_number_of_the_training() -> None:
    short = measured(rollout(0.9, 0.7, steps=2))
    assert (short["fit_defined"], short["lambda_defined"]) == (0.0, 0.0)
    alone = measured(rollout(0.9, 0.7, steps=1))
    assert alone["fit_defined"] == 0.0
    nothing = torch.zeros(20, 2)
    assert measured((nothing, nothing, nothing, nothing.bool()))["fit_defined"] == 0.0
    perfect = measured((nothing + 1.0, nothing + 1.0, nothing, nothing.bool()))
    assert perfect["return_gamma"] == pytest.approx(1.0)
    assert perfect["lambda_defined"] == 0.0
    for part in range(3):
        for place in (0, -1):
            broken = [array.clone() for array in rollout(0.9, 0.7)]
            broken[part][place, 0] = math.inf
            cells = measured((broken[0], broken[1], broken[2], broken[3]))
            assert math.isnan(cells["return_residual"])
            assert cells["fit_defined"] == 1.0


def test_equal_environments_are_counted_once_and_near_ones_are_not_equal() -> None:
    values = torch.randn(16, 4, generator=torch.Generator().manual_seed(0)) + 60.0
    assert environment_statistics(values).tolist() == [4.0, 4.0]
    assert environment_statistics(values[:, [0, 0, 1, 0]]).tolist() == [4.0, 2.0]
    assert environment_statistics(values[:, :1].expand(16, 4)).tolist() == [4.0, 1.0]
    near = values.clone()
    near[:, 1] = values[:, 0] * (1 + 1e-3)
    assert environment_statistics(near).tolist() == [4.0, 4.0]


EPS = 2.0**-23
"""Of float32."""


@pytest.mark.parametrize("size", [1.0, 64.0])
@pytest.mark.parametrize(("units", "distinct"), [(7, 1), (9, 2)])
def test_environments_are_equal_up_to_so_many_units_of_rounding(size: float, units: int, distinct: int) -> None:
    values = torch.tensor([[size, size * (1 + units * EPS)]])
    assert environment_statistics(values).tolist() == [2.0, float(distinct)]


def test_the_precision_is_that_of_the_coarser_number() -> None:
    single, double = torch.ones(1), torch.ones(1, dtype=torch.float64)
    for pair in ((single, double), (double, single), (double, torch.ones(1, dtype=torch.int64))):
        assert estimates.precision(*pair) == EPS
    assert estimates.precision(double) == 2.0**-52
    assert estimates.precision(single.half(), double) == 2.0**-10


def test_advantages_of_a_critic_without_error_have_no_consistency() -> None:
    zeros = torch.zeros(4)
    assert estimates.consistency(torch.tensor([1.0, 2.0, 3.0, 5.0]), zeros, zeros).tolist()[1] == 0.0
    assert estimates.consistency(zeros, torch.tensor([1.0, 2.0, 3.0, 5.0]), zeros).tolist()[1] == 0.0


def test_where_values_and_returns_are_alike_there_is_no_smoothing_to_be_found() -> None:
    """Returns are three times the values, both of any size: R' and R' − V' point the same way."""
    for seed in range(20):
        random = torch.Generator().manual_seed(seed)
        values = 1e3 * torch.randn(40, 2, generator=random, dtype=torch.float64)
        rewards = torch.randn(40, 2, generator=random, dtype=torch.float64)
        assert measured((values, 3 * values, rewards, torch.zeros(40, 2)))["lambda_defined"] == 0.0


def test_an_end_goes_on_only_beyond_a_thousandth_of_the_returns() -> None:
    returns, ends = torch.full((1, 1), 1000.0), torch.ones(1, 1)
    for reward, share in ((999.0, 0.0), (998.9, 1.0), (1001.0, 0.0), (1001.1, 1.0)):
        cells = measured((torch.zeros(1, 1), returns, torch.full((1, 1), reward), ends))
        assert cells["ends_continued_fraction"] == share
