"""Trainings with skrl's PPO, recorded: what skrl tracks, an unchanged training, loss scales, nothing left behind."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("skrl", reason="skrl is not installed (extra: skrl)")

import skrl
from skrl.agents.torch.ppo import ppo
from skrl.models.torch import GaussianMixin
from skrl.resources.schedulers.torch import KLAdaptiveLR

from esper_analyze.runs.run import RecordedRun, open_run
from recorder.adapters.skrl import SkrlAttachment, attach
from recorder.adapters.wrapped import Wrapped
from recorder.recorder import Recorder
from tests.recorder.adapters.skrl_training import ENVS, EPOCHS, MINIBATCHES, ROLLOUTS, SkrlTrained, make, train

UPDATES, CLIP = 4, 0.5
STEPS = EPOCHS * MINIBATCHES
STRICT = {"strict": True}
Case = tuple[SkrlTrained, SkrlTrained, RecordedRun]

skrl.logger.setLevel(logging.WARNING)


def clip_norms(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the list that the norms returned by the clip call will go to."""
    seen: list[float] = []
    original = torch.nn.utils.clip_grad_norm_

    def listening(*args: Any, **kwargs: Any) -> torch.Tensor:
        total = original(*args, **kwargs)
        seen.append(float(total))
        return total

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", listening)
    return seen


def same(one: SkrlTrained, other: SkrlTrained) -> bool:
    pairs = [
        (mine, theirs)
        for name in ("policy", "value")
        for mine, theirs in zip(
            one.agent.models[name].state_dict().values(), other.agent.models[name].state_dict().values(), strict=True
        )
    ]
    return bool(pairs) and all(torch.equal(mine, theirs) for mine, theirs in pairs)


@pytest.fixture(scope="module", params=["CartPole-v1", "Pendulum-v1"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Return a recorded training, its twin without the recorder, and the run."""
    run_dir = tmp_path_factory.mktemp("runs") / request.param
    recorded = train(run_dir, request.param, updates=UPDATES, options=STRICT)
    return recorded, train(None, request.param, updates=UPDATES), open_run(run_dir)


def test_parameters_are_bit_equal_with_and_without_recorder(case: Case) -> None:
    assert same(case[0], case[1])


def test_losses_that_skrl_tracks_are_recorded_exactly(case: Case) -> None:
    trained, _, run = case
    rows = run.frame("updates").to_dicts()
    assert len(rows) == len(trained.tracked) == UPDATES
    for row, tracked in zip(rows, trained.tracked, strict=True):
        assert row["policy_loss"] == pytest.approx(tracked["Loss / Policy loss"], abs=1e-12)
        assert row["value_loss"] * 0.5 == pytest.approx(tracked["Loss / Value loss"], rel=1e-7)
        assert row["entropy_loss"] * 0.01 == pytest.approx(tracked["Loss / Entropy loss"], rel=1e-6)
        assert row["entropy"] == pytest.approx(-row["entropy_loss"], rel=1e-6)
        total = row["policy_loss"] + 0.5 * row["value_loss"] + 0.01 * row["entropy_loss"]
        assert row["total_loss"] == pytest.approx(total, abs=1e-6)
        assert (row["clip_range"], row["learning_rate"], row["entropy_coef"]) == (0.2, 0.01, 0.01)
        assert row["env_steps"] == (row["update"] + 1) * ENVS * ROLLOUTS
        assert row["progress"] == (row["update"] + 1) / UPDATES
        assert row["first_ratio_error"] < 1e-6


def test_progress_is_unknown_once_a_second_training_follows(tmp_path: Path) -> None:
    agent, trainer = make("CartPole-v1", updates=2)
    with attach(agent, tmp_path / "run", **STRICT):
        trainer.train()
        trainer.train()
    rows = open_run(tmp_path / "run").frame("updates").to_dicts()
    assert [row["progress"] for row in rows] == [0.5, 1.0, None, None]
    assert [row["env_steps"] for row in rows] == [ENVS * ROLLOUTS * (number + 1) for number in range(4)]


def test_the_kl_that_skrl_hands_to_its_scheduler_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []
    original = KLAdaptiveLR.step

    def step(self: Any, *kl: float) -> Any:
        given.extend(kl)
        return original(self, *kl)

    monkeypatch.setattr(KLAdaptiveLR, "step", step)
    train(tmp_path / "run", options=STRICT, learning_rate=1e-3, learning_rate_scheduler=KLAdaptiveLR)
    rows = open_run(tmp_path / "run").frame("updates").to_dicts()
    for row, kl in zip(rows, given[EPOCHS - 1 :: EPOCHS], strict=True):
        assert row["kl_k3_last_epoch"] == pytest.approx(kl, abs=1e-7)
    assert len({row["learning_rate"] for row in rows}) > 1


def test_gradients_are_those_of_the_clip_call_and_of_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms = clip_norms(monkeypatch)
    train(tmp_path / "run", options=STRICT)
    steps = open_run(tmp_path / "run").frame("steps").to_dicts()
    assert [step["grad_norm_pre_clip"] for step in steps] == norms
    for step in steps:
        assert step["grad_norm_post_clip"] == pytest.approx(min(step["grad_norm_pre_clip"], CLIP), rel=1e-4)


def test_values_and_returns_are_those_before_the_preprocessor(case: Case) -> None:
    for row in case[2].frame("updates").to_dicts():
        assert row["rollout_samples"] == ENVS * ROLLOUTS
        assert row["advantage_mean"] == pytest.approx(row["return_mean"] - row["value_mean"], abs=1e-4)
        assert row["bellman_error"] is not None
        assert not row["advantage_std_floored"]
    first = case[2].frame("updates").to_dicts()[0]
    assert abs(first["return_mean"]) > 2  # after it, they would be around 0


def test_raw_advantages_and_rewards_are_those_of_the_rollout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[dict[str, Any]] = []
    minibatch = Recorder.minibatch

    def listening(self: Recorder, **given: Any) -> None:
        passed.append(given)
        minibatch(self, **given)

    monkeypatch.setattr(Recorder, "minibatch", listening)
    trained = train(tmp_path / "run", options=STRICT)
    assert passed
    for given in passed:
        raw = (given["returns"] - given["old_values"]).reshape(1, -1)
        used = given["advantages"].reshape(1, -1)
        assert float(torch.corrcoef(torch.cat([raw, used]))[0, 1]) == pytest.approx(1.0, abs=1e-5)
    row = open_run(tmp_path / "run").frame("updates").to_dicts()[-1]
    assert -1 <= row["advantage_alignment"] <= 1
    rewards = trained.agent.memory.get_tensor_by_name("rewards").double()
    statistics = (rewards.mean(), rewards.std(correction=0), rewards.min(), rewards.max())
    cells = [row[f"reward_{name}"] for name in ("mean", "std", "min", "max")]
    assert cells == pytest.approx([float(one) for one in statistics], abs=1e-12)


def test_the_action_is_one_head_with_choices_when_it_is_discrete(case: Case) -> None:
    discrete = str(case[2].info["action_space"]).startswith("Discrete")
    for row in case[2].frame("heads").to_dicts():
        assert (row["head"], row["kind"]) == ("action", "categorical" if discrete else "gaussian")
        assert row["learnable_fraction"] == (1.0 if discrete else None)


def test_episodes_carry_over_from_one_update_to_the_next(case: Case) -> None:
    if case[2].info["algorithm"] == "PPO" and "Discrete" in case[2].info["action_space"]:
        episodes = case[2].frame("episodes").to_dicts()
        assert episodes
        for row in episodes:
            # CartPole pays 1 a step; to skrl, gymnasium's reset is a step of the next episode, too
            assert row["length"] - row["episode_return"] in (0, 1)
        assert sum(row["length"] for row in episodes) <= UPDATES * ENVS * ROLLOUTS
        assert {row["env"] for row in episodes} <= set(range(ENVS))


def test_replay_gives_the_findings_recorded_live(case: Case) -> None:
    from esper_analyze.replay.replay import differences, recorded, replay

    assert differences(replay(case[2]), recorded(case[2])) == []
    assert not len(case[2].frame("losses_of_data"))


def test_without_clipping_gradients_before_it_are_those_of_the_step(tmp_path: Path) -> None:
    trained = train(tmp_path / "run", updates=2, options=STRICT, grad_norm_clip=0.0)
    for step in open_run(tmp_path / "run").frame("steps").to_dicts():
        assert step["grad_norm_pre_clip"] == pytest.approx(step["grad_norm_post_clip"], rel=1e-6)
    assert same(trained, train(None, updates=2, grad_norm_clip=0.0))


def test_under_a_loss_scale_gradients_are_those_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms = clip_norms(monkeypatch)
    trained = train(tmp_path / "run", options=STRICT, mixed_precision=True)
    run = open_run(tmp_path / "run")
    assert [step["grad_norm_pre_clip"] for step in run.frame("steps").to_dicts()] == norms
    assert max(norms) < 100
    for row, tracked in zip(run.frame("updates").to_dicts(), trained.tracked, strict=True):
        assert row["loss_scale"] == 65536.0
        assert row["policy_loss"] == pytest.approx(tracked["Loss / Policy loss"], abs=1e-9)
    assert same(trained, train(None, mixed_precision=True))


def test_a_step_that_the_scaler_skips_is_no_step(tmp_path: Path) -> None:
    overflowing: dict[str, Any] = {"loss_scale": 1e38, "mixed_precision": True, "value_loss_scale": 50.0}
    trained = train(tmp_path / "run", updates=1, options=STRICT, **overflowing)
    run = open_run(tmp_path / "run")
    taken = [step["stepped"] for step in run.frame("steps").to_dicts()]
    assert taken[0] is False
    assert any(taken)
    assert run.frame("updates")["optimizer_steps"].to_list() == [sum(taken)]
    assert same(trained, train(None, updates=1, **overflowing))


def test_a_minibatch_beyond_the_kl_threshold_is_recorded_without_a_step(tmp_path: Path) -> None:
    trained = train(tmp_path / "run", updates=3, options=STRICT, kl_threshold=1e-4)
    run = open_run(tmp_path / "run")
    rows = run.frame("updates").to_dicts()
    assert "kl_stopped" in {row["status"] for row in rows}
    for step in run.frame("steps").to_dicts():
        assert step["stepped"] == (step["kl_k3"] <= 1e-4)
        assert step["policy_loss"] is not None
    assert rows[0]["target_kl"] == 1e-4
    assert same(trained, train(None, updates=3, kl_threshold=1e-4))


def test_another_agent_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="no PPO of skrl"):
        SkrlAttachment(torch.nn.Linear(1, 1), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_error_of_the_recorder_is_counted_and_the_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise ArithmeticError("out of luck")

    twin = train(None, updates=2)
    monkeypatch.setattr(SkrlAttachment, "_losses", broken)
    monkeypatch.setattr(SkrlAttachment, "_on_gae", broken)
    assert same(train(tmp_path / "run", updates=2), twin)
    lost = open_run(tmp_path / "run").frame("losses_of_data").to_dicts()
    assert sum(row["rows"] for row in lost if "out of luck" in row["detail"]) == 2 * (STEPS + 1)
    assert "out of luck" in caplog.text


def test_an_update_that_raises_is_interrupted_and_everything_is_undone(tmp_path: Path) -> None:
    agent, _ = make("CartPole-v1")
    gae, clip = ppo.compute_gae, torch.nn.utils.clip_grad_norm_
    attachment = SkrlAttachment(agent, tmp_path / "run")
    assert not isinstance(copy.deepcopy(agent.policy).act, Wrapped)
    with pytest.raises(TypeError):
        agent.update(timestep=0, timesteps=1)  # nothing was collected
    assert ppo.compute_gae is not gae
    attachment.detach("TypeError: nothing")
    assert open_run(tmp_path / "run").frame("updates")["status"].to_list() == ["interrupted"]
    assert (ppo.compute_gae, torch.nn.utils.clip_grad_norm_) == (gae, clip)
    for owner in (agent, agent.memory, agent.policy, agent.value):
        assert not [name for name, part in vars(owner).items() if isinstance(part, Wrapped)]


def test_standard_deviations_are_those_of_the_policys_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stds: list[torch.Tensor] = []
    get_entropy = GaussianMixin.get_entropy

    def listening(self: GaussianMixin, *, role: str = "") -> torch.Tensor:
        stds.append(self._g_distribution.scale.detach().clone())
        of_policy: torch.Tensor = get_entropy(self, role=role)
        return of_policy

    monkeypatch.setattr(GaussianMixin, "get_entropy", listening)
    trained = train(tmp_path / "run", "Pendulum-v1", updates=2, options=STRICT)
    assert trained.agent.policy is not None
    rows = open_run(tmp_path / "run").frame("heads").to_dicts()
    by_update = torch.stack(stds).reshape(2, -1)
    for row, std in zip(rows, by_update, strict=True):
        assert (row["std_min"], row["std_max"]) == (std.min(), std.max())
        assert row["std_mean"] == pytest.approx(float(std.double().mean()), rel=1e-6)
        assert (row["std_nonpositive_fraction"], row["std_min_dimension"]) == (0.0, 0)
        assert row["action_bound_fraction"] is not None
