"""Whether the policy moves towards actions that were better than expected; and the rewards that the training used."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

from esper_analyze.runs.run import open_run
from recorder import Recorder
from recorder.adapters.sb3 import attach
from tests.golden.facts import GOLDEN
from tests.recorder.trainings import TRAININGS, Recipe

N = 12
OLD = {name: torch.full((N,), -1.0, dtype=torch.float64) for name in ("op", "slot")}
CHANGE = {name: torch.from_numpy(np.random.default_rng(i).normal(0, 0.2, N)) for i, name in enumerate(OLD)}
RETURNS = torch.from_numpy(np.random.default_rng(7).normal(50, 3, N))
VALUES = torch.from_numpy(np.random.default_rng(8).normal(48, 1, N))
RAW = (RETURNS - VALUES).numpy()
Array = Any


def correlation(x: Array, y: Array) -> float:
    return float(np.corrcoef(np.asarray(x, np.float64), np.asarray(y, np.float64))[0, 1])


def record(run_dir: Path, *minibatches: dict[str, Any], strict: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    """Record one update of these minibatches; return its row of ``updates``, and the heads' alignments."""
    with Recorder(run_dir, heads=("op", "slot"), sizes={"op": 3, "slot": 3}, strict=strict) as rec:
        for given in minibatches:
            new = {name: OLD[name] + CHANGE[name] for name in OLD}
            usual: dict[str, Any] = {"log_prob": new, "old_log_prob": OLD, "returns": RETURNS, "old_values": VALUES}
            rec.minibatch(**(usual | given))
        rec.update(relevant=minibatches[-1].get("relevant"))
    run = open_run(run_dir)
    heads = {row["head"]: row["advantage_alignment"] for row in run.frame("heads").to_dicts()}
    return run.frame("updates").to_dicts()[0], heads


def test_the_joint_is_the_sum_of_the_heads_and_each_head_has_its_own(tmp_path: Path) -> None:
    row, heads = record(tmp_path / "run", {})
    joint = sum(CHANGE.values(), torch.zeros(N))
    assert row["advantage_alignment"] == pytest.approx(correlation(joint, RAW), rel=1e-9)
    for name, change in CHANGE.items():
        assert heads[name] == pytest.approx(correlation(change, RAW), rel=1e-9)


def test_a_head_counts_where_it_is_relevant_and_padding_counts_nowhere(tmp_path: Path) -> None:
    relevant, valid = torch.arange(N) % 3 > 0, torch.arange(N) < 10
    row, heads = record(tmp_path / "run", {"relevant": {"slot": relevant}, "valid": valid})
    change = CHANGE["op"] + torch.where(relevant, CHANGE["slot"], 0.0)
    assert row["advantage_alignment"] == pytest.approx(correlation(change[valid], RAW[valid]), rel=1e-9)
    assert heads["op"] == pytest.approx(correlation(CHANGE["op"][valid], RAW[valid]), rel=1e-9)
    both = (relevant & valid).numpy()
    assert heads["slot"] == pytest.approx(correlation(CHANGE["slot"][both], RAW[both]), rel=1e-9)


def part(few: slice, **more: Any) -> dict[str, Any]:
    """Return a minibatch of these samples."""
    given: dict[str, Any] = {"log_prob": {name: (OLD[name] + CHANGE[name])[few] for name in OLD}}
    given |= {"old_log_prob": {name: OLD[name][few] for name in OLD}, "returns": RETURNS[few]}
    return given | {"old_values": VALUES[few]} | more


@pytest.mark.parametrize(("epochs", "counted"), [((0, 0, 1, 1), (2, 3)), ((0, 0, 0, 0), (0, 1, 2, 3))])
def test_it_is_that_of_the_last_epoch_weighted_by_samples(
    epochs: tuple[int, ...], counted: tuple[int, ...], tmp_path: Path
) -> None:
    cuts = [slice(0, 3), slice(3, 12), slice(0, 8), slice(8, 12)]
    row, heads = record(tmp_path / "run", *(part(cut, epoch=epoch) for cut, epoch in zip(cuts, epochs, strict=True)))
    change = {"": sum(CHANGE.values(), torch.zeros(N))} | CHANGE
    for name, cell in ({"": row["advantage_alignment"]} | heads).items():
        pairs = [(correlation(change[name][cuts[i]], RAW[cuts[i]]), cuts[i].stop - cuts[i].start) for i in counted]
        assert cell == pytest.approx(sum(c * n for c, n in pairs) / sum(n for _, n in pairs), rel=1e-9), name


@pytest.mark.parametrize(
    "given",
    [
        {"log_prob": OLD},
        {"log_prob": {name: old + 1e-7 * torch.arange(N) for name, old in OLD.items()}},
        {"returns": torch.full((N,), 0.1), "old_values": torch.full((N,), 0.3)},
        {"returns": None, "old_values": None},
        {"valid": torch.zeros(N, dtype=torch.bool)},
    ],
    ids=["no change", "change of float noise", "constant", "not passed", "padding alone"],
)
def test_undefined_is_null(given: dict[str, Any], tmp_path: Path) -> None:
    row, heads = record(tmp_path / "run", given)
    assert row["advantage_alignment"] is None
    assert heads == {"op": None, "slot": None}


def test_an_undefined_minibatch_does_not_count_and_nan_is_not_hidden(tmp_path: Path) -> None:
    row, _ = record(tmp_path / "sound", {"log_prob": OLD}, {})
    assert row["advantage_alignment"] == pytest.approx(correlation(sum(CHANGE.values(), torch.zeros(N)), RAW))
    broken = RETURNS.clone()
    broken[3] = math.nan
    row, heads = record(tmp_path / "broken", {"returns": broken}, {})
    assert math.isnan(row["advantage_alignment"])
    assert all(math.isnan(cell) for cell in heads.values())


def test_advantages_of_any_size_have_a_correlation(tmp_path: Path) -> None:
    for number, size in enumerate((1e-30, 1e30)):
        given = {"returns": (RETURNS - VALUES) * size, "old_values": torch.zeros(N)}
        row, _ = record(tmp_path / f"{number}", given)
        joint = sum(CHANGE.values(), torch.zeros(N))
        assert row["advantage_alignment"] == pytest.approx(correlation(joint, RAW), rel=1e-6)


@pytest.mark.parametrize(("alone", "missing"), [("returns", "old_values"), ("old_values", "returns")])
def test_one_without_the_other_is_counted_and_logged_once(
    alone: str, missing: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        row, _ = record(tmp_path / "run", {missing: None}, {missing: None}, strict=False)
    assert row["advantage_alignment"] is None
    assert row["kl_k3"] is not None
    (lost,) = open_run(tmp_path / "run").frame("losses_of_data").to_dicts()
    assert (lost["rows"], f"{alone} without {missing}" in lost["detail"]) == (2, True)
    assert caplog.text.count(f"ValueError: {alone} without {missing}") == 1


class WatchedPPO:
    """What SB3 itself samples, evaluates and collects, seen without the recorder; by update."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.updates: list[list[tuple[Any, Any]]] = []
        self.rewards: list[Array] = []
        buffer, policy = model.rollout_buffer, model.policy
        get_samples, evaluate, train = buffer._get_samples, policy.evaluate_actions, model.train

        def sampled(*args: Any, **kwargs: Any) -> Any:
            self.sample = get_samples(*args, **kwargs)
            return self.sample

        def evaluated(*args: Any, **kwargs: Any) -> Any:
            result = evaluate(*args, **kwargs)
            self.updates[-1].append((self.sample, result[1].detach()))
            return result

        def trained() -> None:
            self.updates.append([])
            self.rewards.append(buffer.rewards.copy())
            train()

        buffer._get_samples, policy.evaluate_actions, model.train = sampled, evaluated, trained

    def alignment(self, update: int) -> float:
        """Return the alignment from its definition, over the minibatches of the last epoch."""
        size, before, minibatches = self.model.n_steps * self.model.n_envs, 0, []
        for sample, log_prob in self.updates[update]:
            valid = np.asarray(getattr(sample, "mask", torch.ones_like(log_prob)), bool).ravel()
            change = (log_prob - sample.old_log_prob).numpy().ravel()[valid]
            raw = (sample.returns - sample.old_values).numpy().ravel()[valid]
            minibatches.append((before // size, change, raw))
            before += len(raw)
        last = [(change, raw) for epoch, change, raw in minibatches if epoch == minibatches[-1][0]]
        return sum(correlation(change, raw) * len(raw) for change, raw in last) / sum(len(raw) for _, raw in last)


@pytest.mark.parametrize("name", ["masked", "categorical", "gaussian_kl_stop", "recurrent_padded"])
def test_sb3_has_it_from_its_buffer_without_padding_and_the_rewards_too(name: str, tmp_path: Path) -> None:
    training = TRAININGS[name]
    model = training.model()
    watched = WatchedPPO(model)
    with attach(model, tmp_path / "run", strict=True):
        model.learn(training.steps(model))
    rows = open_run(tmp_path / "run").frame("updates").to_dicts()
    assert len(rows) == len(watched.updates) > 0
    for number, row in enumerate(rows):
        assert row["advantage_alignment"] == pytest.approx(watched.alignment(number), abs=2e-4), number
        rewards = watched.rewards[number].astype(np.float64)
        statistics = (rewards.mean(), rewards.std(), rewards.min(), rewards.max())
        cells = tuple(row[f"reward_{name}"] for name in ("mean", "std", "min", "max"))
        assert cells == pytest.approx(statistics, rel=1e-9, abs=1e-12)


def flipped(model: Any) -> None:
    """Turn the sign of the advantages that the policy loss uses."""
    compute = model.rollout_buffer.compute_returns_and_advantage

    def turned(*args: Any, **kwargs: Any) -> None:
        compute(*args, **kwargs)
        model.rollout_buffer.advantages *= -1

    model.rollout_buffer.compute_returns_and_advantage = turned


SHORT = Recipe(PPO, env=lambda: "CartPole-v1", updates=6, options={"n_steps": 128, "batch_size": 32, "n_epochs": 4})


@pytest.mark.parametrize(("fault", "sign"), [(lambda _: None, 1), (flipped, -1)], ids=["sound", "flipped"])
def test_a_flipped_advantage_is_negative_and_a_sound_one_positive(
    fault: Callable[[Any], None], sign: int, tmp_path: Path
) -> None:
    model = SHORT.model()
    fault(model)
    with attach(model, tmp_path / "run", strict=True):
        model.learn(SHORT.steps(model))
    run = open_run(tmp_path / "run")
    mean = run.frame("updates")["advantage_alignment"].mean()
    assert isinstance(mean, float)
    assert sign * mean > 0.1
    assert run.frame("heads")["advantage_alignment"].to_list() == run.frame("updates")["advantage_alignment"].to_list()


def test_one_epoch_of_one_minibatch_has_none(tmp_path: Path) -> None:
    training = Recipe(PPO, env=lambda: "Pendulum-v1", options={"n_steps": 64, "batch_size": 64, "n_epochs": 1})
    training.run(tmp_path / "run")
    assert open_run(tmp_path / "run").frame("updates")["advantage_alignment"].to_list() == [None] * 5


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2", "1.3"])
def test_runs_of_earlier_versions_have_null(version: str) -> None:
    run = open_run(GOLDEN / version / "run")
    updates = run.frame("updates")
    for column in ("advantage_alignment", "reward_mean", "reward_std", "reward_min", "reward_max"):
        assert updates[column].null_count() == len(updates) > 0
    assert run.frame("heads")["advantage_alignment"].null_count() == len(run.frame("heads")) > 0
