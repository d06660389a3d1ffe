"""What the fourth release held back does what it says, where that is cheap to see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import tests.faultbench.tune_touches_4 as touches
from tests.faultbench.draw import draw
from tests.faultbench.faults import FAULTS, HARMLESS
from tests.faultbench.make import training
from tests.faultbench.training import Training, gae

GAMMA, LAMBDA = 0.9, 0.8


def begun(kind: str, task: str = "pig") -> Training:
    """Return a training by hand into which a change was put before its first update."""
    setup = replace(draw("held", 0), task=task, algorithm="loop", recurrent="", updates=6, reward_scale=1.0)
    trained = training(setup)
    touch = FAULTS[kind].touch if kind in FAULTS else HARMLESS[kind]
    touch(trained, 0)
    return trained


def rollout() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return rewards, values and ends [5, 1], and the value after them."""
    torch.manual_seed(0)
    return torch.randn(5, 1), torch.randn(5, 1), torch.tensor([0.0, 1, 0, 0, 0])[:, None], torch.randn(1)


def estimate(kind: str) -> Tensor:
    """Return the estimates with a change put in."""
    change = begun(kind).knobs.estimate
    assert change is not None
    return change(*rollout(), GAMMA, LAMBDA)


def test_estimates_are_wrong_as_they_say() -> None:
    reward, value, end, last = rollout()
    sound = gae(reward, value, end, last, GAMMA, LAMBDA)
    assert torch.allclose(estimate("sum_crosses_ends")[2:], sound[2:])
    assert torch.allclose(estimate("sum_crosses_ends")[1], reward[1] - value[1] + GAMMA * LAMBDA * sound[2])
    assert torch.allclose(estimate("next_value_crosses_ends")[1], reward[1] - value[1] + GAMMA * value[2])
    assert torch.allclose(estimate("gamma_and_lambda_swapped"), gae(reward, value, end, last, LAMBDA, GAMMA))
    assert estimate("last_step_without_advantage")[4] == 0
    assert torch.allclose(estimate("last_step_without_advantage")[3], reward[3] - value[3] + GAMMA * value[4])
    assert float(estimate("normalised_before_the_targets").std()) == pytest.approx(1.0)


def test_values_are_added_to_what_is_made_of_the_estimates() -> None:
    knobs = begun("baseline_forgotten").knobs
    assert knobs.estimate is not None
    assert knobs.advantages is not None
    found = knobs.estimate(*rollout(), GAMMA, LAMBDA)
    assert torch.equal(knobs.advantages(found), found + rollout()[1])


def test_the_last_reward_of_an_episode_is_lost() -> None:
    trained = begun("last_reward_lost")
    change, age = trained.knobs.reward, trained.world.task.age
    assert change is not None
    age[:] = 3
    age[0] = 0
    assert change(torch.ones(len(age))).tolist() == [0.0, *[1.0] * (len(age) - 1)]


def test_controls_are_inverted_by_head() -> None:
    change = begun("controls_inverted", "counter").knobs.executed
    assert change is not None
    assert [change(torch.tensor([0, 1])).tolist() for _ in range(3)] == [[8, 7], [1, 0], [8, 7]]


def test_a_slow_sensor_shows_every_fourth_step() -> None:
    slow = touches.Slow()
    assert [float(slow(torch.tensor([float(step)]))) for step in range(6)] == [0, 0, 0, 0, 4, 4]


def test_what_is_below_0_is_wrapped() -> None:
    assert touches.wrapped(torch.tensor([0.5, -0.5, 3.0])).tolist() == pytest.approx([0.5, 2.06, 0.44])


def test_the_actions_of_each_head_are_reordered_alone() -> None:
    trained = begun("noise_on_weights", "counter")
    before = [layer.weight.clone() for layer, _ in trained.action_layers()]
    touches.reorder_actions(trained)
    after = [layer.weight for layer, _ in trained.action_layers()]
    assert all(torch.equal(one.flip(0), other) for one, other in zip(before, after, strict=True))


def test_opposite_masks_leave_something() -> None:
    mask = torch.tensor([[True, False], [True, True]])
    assert touches.opposite(mask).tolist() == [[False, True], [True, True]]


def test_restarted_environments_are_at_the_beginning_of_an_episode() -> None:
    trained = begun("rewards_jittered")
    trained.world.task.age[:] = 3
    trained.restart(np.arange(trained.setup.environments) < 2)
    assert trained.world.task.age.tolist() == [0, 0, *[3] * (trained.setup.environments - 2)]
