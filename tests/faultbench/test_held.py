"""What is held back does what it says, where that is cheap to see."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tests.faultbench.held_parts as parts
import tests.faultbench.held_touches as touches
from tests.faultbench.draw import draw
from tests.faultbench.faults import FAULTS, HARMLESS, KINDS_BY_SPLIT
from tests.faultbench.held_faults import HELD_FAULTS
from tests.faultbench.held_tasks import HELD
from tests.faultbench.loop import LoopTraining
from tests.faultbench.make import training
from tests.faultbench.training import Training, gae

GAMMA, LAMBDA = 0.9, 0.8


def sound(task: str = "lift", recurrent: str = "", algorithm: str = "loop") -> Training:
    """Return a small training of a task."""
    setup = replace(draw("held", 0), task=task, algorithm=algorithm, recurrent=recurrent, updates=6, gamma=GAMMA)
    setup = replace(setup, environments=4, steps=8, epochs=2, minibatches=2, hidden=8, schedule="constant")
    return training(replace(setup, reward_scale=1.0, normalise_observations=False, shared=False))


def begun(kind: str, task: str = "lift", recurrent: str = "") -> Training:
    """Return a training by hand into which a change was put before its first update."""
    trained = sound(task, recurrent)
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


def rewards(trained: Training, given: list[float], ages: list[int]) -> list[float]:
    """Return what the first environment gets for such rewards; where it is 0 steps old, an episode has ended."""
    change, task = trained.knobs.reward, trained.world.task
    assert change is not None
    received = []
    for reward, age in zip(given, ages, strict=True):
        task.age[:] = age
        received.append(float(change(torch.full((task.count,), reward))[0]))
    return received


def test_estimates_are_wrong_as_they_say() -> None:
    reward, value, end, last = rollout()
    right = gae(reward, value, end, last, GAMMA, LAMBDA)
    assert torch.allclose(estimate("estimates_left_backwards"), right.flip(0))
    assert torch.allclose(estimate("discounted_twice"), gae(reward, value, end, last, GAMMA**2, LAMBDA))
    assert torch.allclose(estimate("last_value_stale")[4], reward[4] + GAMMA * value[4] - value[4])
    assert torch.allclose(estimate("ends_inverted")[2:], (reward - value)[2:])
    assert 0 < float((estimate("estimates_in_half") - right).abs().max()) < 1e-2


def test_advantages_are_subtracted_for_value_targets() -> None:
    knobs, (reward, value, _, _) = begun("advantages_subtracted_from_values").knobs, rollout()
    assert knobs.estimate is not None
    assert knobs.targets is not None
    advantages = knobs.estimate(*rollout(), GAMMA, LAMBDA)
    assert torch.allclose(knobs.targets(advantages + value, reward), value - advantages, atol=1e-6)


def test_a_policy_loss_is_summed() -> None:
    ratio, advantages = 1 + 0.01 * torch.randn(6), torch.randn(6)
    assert torch.allclose(touches.summed(ratio, advantages, 0.2).mean(), (ratio * advantages).sum(), atol=1e-5)


def test_half_of_what_is_in_the_buffer_is_old(tmp_path: Path) -> None:
    trained, stored = begun("half_of_the_rollout_is_old"), []
    assert isinstance(trained, LoopTraining)
    train = trained._train

    def keep(rollout: dict[str, Tensor], rec: object) -> None:
        stored.append(rollout["advantages"].clone())
        train(rollout, rec)  # type: ignore[arg-type]

    setattr(trained, "_train", keep)  # noqa: B010
    trained.run(tmp_path / "run", lambda *_: None)
    first, second, third, fourth = stored[:4]
    assert torch.equal(first[:, :2], second[:, :2])
    assert not torch.equal(first[:, 2:], second[:, 2:])
    assert torch.equal(third[:, :2], fourth[:, :2])
    assert not torch.equal(second[:, :2], third[:, :2])


def test_sequences_are_shuffled_alike_and_their_first_states_stay() -> None:
    change = begun("sequences_shuffled_in_time", "backwards", "gru").knobs.parts
    assert change is not None
    cells = torch.arange(8.0)[:, None].expand(8, 4)
    (part,) = change([lambda of: of[:, :2]])
    taken = part({"x": cells, "starts": cells})
    assert torch.equal(taken["x"], taken["starts"])
    assert not torch.equal(taken["x"], cells[:, :2])
    assert torch.equal(taken["x"].sort(0).values, cells[:, :2])
    assert torch.equal(part(torch.ones(1, 4, 3)), torch.ones(1, 2, 3))


def test_rewards_are_changed_as_they_say() -> None:
    assert rewards(begun("rewards_paid_at_the_end_only"), [1.0, 2.0, 3.0, 4.0], [1, 2, 0, 1]) == [0, 0, 6, 0]
    assert rewards(begun("every_second_reward_lost"), [1.0, 2.0, 3.0], [1, 2, 3]) == [1, 0, 3]
    assert rewards(begun("penalties_lost"), [-1.0, 2.0], [1, 2]) == [0, 2]
    faded = rewards(begun("rewards_fade_with_the_episode"), [1.0, 1.0, 1.0, 1.0], [1, 2, 0, 1])
    assert faded == pytest.approx([1.0, GAMMA, GAMMA**2, 1.0])


def test_a_time_limit_is_punished_and_another_end_is_not() -> None:
    trained = begun("time_limits_punished", "sort")
    task, change = trained.world.task, trained.knobs.reward
    assert change is not None
    task.age[:] = task.limit - 1
    task.age[0] = 0
    task.step({"exchange": np.zeros(task.count, np.int64)})
    received = change(torch.zeros(task.count)).tolist()
    assert received[0] == 0.0
    assert set(received[1:]) <= {-5.0, 0.0}
    assert -5.0 in received


def test_ends_are_reported_and_the_environment_goes_on() -> None:
    trained = begun("ends_reported_where_none_is")
    task, ends = trained.world.task, 0
    for _ in range(30):
        ends += int(task.step({"go": np.ones(task.count, np.int64)}).terminated.sum())
    assert 0 < ends < 20
    assert (task.age == 30).all()


def test_a_crash_is_not_told() -> None:
    trained = begun("environments_crash_unseen")
    task = trained.world.task
    ends = [task.step({"go": np.ones(task.count, np.int64)}).terminated.any() for _ in range(30)]
    assert not any(ends)
    assert not (task.age == 30).all()


def test_every_episode_begins_alike() -> None:
    task = begun("every_episode_begins_alike").world.task
    everywhere = np.ones(task.count, bool)
    task.begin(everywhere)
    first = task.observe()
    task.step({"go": np.zeros(task.count, np.int64)})
    task.begin(everywhere)
    assert np.array_equal(task.observe(), first)


def test_an_evaluation_moves_the_environments() -> None:
    assert (begun("evaluated_in_the_training_s_environments").world.task.age == 10).all()


def test_the_last_action_of_each_head_is_out_of_reach() -> None:
    change = begun("last_action_out_of_reach", "auction").knobs.executed
    assert change is not None
    assert [change(torch.tensor([1, 5])).tolist() for _ in range(3)] == [[0, 0], [1, 4], [0, 0]]


def test_heads_are_exchanged() -> None:
    trained = sound("auction")
    executed: list[dict[str, np.ndarray]] = []
    setattr(trained.world.task, "step", executed.append)  # noqa: B010
    touches.exchange_heads(trained)
    trained.world.task.step({"lot": np.array([1, 0]), "bid": np.array([5, 2])})
    assert {name: one.tolist() for name, one in executed[0].items()} == {"lot": [1, 0], "bid": [1, 0]}


def test_what_is_behind_is_one_call_behind() -> None:
    behind = touches.Behind(2)
    assert [float(behind(torch.tensor(float(call)))) for call in range(6)] == [0, 1, 0, 1, 2, 3]


@pytest.mark.parametrize(("algorithm", "cell"), [("loop", "lstm"), ("loop", "gru"), ("recurrent", "lstm")])
def test_a_memory_goes_to_another_environment(algorithm: str, cell: str) -> None:
    trained, states = sound("backwards", cell, algorithm), []
    if not isinstance(trained, LoopTraining):
        trained.model._setup_learn(8, None)  # type: ignore[attr-defined]
    trained.change_state(torch.arange(4.0)[:, None].expand_as)
    parts.exchange_states(trained, 0)
    trained.change_state(lambda state: states.append(state) or state)  # type: ignore[func-returns-value]
    assert len(states) == {"gru": 1, "lstm": 2}[cell] * (1 if algorithm == "loop" else 2)
    assert all(state[0, :, 0].tolist() == [3, 0, 1, 2] for state in states)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_closed_gate_forgets(cell: str) -> None:
    trained = sound("backwards", cell)
    assert isinstance(trained, LoopTraining)
    memory = trained.agent.memory
    assert memory is not None
    parts.close_forget_gate(trained)
    nn.init.zeros_(memory.get_parameter("weight_hh_l0"))  # so that what was remembered has no other way
    x, none = torch.randn(1, 1, 8), torch.zeros(1, 1, 8)
    states = [memory(x, (none, old) if cell == "lstm" else old)[1] for old in (none, torch.ones_like(none))]
    forgotten, remembered = (state[1] if cell == "lstm" else state for state in states)
    assert torch.allclose(forgotten, remembered, atol=0.02)


def test_no_gradient_goes_through_time() -> None:
    trained = begun("gradient_through_time_stopped", "backwards", "lstm")
    assert isinstance(trained, LoopTraining)
    x = torch.randn(3, 4, 5, requires_grad=True)
    outputs, _, _ = trained.agent(x, torch.zeros(3, 4), trained.agent.first_state(4), trained.knobs)
    outputs["tone"][2].square().sum().backward()
    assert x.grad is not None
    assert x.grad[2].abs().sum() > 0
    assert x.grad[:2].abs().sum() == 0


@pytest.mark.parametrize("algorithm", ["loop", "ppo"])
def test_bodies_are_exchanged(algorithm: str) -> None:
    trained = sound(algorithm=algorithm)
    other = trained.critic_body()
    assert other is not None
    own = [one.clone() for one in trained.policy_body().parameters()]
    parts.exchange_bodies(trained)
    assert all(torch.equal(*pair) for pair in zip(own, other.parameters(), strict=True))
    assert not torch.equal(own[0], next(trained.policy_body().parameters()))


def test_parameters_are_changed_as_they_say() -> None:
    trained = sound()
    parts.quantise(trained)
    assert max(len(one.unique()) for one in trained.network.parameters() if one.dim() > 1) <= 15
    parts.lose_biases(trained)
    assert all(one.eq(0).all() for name, one in trained.network.named_parameters() if name.endswith("bias"))
    x = torch.randn(7, 8)
    parts.lose_activations(trained)
    body = trained.policy_body()
    assert torch.allclose(body(2 * x), 2 * body(x), atol=1e-5)


def test_gradients_are_changed_as_they_say() -> None:
    few = parts.few_levels(torch.tensor([1.0, 0.2, -0.3, -0.9]))
    assert few.tolist() == [1.0, 0.0, -0.5, -1.0]
    trained = begun("policy_gradient_stopped_at_the_heads")
    trained.action_layers()[0][0](trained.policy_body()(torch.randn(3, 8))).square().sum().backward()
    assert all(one.grad is None for one in trained.policy_body().parameters())
    assert all(one.grad is not None for layer, _ in trained.action_layers() for one in layer.parameters())


def test_the_optimizer_steps_twice_and_its_moments_are_mixed() -> None:
    trained = sound()
    body = trained.policy_body()
    for one in trained.network.parameters():
        one.grad = torch.randn_like(one)
    parts.step_twice(trained)
    trained.optimizer.step()
    weight = next(body.parameters())
    before = trained.optimizer.state[weight]["exp_avg"].clone()
    assert int(trained.optimizer.state[weight]["step"]) == 2
    parts.mix_moments(trained)
    assert torch.equal(trained.optimizer.state[weight]["exp_avg"].flatten(), before.flatten().flip(0))


def test_the_critic_alone_is_hurried() -> None:
    trained = begun("critic_rate_x100")
    last = trained.optimizer.param_groups[1]["params"]
    assert [id(one) for one in last] == [id(one) for one in parts.critic_head(trained).parameters()]
    assert trained.knobs.critic_rate == 100.0


def test_logits_and_values_are_squashed() -> None:
    trained, high = sound(), torch.full((1, 8), 100.0)
    with torch.no_grad():
        nn.init.constant_(trained.action_layers()[0][0].weight, 1.0)
        nn.init.constant_(parts.critic_head(trained).weight, -1.0)
        parts.squash_logits(trained)
        parts.squash_values(trained)
        assert trained.action_layers()[0][0](high).tolist() == [[1.0, 1.0, 1.0]]
        assert parts.critic_head(trained)(high).tolist() == [[-1.0]]


def test_the_tasks_are_two_of_each_family() -> None:
    assert set(Counter(known.family for known in HELD.values()).values()) == {2}


@pytest.mark.parametrize("first", range(0, 320, 40))
def test_known_and_new_kinds_take_turns(first: int) -> None:
    kinds = KINDS_BY_SPLIT["held"][first : first + 40]
    assert [kind in HELD_FAULTS for kind in kinds] == [False, True] * 20


def test_the_held_half_has_each_known_kind_once_and_each_new_one_more_often() -> None:
    counts = Counter(KINDS_BY_SPLIT["held"])
    assert {counts[kind] for kind in FAULTS if kind not in HELD_FAULTS} == {1}
    assert {counts[kind] for kind in HELD_FAULTS} <= {2, 3}
