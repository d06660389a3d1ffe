"""Standard deviations of Gaussian heads: what the framework's own distribution has, and what a loop may hand over."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from matplotlib import pyplot
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from torch.distributions import Beta, Independent, MultivariateNormal, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from esper_analyze.replay.evidence import gather
from esper_analyze.reports.sections import heads
from esper_analyze.runs.merge_ranks import merge_ranks
from esper_analyze.runs.run import open_run
from recorder import Recorder
from recorder.adapters.gaussian import bounds_of, std_of
from recorder.adapters.sb3 import attach
from tests.recorder.test_no_waiting import no_waiting
from tests.recorder.test_sb3_spaces import BOX, envs

STD = ("std_min", "std_mean", "std_max", "std_nonpositive_fraction", "std_min_dimension")
SB3: dict[str, tuple[Callable[..., Any], str, dict[str, Any]]] = {
    "one for all states": (PPO, "MlpPolicy", {}),
    "of the state, by exploration noise": (PPO, "MlpPolicy", {"use_sde": True}),
    "squashed": (PPO, "MlpPolicy", {"use_sde": True, "policy_kwargs": {"squash_output": True}}),
    "of padded sequences": (RecurrentPPO, "MlpLstmPolicy", {"batch_size": 20}),
}


def trained(case: str, run_dir: Path | None) -> tuple[Any, list[list[np.ndarray[Any, Any]]], list[float]]:
    """Return a model, the standard deviations of each minibatch by update, and the share of actions at a bound."""
    make, policy, options = SB3[case]
    torch.manual_seed(0)
    model = make(
        policy, envs(BOX)(), seed=1, device="cpu", **({"n_steps": 32, "batch_size": 16, "n_epochs": 2} | options)
    )
    seen: list[list[np.ndarray[Any, Any]]] = []
    at: list[float] = []
    train, evaluate, add = model.train, model.policy.evaluate_actions, model.rollout_buffer.add
    actions: list[np.ndarray[Any, Any]] = []

    def training() -> None:
        seen.append([])
        at.append(float((np.abs(np.stack(actions)) >= 1.0).mean()))
        actions.clear()
        train()

    def evaluated(*args: Any, **kwargs: Any) -> Any:
        result = evaluate(*args, **kwargs)
        std = model.policy.action_dist.distribution.scale.detach().numpy()
        rows = 20 if len(seen[-1]) % 4 < 3 else 4  # samples of a padded minibatch, which all have the same
        seen[-1].append(np.repeat(std[:1], rows, axis=0) if isinstance(model, RecurrentPPO) else std)
        return result

    def adding(*args: Any, **kwargs: Any) -> Any:
        actions.append(np.array(args[1]))
        return add(*args, **kwargs)

    model.train, model.policy.evaluate_actions, model.rollout_buffer.add = training, evaluated, adding
    if run_dir is None:
        model.learn(64 * 3)
    else:
        with attach(model, run_dir, strict=True):
            model.learn(64 * 3)
    return model, seen, at


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
@pytest.mark.parametrize("case", sorted(SB3))
def test_stable_baselines3_records_what_its_distribution_has_and_trains_unchanged(tmp_path: Path, case: str) -> None:
    model, seen, at_bounds = trained(case, tmp_path / "run")
    twin, _, _ = trained(case, None)
    for ours, theirs in zip(model.policy.parameters(), twin.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    rows = open_run(tmp_path / "run").frame("heads").to_dicts()
    assert len(rows) == len(seen) == 3
    for row, stds, share in zip(rows, seen, at_bounds, strict=True):
        std = np.concatenate(stds).astype(np.float64)
        assert (row["std_min"], row["std_max"]) == (std.min(), std.max())
        assert row["std_mean"] == pytest.approx(std.mean(), rel=1e-6)
        assert row["std_nonpositive_fraction"] == 0.0
        assert row["std_min_dimension"] == std.min(0).argmin()
        assert row["action_bound_fraction"] == pytest.approx(share)
    assert 0 < rows[0]["action_bound_fraction"] < 1 or case == "squashed"


def test_the_standard_deviation_is_that_before_squashing_and_none_of_other_distributions() -> None:
    scale = torch.tensor([[0.5, 2.0]])
    normal = Independent(Normal(torch.zeros(3, 2), scale.expand(3, 2)), 1)
    squashed = TransformedDistribution(normal, [TanhTransform()])
    joint = MultivariateNormal(torch.zeros(3, 2), scale_tril=torch.diag_embed(scale.expand(3, 2)))
    for distribution in (normal, squashed, joint):
        std = std_of(distribution)
        assert std is not None
        assert torch.equal(std, scale.expand(3, 2))
    assert std_of(Beta(torch.ones(3), torch.ones(3))) is None
    assert std_of(None) is None


def test_bounds_are_those_of_a_continuous_space_that_has_some() -> None:
    bounds = bounds_of(spaces.Box(np.full(2, -2, np.float32), np.array([1, np.inf], np.float32)))
    assert bounds is not None
    assert np.array_equal(np.stack(bounds), np.array([[-2, -2], [1, np.inf]]))
    assert bounds_of(spaces.Box(-np.inf, np.inf, (2,), np.float32)) is None
    assert bounds_of(spaces.Discrete(3)) is None


def recorded(run_dir: Path, *stds: Any, kinds: dict[str, str] | None = None, **rollout: Any) -> Any:
    """Return the run of one update of two samples a minibatch, each with one of ``stds``."""
    with Recorder(run_dir, kinds={"action": "gaussian"} if kinds is None else kinds, quiet=True) as rec:
        for std in stds:
            rec.minibatch(log_prob=torch.zeros(2), old_log_prob=torch.zeros(2), std=std)
        rec.update(values=[0.0, 1.0], returns=[0.0, 1.0], **rollout)
    return open_run(run_dir)


def head_row(run: Any) -> dict[str, Any]:
    (row,) = run.frame("heads").to_dicts()
    return dict(row)


@pytest.mark.parametrize(
    "std",
    [
        torch.tensor([0.5, 1.0, 1.5]),
        torch.tensor([[0.5, 1.0, 1.5]]),
        torch.tensor([[0.5, 1.0, 1.5], [0.5, 1.0, 1.5]]),
        torch.tensor([[[0.5, 1.0, 1.5]], [[0.5, 1.0, 1.5]]]),
        torch.tensor([0.5, 1.0, 1.5], dtype=torch.float16),
        [0.5, 1.0, 1.5],
        {"action": np.array([0.5, 1.0, 1.5])},
        torch.nn.Parameter(torch.tensor([0.5, 1.0, 1.5])),
    ],
    ids=lambda std: str(getattr(std, "shape", type(std).__name__)),
)
def test_a_loop_hands_over_one_for_each_sample_or_one_for_all(tmp_path: Path, std: Any) -> None:
    row = head_row(recorded(tmp_path / "run", std))
    assert [row[name] for name in STD] == [0.5, 1.0, 1.5, 0.0, 0]


def test_what_is_handed_over_is_copied(tmp_path: Path) -> None:
    std = torch.ones(2, 3)
    with Recorder(tmp_path / "run", kinds={"action": "gaussian"}, quiet=True) as rec:
        rec.minibatch(log_prob=torch.zeros(2), old_log_prob=torch.zeros(2), std=std)
        std.fill_(7.0)
        rec.update()
    assert head_row(open_run(tmp_path / "run"))["std_max"] == 1.0


def test_one_dimension_may_be_one_number_a_sample_or_one_for_all(tmp_path: Path) -> None:
    for name, std in (("by_sample", [0.5, 1.5]), ("for_all", 1.0)):
        row = head_row(recorded(tmp_path / name, std))
        assert (row["std_mean"], row["std_min_dimension"]) == (1.0, 0)


def test_zero_negative_and_nan_are_counted_and_not_lost_among_minibatches(tmp_path: Path) -> None:
    good = torch.ones(2, 2)
    row = head_row(recorded(tmp_path / "zero", good, torch.tensor([[1.0, 1.0], [1.0, 0.0]]), good))
    assert [row[name] for name in STD] == [0.0, 11 / 12, 1.0, 1 / 12, 1]
    row = head_row(recorded(tmp_path / "nan", torch.ones(2, 3), torch.tensor([1.0, math.nan, 1.0])))
    assert math.isnan(row["std_min"])
    assert math.isnan(row["std_mean"])
    assert (row["std_nonpositive_fraction"], row["std_min_dimension"]) == (pytest.approx(1 / 6), 1)


def test_an_update_whose_minibatches_lack_it_in_part_has_none(tmp_path: Path) -> None:
    row = head_row(recorded(tmp_path / "run", torch.ones(2, 2), None))
    assert [row[name] for name in STD] == [None] * 5


@pytest.mark.parametrize(
    ("std", "kinds", "words"),
    [
        (torch.ones(3, 2), None, "std of shape (3, 2) for 2 samples: pass [N, dimensions] or [dimensions]"),
        (torch.ones(2, 2, dtype=torch.int64), None, "std of torch.int64: pass standard deviations"),
        ("wide", None, "'wide' is not numbers"),
        (torch.ones(2, 2), {}, "head 'action' is categorical: pass kinds={'action': 'gaussian'} to Recorder"),
    ],
)
def test_what_cannot_be_used_is_told_once_and_costs_only_its_own_columns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, std: Any, kinds: Any, words: str
) -> None:
    run = recorded(tmp_path / "run", std, std, kinds=kinds)
    assert [head_row(run)[name] for name in STD] == [None] * 5
    assert run.frame("updates")["minibatches"].to_list() == [2]
    (lost,) = run.frame("losses_of_data").to_dicts()
    assert words in lost["detail"]
    assert sum("minibatch(std)" in record.message for record in caplog.records) == 1


def test_actions_at_bounds_are_counted_by_head_and_a_wrong_head_is_named(tmp_path: Path) -> None:
    at = torch.tensor([[True, False], [False, False]])
    assert head_row(recorded(tmp_path / "run", 1.0, at_bounds=at))["action_bound_fraction"] == 0.25
    run = recorded(tmp_path / "named", 1.0, at_bounds={"acton": at})
    assert head_row(run)["action_bound_fraction"] is None
    assert "'acton'" in run.frame("losses_of_data")["detail"][0]


def test_nothing_waits_for_the_device(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run", kinds={"action": "gaussian"}, quiet=True) as rec, no_waiting():
        for std in (torch.ones(2, 3), torch.ones(3)):
            rec.minibatch(log_prob=torch.zeros(2), old_log_prob=torch.zeros(2), std=std)
        rec._buffer.stack()
        rec._buffer.tensors()


def test_large_minibatches_are_measured_as_small_ones_are(tmp_path: Path) -> None:
    samples = (1 << 20) + 3
    std = torch.rand(samples, 2, generator=torch.Generator().manual_seed(0)) + 0.1
    with Recorder(tmp_path / "run", kinds={"action": "gaussian"}, quiet=True) as rec:
        rec.minibatch(log_prob=torch.zeros(samples), old_log_prob=torch.zeros(samples), std=std)
        rec.update()
    row = head_row(open_run(tmp_path / "run"))
    exact = std.double().numpy()
    assert (row["std_min"], row["std_max"]) == (exact.min(), exact.max())
    assert row["std_mean"] == pytest.approx(exact.mean(), rel=1e-5)


def test_ranks_are_pooled_and_the_dimension_is_that_of_the_smallest(tmp_path: Path) -> None:
    for rank, (samples, std) in enumerate(((2, [2.0, 1.0]), (6, [0.5, 1.5]), (2, [3.0, 3.0]))):
        with Recorder(tmp_path / "run", kinds={"action": "gaussian"}, rank=rank, world_size=3, quiet=True) as rec:
            rec.minibatch(log_prob=torch.zeros(samples), old_log_prob=torch.zeros(samples), std=torch.tensor(std))
            rec.update()
    row = head_row(merge_ranks(open_run(tmp_path / "run")))
    assert [row[name] for name in STD] == [0.5, pytest.approx((2 * 1.5 + 6 * 1.0 + 2 * 3.0) / 10), 3.0, 0.0, 0]


def test_the_report_tells_and_draws_the_standard_deviation(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run", kinds={"action": "gaussian"}, quiet=True) as rec:
        for update in range(30):
            std = torch.tensor([1.0, 0.0 if update >= 25 else 0.5])
            rec.minibatch(log_prob=torch.zeros(2), old_log_prob=torch.zeros(2), std=std.expand(2, 2))
            rec.update()
    data = heads.frame(gather(open_run(tmp_path / "run")))
    assert data is not None
    assert heads.words(data) == [
        "action: gradient not measured, std 0.75 → 0.5, 0 in dimension 1: its standard deviation is not positive, "
        "update 25 to the end."
    ]
    figure, axes = pyplot.subplots(1, 3)
    try:
        heads.draw(data, list(axes))
        assert axes[0].get_title() == "action: std"
    finally:
        pyplot.close(figure)
