"""Trainings with TorchRL's ClipPPOLoss, recorded: TorchRL's own numbers, an unchanged training, nothing left behind."""

from __future__ import annotations

import copy
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("torchrl", reason="TorchRL is not installed (extra: torchrl)")

from tensordict import TensorDict
from tensordict.nn import TensorDictModule, set_composite_lp_aggregate
from torchrl.modules import IndependentNormal, NormalParamExtractor, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import ClipPPOLoss

from esper_analyze.runs.run import RecordedRun, open_run
from recorder.adapters.torchrl import TorchRLAttachment, attach
from recorder.adapters.wrapped import Wrapped
from recorder.recorder import Recorder
from tests.recorder.adapters.torchrl_training import BATCH, FRAMES, SIZES, TorchRLTrained, actor, train

UPDATES = 4
LOGGED = {
    "policy_loss": "loss_objective",
    "entropy": "entropy",
    "clip_fraction": "clip_fraction",
    "kl_k1": "kl_approx",
    "ratio_mean": "mean_ratio",
}
CRITIC_WEIGHT = 0.5

Case = tuple[TorchRLTrained, TorchRLTrained, RecordedRun]


@pytest.fixture(scope="module", autouse=True)
def _heads_apart() -> Iterator[None]:
    logging.getLogger("torchrl").setLevel(logging.WARNING)
    with set_composite_lp_aggregate(False):
        yield


@pytest.fixture(scope="module", params=["factored", "gaussian"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Return a recorded training, its twin without the recorder, and the run."""
    factored = request.param == "factored"
    run_dir = tmp_path_factory.mktemp("runs") / request.param
    recorded = train(run_dir, factored=factored, updates=UPDATES, strict=True)
    return recorded, train(None, factored=factored, updates=UPDATES), open_run(run_dir)


@pytest.fixture(scope="module")
def factored(tmp_path_factory: pytest.TempPathFactory) -> tuple[TorchRLTrained, RecordedRun]:
    run_dir = tmp_path_factory.mktemp("runs") / "heads"
    return train(run_dir, factored=True, updates=2, strict=True), open_run(run_dir)


def test_parameters_are_bit_equal_with_and_without_recorder(case: Case) -> None:
    recorded, twin, _ = case
    theirs = list(twin.loss.parameters())
    assert theirs
    for parameter, other in zip(recorded.loss.parameters(), theirs, strict=True):
        assert torch.equal(parameter, other)


def test_numbers_that_the_loss_returns_are_recorded(case: Case) -> None:
    trained, _, run = case
    rows = run.frame("updates").to_dicts()
    assert len(rows) == UPDATES
    for row in rows:
        update = row["update"]
        for ours, theirs in LOGGED.items():
            assert row[ours] == pytest.approx(trained.mean(update, theirs), abs=1e-6), (update, ours)
        assert row["value_loss"] * CRITIC_WEIGHT == pytest.approx(trained.mean(update, "loss_critic"), rel=1e-6)
        assert row["entropy_loss"] == pytest.approx(-trained.mean(update, "entropy"), rel=1e-6)
        total = sum(trained.mean(update, name) for name in ("loss_objective", "loss_critic", "loss_entropy"))
        assert row["total_loss"] == pytest.approx(total, rel=1e-5)
        assert row["ratio_max"] == max(one["max_ratio"] for one in trained.returned[update])
        assert row["first_ratio_error"] < 1e-5
        assert (row["clip_range"], row["entropy_coef"], row["env_steps"]) == (0.1, 0.02, (update + 1) * FRAMES)
        assert row["progress"] == (update + 1) / UPDATES


def test_gradients_are_those_of_the_clip_call_and_of_the_step(case: Case) -> None:
    trained, _, run = case
    steps = run.frame("steps").to_dicts()
    assert [step["grad_norm_pre_clip"] for step in steps] == trained.norms
    assert all(step["stepped"] for step in steps)
    for step in steps:
        assert step["grad_norm_post_clip"] == pytest.approx(min(step["grad_norm_pre_clip"], 0.5), rel=1e-4)
    groups = {row["group"]: row["grad_norm"] for row in run.frame("groups").to_dicts()}
    assert {"actor", "critic", "all"} <= groups.keys()
    assert groups["actor"] == groups.get("head:action", groups["actor"])  # the only head has all that acts


def test_values_returns_and_advantages_are_those_before_the_update(case: Case) -> None:
    trained, _, run = case
    for row, data in zip(run.frame("updates").to_dicts(), trained.rollouts, strict=True):
        values, returns = data["state_value"].double(), data["value_target"].double()
        explained = 1 - (returns - values).var(correction=0) / returns.var(correction=0)
        assert row["rollout_samples"] == FRAMES
        assert row["explained_variance"] == pytest.approx(float(explained), abs=1e-6)
        assert row["advantage_mean"] == pytest.approx(float(data["advantage"].mean()), abs=1e-6)
        rewards = data["next", "reward"].double()
        statistics = (rewards.mean(), rewards.std(correction=0), rewards.min(), rewards.max())
        cells = [row[f"reward_{name}"] for name in ("mean", "std", "min", "max")]
        assert cells == pytest.approx([float(one) for one in statistics], abs=1e-12)
        ended = data["next", "done"]
        assert row["episodes_finished"] == int(ended.sum())
        assert row["episode_return_mean"] == pytest.approx(
            float(data["next", "episode_reward"][ended].mean()), rel=1e-6
        )


def test_replay_gives_the_findings_recorded_live(case: Case) -> None:
    from esper_analyze.replay.replay import differences, recorded, replay

    assert differences(replay(case[2]), recorded(case[2])) == []
    assert not len(case[2].frame("losses_of_data"))


def test_factors_of_a_composite_distribution_are_heads_of_their_own(
    factored: tuple[TorchRLTrained, RecordedRun],
) -> None:
    rows = factored[1].frame("heads").to_dicts()
    assert [(row["head"], row["kind"]) for row in rows[:2]] == [("op", "categorical"), ("slot", "categorical")]
    for update in factored[1].frame("updates").to_dicts():
        mine = [row for row in rows if row["update"] == update["update"]]
        assert sum(row["entropy"] for row in mine) == pytest.approx(update["entropy"], rel=1e-6)
        assert all(row["kl_k3"] > 0 and row["grad_norm"] is None for row in mine)  # whose parameters, nobody said


def test_masks_are_those_of_the_rollout_each_timestep_once(factored: tuple[TorchRLTrained, RecordedRun]) -> None:
    trained, run = factored
    for row in run.frame("heads").to_dicts():
        mask = trained.rollouts[row["update"]]["masks", row["head"]].reshape(FRAMES, SIZES[row["head"]])
        assert row["rollout_samples"] == FRAMES
        assert row["learnable_fraction"] == pytest.approx(float((mask.sum(-1) > 1).double().mean()))
        assert row["valid_actions_max"] == int(mask.sum(-1).max())


def test_a_continuous_head_has_no_masks(tmp_path: Path) -> None:
    train(tmp_path / "run", factored=False, updates=1, strict=True)
    (row,) = open_run(tmp_path / "run").frame("heads").to_dicts()
    assert (row["head"], row["kind"], row["valid_actions_max"]) == ("action", "gaussian", None)


def test_an_entropy_that_the_loss_draws_is_null_and_its_loss_is_not(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(4, 4), NormalParamExtractor())
    module = TensorDictModule(net, ["observation"], ["loc", "scale"])
    policy = ProbabilisticActor(module, ["loc", "scale"], distribution_class=TanhNormal, return_log_prob=True)
    with torch.no_grad():
        data = policy(TensorDict({"observation": torch.rand(8, 4)}, [8]))
    loss = ClipPPOLoss(policy, critic_coeff=0.0)
    attachment = TorchRLAttachment(loss, tmp_path / "run", strict=True)
    attachment.rollout(data)
    data["advantage"] = torch.randn(8, 1)
    returned = loss(data)
    attachment.detach("closed")
    (row,) = open_run(tmp_path / "run").frame("updates").to_dicts()
    assert (row["entropy"], row["value_loss"]) == (None, None)
    assert row["entropy_loss"] == pytest.approx(-float(returned["entropy"]))
    with torch.no_grad():
        scale = module(data.clone())["scale"]  # of the normal distribution that is squashed
    (head,) = open_run(tmp_path / "run").frame("heads").to_dicts()
    assert (head["std_min"], head["std_max"]) == (scale.min(), scale.max())
    assert (head["std_min_dimension"], head["action_bound_fraction"]) == (int(scale.min(0).values.argmin()), None)


def test_standard_deviations_are_those_of_the_loss_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stds: list[torch.Tensor] = []
    entropy = IndependentNormal.entropy

    def listening(self: Any) -> torch.Tensor:
        stds.append(self.base_dist.scale.detach().clone())
        entropies: torch.Tensor = entropy(self)
        return entropies

    monkeypatch.setattr(IndependentNormal, "entropy", listening)
    train(tmp_path / "run", factored=False, updates=2, strict=True)
    rows = open_run(tmp_path / "run").frame("heads").to_dicts()
    for row, std in zip(rows, torch.stack(stds).double().reshape(2, -1, 2), strict=True):
        assert (row["std_min"], row["std_max"]) == (std.min(), std.max())
        assert row["std_mean"] == pytest.approx(float(std.mean()), rel=1e-6)
        assert (row["std_nonpositive_fraction"], row["std_min_dimension"]) == (0.0, std.min(0).values.argmin())


def test_heads_can_be_named_with_their_modules(tmp_path: Path) -> None:
    policy = actor(factored=True)
    loss = ClipPPOLoss(policy, ValueOperator(torch.nn.Linear(4, 1), in_keys=["observation"]))
    heads = policy.module[0].module
    with attach(loss, tmp_path / "run", heads={"what": heads.op, "where": heads.slot}, strict=True) as rec:
        assert rec.heads.names == ("what", "where")
        assert {"head:what", "head:where"} <= set(rec.parameters.group_index)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="op, slot"):
        TorchRLAttachment(loss, tmp_path / "other", heads=("one",))


def test_another_loss_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="no PPO loss"):
        TorchRLAttachment(torch.nn.MSELoss(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_error_of_the_recorder_is_counted_and_the_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise ArithmeticError("out of luck")

    monkeypatch.setattr("recorder.adapters.torchrl.masks_of", broken)
    twin = train(None, factored=True, updates=2)
    trained = train(tmp_path / "run", factored=True, updates=2)
    for parameter, other in zip(trained.loss.parameters(), twin.loss.parameters(), strict=True):
        assert torch.equal(parameter, other)
    lost = open_run(tmp_path / "run").frame("losses_of_data").to_dicts()
    assert sum(row["rows"] for row in lost if "out of luck" in row["detail"]) == 2 * 2 * FRAMES // BATCH
    assert "out of luck" in caplog.text


def test_an_exception_of_the_training_passes_and_its_update_is_interrupted(tmp_path: Path) -> None:
    loss = ClipPPOLoss(actor(factored=True), ValueOperator(torch.nn.Linear(4, 1), in_keys=["observation"]))
    with pytest.raises(KeyError), attach(loss, tmp_path / "run"):
        loss(TensorDict({"observation": torch.zeros(3, 4), "advantage": torch.zeros(3, 1)}, [3]))
    closed = open_run(tmp_path / "run").attempts[-1].closed
    assert closed is not None
    assert str(closed["reason"]).startswith("KeyError")


def test_detaching_leaves_nothing_behind_and_copies_are_never_wrapped(tmp_path: Path) -> None:
    policy, value = actor(factored=True), ValueOperator(torch.nn.Linear(4, 1), in_keys=["observation"])
    loss, clip = ClipPPOLoss(policy, value), torch.nn.utils.clip_grad_norm_
    with attach(loss, tmp_path / "run", strict=True):
        assert isinstance(vars(policy)["get_dist"], Wrapped)
        for twin in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
            assert not isinstance(twin.get_dist, Wrapped)
    for owner in (loss, policy, value):
        assert not [name for name, part in vars(owner).items() if isinstance(part, Wrapped)]
    assert torch.nn.utils.clip_grad_norm_ is clip


def test_a_loop_without_a_collector_hands_its_batches_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    policy = actor(factored=False)
    loss = ClipPPOLoss(policy, ValueOperator(torch.nn.Linear(4, 1), in_keys=["observation"]), entropy_bonus=False)
    attachment = TorchRLAttachment(loss, tmp_path / "run", strict=True)
    for _ in range(2):
        with torch.no_grad():
            data = policy(TensorDict({"observation": torch.rand(8, 4)}, [8]))
        data["advantage"], data["value_target"] = torch.randn(8, 1), torch.randn(8, 1)
        attachment.rollout(attachment.rollout(data))
        loss(data)["loss_objective"].backward()
    attachment.detach("closed")
    rows = open_run(tmp_path / "run").frame("updates").to_dicts()
    assert [row["minibatches"] for row in rows] == [1, 1]
    assert all(row["entropy"] is not None and row["entropy_loss"] is None for row in rows)
    assert all(row["status"] == "no_usable_steps" for row in rows)
    assert "no rollout seen" not in caplog.text


def test_raw_advantages_are_value_targets_minus_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[dict[str, Any]] = []
    minibatch = Recorder.minibatch

    def listening(self: Recorder, **given: Any) -> None:
        passed.append(given)
        minibatch(self, **given)

    monkeypatch.setattr(Recorder, "minibatch", listening)
    train(tmp_path / "run", factored=True, updates=2, strict=True)
    assert passed
    for given in passed:
        raw = (given["returns"] - given["old_values"]).reshape(-1)
        torch.testing.assert_close(raw, given["advantages"].reshape(-1), rtol=1e-4, atol=1e-5)
    run = open_run(tmp_path / "run")
    for table in ("updates", "heads"):
        assert all(-1 <= cell <= 1 for cell in run.frame(table)["advantage_alignment"].to_list())
