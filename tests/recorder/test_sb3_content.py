"""What a recording of a real masked training holds."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import polars as pl
import pytest
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from esper_analyze.runs.run import RecordedRun, open_run
from recorder.adapters.sb3 import attach
from tests.recorder.environments import SIZES, MaskedEnv
from tests.recorder.trainings import TRAININGS, Recipe


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> tuple[RecordedRun, Any, list[Any]]:
    """Return a recorded masked run, its model, and the masks of every rollout."""
    training = TRAININGS["masked"]
    model = training.model()
    masks: list[Any] = []
    collected = model.rollout_buffer.compute_returns_and_advantage

    def keep(*args: Any, **kwargs: Any) -> None:
        masks.append(model.rollout_buffer.action_masks.copy())
        collected(*args, **kwargs)

    model.rollout_buffer.compute_returns_and_advantage = keep
    run_dir = tmp_path_factory.mktemp("runs") / "masked"
    with attach(model, run_dir, heads=("op", "slot", "style"), strict=True):
        model.learn(training.steps(model))
    return open_run(run_dir), model, masks


def test_learnable_fraction_counts_each_timestep_once_from_the_stored_masks(
    masked: tuple[RecordedRun, Any, list[Any]],
) -> None:
    run, _, masks = masked
    rows = run.frame("heads").to_dicts()
    for update, mask in enumerate(masks):
        parts = np.split(mask.reshape(-1, sum(SIZES)), np.cumsum(SIZES)[:-1], axis=1)
        for name, part in zip(("op", "slot", "style"), parts, strict=True):
            row = next(r for r in rows if r["update"] == update and r["head"] == name)
            valid = part.sum(axis=1)
            assert row["learnable_fraction"] == pytest.approx((valid > 1).mean(), abs=1e-12)
            assert row["single_action_fraction"] == pytest.approx((valid == 1).mean(), abs=1e-12)
            assert (row["valid_actions_min"], row["valid_actions_max"]) == (valid.min(), valid.max())


def test_a_head_without_choice_has_zero_gradient_explained_by_its_mask(
    masked: tuple[RecordedRun, Any, list[Any]],
) -> None:
    rows = [row for row in masked[0].frame("heads").to_dicts() if row["head"] == "style"]
    assert rows
    for row in rows:
        assert row["grad_norm"] == 0.0
        assert row["grad_state"] == "finite"
        assert row["zero_explained"] == "masked"
        assert row["entropy_norm"] is None
        assert row["entropy_conditional"] is None
        assert (row["ratio_max"], row["kl_k3"]) == (1.0, 0.0)


def test_a_head_with_choice_learns(masked: tuple[RecordedRun, Any, list[Any]]) -> None:
    rows = [row for row in masked[0].frame("heads").to_dicts() if row["head"] == "op"]
    for row in rows:
        assert row["grad_norm"] > 0
        assert row["zero_explained"] == "not_zero"
        assert 0 < row["entropy_norm"] <= 1 + 1e-6


def test_squares_of_actor_and_critic_add_up_to_the_whole(masked: tuple[RecordedRun, Any, list[Any]]) -> None:
    groups = {(row["update"], row["group"]): row for row in masked[0].frame("groups").to_dicts()}
    elements = {name: row["elements"] for (update, name), row in groups.items() if update == 0}
    assert elements["actor"] + elements["critic"] == elements["all"]
    assert elements["head:op"] / SIZES[0] == elements["head:slot"] / SIZES[1]
    whole = masked[0].frame("updates")["grad_norm_pre_clip"].to_list()
    for update, norm in enumerate(whole):
        assert groups[update, "all"]["grad_norm"] == pytest.approx(norm, rel=1e-5)
        assert groups[update, "actor"]["grad_norm"] <= groups[update, "all"]["grad_norm"]


def test_joint_ratio_is_the_product_of_the_heads(masked: tuple[RecordedRun, Any, list[Any]]) -> None:
    run = masked[0]
    worst = run.frame("updates")["ratio_max"].to_list()
    heads = run.frame("heads").to_dicts()
    for update, joint in enumerate(worst):
        product = math.prod(row["ratio_max"] for row in heads if row["update"] == update)
        assert joint <= product * (1 + 1e-5)


def test_every_episode_is_recorded_once(masked: tuple[RecordedRun, Any, list[Any]]) -> None:
    run, model, _ = masked
    lengths = run.frame("episodes")["length"].to_list()
    recent = [info["l"] for info in model.ep_info_buffer]
    assert recent
    assert lengths[-len(recent) :] == recent
    assert run.frame("updates")["episodes"].to_list()[-1] == len(lengths)
    assert model.num_timesteps - model.n_envs * 12 <= sum(lengths) <= model.num_timesteps


def test_an_episode_has_its_environment(masked: tuple[RecordedRun, Any, list[Any]]) -> None:
    run, model, _ = masked
    for env, monitor in enumerate(model.env.envs):
        own = run.frame("episodes").filter(pl.col("env") == env)
        assert own["length"].to_list() == monitor.get_episode_lengths()
        assert own["episode_return"].to_list() == pytest.approx(monitor.get_episode_rewards(), abs=1e-6)
    assert run.frame("episodes")["env"].null_count() == 0


class EndsWithALife(gym.Wrapper[Any, Any, Any, Any]):
    """Ends every third step, unnoticed by what is inside."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observed, reward, terminated, truncated, info = super().step(action)
        return observed, reward, terminated or self.unwrapped._age % 3 == 0, truncated, info  # type: ignore[attr-defined]


def test_episodes_whose_ends_are_not_those_of_the_environments_have_none(tmp_path: Path) -> None:
    training = TRAININGS["masked"]

    def made(seed: int) -> Callable[[], gym.Env[Any, Any]]:
        return lambda: EndsWithALife(Monitor(MaskedEnv(seed), allow_early_resets=True))

    envs = DummyVecEnv([made(seed) for seed in range(8)])
    model = training.make(training.policy, envs, seed=1, device="cpu", **training.options)
    with attach(model, tmp_path / "run", strict=True):
        model.learn(128)
    episodes = open_run(tmp_path / "run").frame("episodes")
    assert episodes.height > 0
    known = episodes.filter(pl.col("env").is_not_null())
    assert known.height < episodes.height


def test_lstm_state_is_that_at_the_end_of_collection(tmp_path: Path) -> None:
    model = TRAININGS["recurrent_padded"].run(tmp_path / "run")
    rows = open_run(tmp_path / "run").frame("lstm").to_dicts()
    row = [one for one in rows if one["phase"] == "rollout"][-1]
    states = model._last_lstm_states
    hidden = torch.cat([states.pi[0], states.vf[0]]).double()
    assert row["h_rms"] == pytest.approx(float(hidden.square().mean().sqrt()), rel=1e-12)
    assert row["h_max"] == float(hidden.abs().max())
    assert row["has_nan"] is False


def test_a_nan_reward_raises_in_training_and_leaves_a_whole_run(tmp_path: Path) -> None:
    env = DummyVecEnv([lambda: MaskedEnv(nan_reward_at=250)])
    model = MaskablePPO("MlpPolicy", env, n_steps=100, batch_size=50, n_epochs=2, seed=1, device="cpu")
    with pytest.raises(ValueError, match="invalid values"), attach(model, tmp_path / "run", strict=True):
        model.learn(1000)
    run = open_run(tmp_path / "run")
    rows = run.frame("updates").to_dicts()
    assert run.closed
    assert [row["status"] for row in rows] == ["performed", "performed", "interrupted"]
    assert rows[-1]["skip_reason"].startswith("ValueError")
    assert math.isnan(rows[-1]["policy_loss"])
    assert math.isnan(rows[-1]["explained_variance"])
    assert rows[-1]["nonfinite_minibatches"] > 0
    assert rows[1]["nonfinite_sources"] is None
    critical = {row["rule"]: row["update"] for row in run.frame("findings").to_dicts() if row["verdict"] == "critical"}
    assert critical["numerical_instability"] == 2


def test_copies_and_pickles_of_the_policy_are_their_own_while_attached(tmp_path: Path) -> None:
    training = TRAININGS["masked"]
    model = training.model()
    with attach(model, tmp_path / "run", strict=True):
        twin = copy.deepcopy(model.policy)
        again = pickle.loads(pickle.dumps(model.policy))
        for one in (twin, again):
            assert one.evaluate_actions.__self__ is one
            assert one.forward.__self__ is one
        model.learn(training.steps(model))
    assert model.policy.evaluate_actions.__self__ is model.policy


def test_a_callback_that_acts_does_not_enter_the_rollouts_log_probs(tmp_path: Path) -> None:
    class ActionsSeen(BaseCallback):
        def _on_step(self) -> bool:
            with torch.no_grad():
                self.model.policy(torch.zeros(2, 4), deterministic=True)
            return True

    found: list[list[Any]] = []
    for callback in (None, ActionsSeen()):
        training = Recipe(
            PPO, env=lambda: DummyVecEnv([MultiEnv] * 2), updates=2, options={"n_steps": 32, "batch_size": 32}
        )
        model = training.model()
        run_dir = tmp_path / str(len(found))
        with attach(model, run_dir, strict=True):
            model.learn(training.steps(model), callback=callback)
        found.append(open_run(run_dir).frame("heads")["kl_k3"].to_list())
    assert found[0] == found[1]


class MultiEnv(gym.Env[Any, Any]):
    """Noise in, two choices out."""

    observation_space = gym.spaces.Box(-1, 1, (4,))
    action_space = gym.spaces.MultiDiscrete([3, 4])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        return np.zeros(4, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        seen = self.np_random.uniform(-1, 1, 4).astype(np.float32)
        return seen, float(action[0]), bool(self.np_random.random() < 0.1), False, {}


def test_a_method_wrapped_before_stays_wrapped_after(tmp_path: Path) -> None:
    training = TRAININGS["masked"]
    model = training.model()
    mine = model.policy.evaluate_actions
    model.policy.evaluate_actions = partial(mine)
    before = model.policy.evaluate_actions
    with attach(model, tmp_path / "run", strict=True):
        model.learn(training.steps(model))
    assert model.policy.evaluate_actions is before
