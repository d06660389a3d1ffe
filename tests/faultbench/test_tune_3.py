"""What the third release held back does what it says, where that is cheap to see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from tests.faultbench.draw import draw
from tests.faultbench.faults import FAULTS, HARMLESS
from tests.faultbench.make import training
from tests.faultbench.training import Training, gae
from tests.faultbench.tune_faults_3 import FAULTS_3
from tests.faultbench.tune_tasks_3 import TASKS_3

GAMMA, LAMBDA = 0.9, 0.8


def begun(kind: str) -> Training:
    """Return a training by hand into which a change was put before its first update."""
    trained = training(replace(draw("held", 0), task=next(iter(TASKS_3)), algorithm="loop", recurrent="", updates=6))
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
    reward, value, _, last = rollout()
    assert torch.allclose(estimate("every_step_an_end"), reward - value)
    late = torch.tensor([0.0, 0, 1, 0, 0])[:, None]
    assert torch.allclose(estimate("ends_one_step_late"), gae(reward, value, late, last, GAMMA, LAMBDA))
    undiscounted, own = estimate("next_value_undiscounted"), estimate("next_value_of_the_step_itself")
    ahead = reward[3] - value[3] + value[4] + GAMMA * LAMBDA * undiscounted[4]
    assert torch.allclose(undiscounted[3], ahead)
    assert torch.allclose(own[4], reward[4] - value[4] + GAMMA * value[4])
    assert torch.allclose(estimate("gae_forwards")[1], reward[1] - value[1])


def test_a_shared_buffer_holds_what_came_last() -> None:
    change = begun("buffer_shares_memory").knobs.stored_observation
    assert change is not None
    stored = [change(torch.full((2, 1), float(step))) for step in range(3)]
    assert torch.stack(stored).eq(2.0).all()


def test_what_is_late_is_one_step_late_by_head() -> None:
    change = begun("actions_one_step_late").knobs.executed
    assert change is not None
    assert [float(change(torch.tensor(float(step)))) for step in range(4)] == [0, 0, 1, 2]


def test_a_score_adds_up_until_the_episode_ends() -> None:
    trained = begun("reward_is_the_score_so_far")
    change, task = trained.knobs.reward, trained.world.task
    assert change is not None
    task.age[:] = 3
    ones = torch.ones(task.count)
    assert change(ones).eq(1).all()
    task.age[0] = 0
    assert change(ones).eq(2).all()
    assert change(ones).tolist() == [1.0, *[3.0] * (task.count - 1)]


def test_a_copy_is_stepped_and_the_network_stays(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    def before(trained: Training, update: int) -> None:
        seen.append(next(trained.network.parameters()).detach().clone())
        FAULTS_3["optimizer_of_a_copy"].touch(trained, update - 2)

    begun("rate_warmed_up").run(tmp_path / "run", before)
    assert not torch.equal(seen[0], seen[1])
    assert all(torch.equal(seen[2], later) for later in seen[3:])


def test_masks_leave_the_first_valid_action() -> None:
    change = begun("masks_leave_one").knobs.masks
    assert change is not None
    assert change(torch.tensor([[False, True, True], [True, True, False]])).tolist() == [
        [False, True, False],
        [True, False, False],
    ]


def test_log_probs_in_half_precision_are_close() -> None:
    change, log_prob = begun("log_probs_stored_in_half").knobs.log_prob, -3 * torch.rand(100)
    assert change is not None
    assert 0 < float((change(log_prob) - log_prob).abs().max()) < 2e-3
