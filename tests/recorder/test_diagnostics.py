"""What only an update in trouble records: its worst samples, its broken tensors; and what wrong input costs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from esper_analyze.runs.run import RecordedRun, open_run
from recorder import Recorder
from tests.recorder.loop import Loop
from tests.recorder.plain import Plain, norm_of, ordinary


def two_heads(run_dir: Path, log_ratios: dict[str, Tensor], **given: Any) -> RecordedRun:
    """Record one update of two minibatches whose log-ratios are known."""

    def cut(cells: Any, part: slice) -> Any:
        return {head: one[part] for head, one in cells.items()} if isinstance(cells, dict) else cells[part]

    with Recorder(run_dir, heads=("op", "slot"), strict=True) as rec:
        for minibatch in range(2):
            part = slice(32 * minibatch, 32 * minibatch + 32)
            old = {name: torch.full((32,), -1.0) for name in log_ratios}
            parts: dict[str, Any] = {
                name: cut(cells, part) for name, cells in given.items() if isinstance(cells, Tensor | dict)
            }
            rec.minibatch(
                log_prob={name: old[name] + log_ratios[name][part] for name in log_ratios},
                old_log_prob=old,
                clip_range=0.2,
                epoch=minibatch,
                **parts,
            )
        rec.update()
    return open_run(run_dir)


def test_the_worst_samples_of_an_exploded_ratio_are_kept_in_order(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ratios = {"op": torch.randn(64) * 0.1, "slot": torch.randn(64) * 2}
    index, advantages = torch.arange(64) * 3, torch.randn(64)
    actions = {"op": torch.arange(64) % 4, "slot": torch.arange(64) % 3}
    run = two_heads(
        tmp_path / "run", ratios, index=index, env=index % 7, step=index // 7, advantages=advantages, actions=actions
    )
    rows = run.frame("transitions").to_dicts()
    assert {row["head"] for row in rows} == {"", "slot"}  # op stayed within its bounds
    for head, wanted in (("", ratios["op"] + ratios["slot"]), ("slot", ratios["slot"])):
        found = [row for row in rows if row["head"] == head]
        order = torch.argsort(-wanted.abs(), stable=True)
        assert [row["place"] for row in found] == list(range(64))
        assert [row["index"] for row in found] == index[order].tolist()
        assert [row["log_ratio"] for row in found] == pytest.approx(wanted[order].tolist(), abs=1e-6)
        joint = ratios["op"] + ratios["slot"]
        assert [row["joint_log_ratio"] for row in found] == pytest.approx(joint[order].tolist(), abs=1e-6)
        assert [row["advantage"] for row in found] == pytest.approx(advantages[order].tolist())
        assert [row["minibatch"] for row in found] == [row["epoch"] for row in found] == (order >= 32).long().tolist()
        bad = int(((wanted > math.log(5)) | (wanted < math.log(0.1))).sum())
        assert {row["bad"] for row in found} == {bad}
        assert {row["nonfinite"] for row in found} == {0}
        acted = [row["action"] for row in found]
        assert acted == ([None] * 64 if head == "" else actions["slot"][order].tolist())


def test_a_nan_sample_is_the_worst_of_all_and_what_was_not_given_is_null(tmp_path: Path) -> None:
    ratios = {"op": torch.zeros(64), "slot": torch.zeros(64)}
    ratios["op"][40], ratios["op"][3] = math.nan, 3.0
    rows = two_heads(tmp_path / "run", ratios).frame("transitions").to_dicts()
    first, second = [row for row in rows if row["head"] == "op"][:2]
    assert math.isnan(first["log_ratio"])
    assert (first["nonfinite"], first["minibatch"]) == (1, 1)
    assert second["log_ratio"] == pytest.approx(3.0)
    assert all(first[name] is None for name in ("index", "env", "step", "action", "advantage"))


def test_an_update_within_bounds_has_no_transitions(tmp_path: Path) -> None:
    run = two_heads(tmp_path / "run", {"op": torch.full((64,), 0.1), "slot": torch.zeros(64)})
    assert run.rows["transitions"] == 0


def test_padding_never_counts_among_the_worst(tmp_path: Path) -> None:
    ratios = {"op": torch.zeros(64), "slot": torch.zeros(64)}
    ratios["op"][5], ratios["op"][9] = 20.0, 4.0
    valid = torch.ones(64, dtype=torch.bool)
    valid[5] = False
    rows = two_heads(tmp_path / "run", ratios, valid=valid, index=torch.arange(64)).frame("transitions").to_dicts()
    assert max(abs(row["log_ratio"]) for row in rows) == pytest.approx(4.0)
    assert 5 not in {row["index"] for row in rows}


def test_a_broken_gradient_leaves_a_report_on_every_tensor(tmp_path: Path) -> None:
    loop = Loop()
    with loop.recorder(tmp_path / "run") as rec:
        for update in range(2):
            rollout = loop.rollout()
            if update == 1:
                rollout["returns"][0] = math.nan
            loop.train(rec, rollout)
            rec.update(values=rollout["values"], returns=rollout["returns"])
    run = open_run(tmp_path / "run")
    rows = run.frame("tensors").to_dicts()
    assert {row["update"] for row in rows} == {1}  # once, when it begins
    assert {row["tensor"] for row in rows} == {name for name, _ in loop.agent.named_parameters()}
    assert all(row["cause"] == "nonfinite" and row["loss_finite"] is False for row in rows)
    broken = {row["tensor"]: row for row in rows}["critic.weight"]
    assert broken["weight_nonfinite"]
    assert broken["grad_nonfinite"]
    assert math.isnan(broken["grad_abs_max"])
    counts = run.frame("updates").to_dicts()[1]
    assert counts["nan_grad_count"] > 0
    assert counts["tensors_nonfinite"] > 0


def test_a_stability_report_can_be_asked_for(tmp_path: Path) -> None:
    loop = Loop()
    with loop.recorder(tmp_path / "run") as rec:
        rollout = loop.rollout()
        loop.train(rec, rollout)
        rec.stability_report()
        rec.update()
        weights = {name: p.detach().abs().max().item() for name, p in loop.agent.named_parameters()}
    for row in open_run(tmp_path / "run").frame("tensors").to_dicts():
        assert row["cause"] == "asked"
        assert row["weight_abs_max"] == pytest.approx(weights[row["tensor"]], rel=1e-6)
        assert row["weight_nonfinite"] is False
        assert row["grad_nonfinite"] is False
        assert row["grad_norm_max"] >= row["grad_abs_max"] >= 0


def test_gradients_of_a_lost_minibatch_are_not_taken_for_the_one_before(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    wanted = []
    with Recorder(tmp_path / "run", model, heads={"op": model.op}) as rec:
        for minibatch in range(3):
            loss = model.op(torch.randn(4, 3)).square().mean()
            wrong = {"op": torch.zeros(4)} if minibatch != 1 else {"no such head": torch.zeros(4)}
            rec.minibatch(log_prob=wrong, old_log_prob={"op": torch.zeros(4)}, loss=loss)
            optimizer.zero_grad()
            loss.backward()
            wanted.append(norm_of(p.grad for p in model.parameters()))
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        rec.update()
    run = open_run(tmp_path / "run")
    assert run.frame("steps")["grad_norm_pre_clip"].to_list() == pytest.approx([wanted[0], wanted[2]], rel=1e-6)
    assert [row["rows"] for row in run.frame("losses_of_data").to_dicts()] == [1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"values": np.zeros(5), "returns": np.zeros(4)},
        {"advantages": np.zeros(0)},
        {"masks": {"action": np.ones((3, 2))}, "relevant": {"action": np.ones(4)}},
        {"lstm": (torch.zeros(2), torch.zeros(2))},
        {"status": "weird"},
        {"td_errors": "nonsense"},
    ],
)
def test_one_wrong_argument_costs_its_own_columns_and_no_row(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with Recorder(tmp_path / "run", sizes={"action": 2}) as rec:
        for update in range(4):
            ordinary(rec)
            rec.update(**(wrong if update == 1 else {}), env_steps=8 * update)
    run = open_run(tmp_path / "run")
    frame = run.frame("updates")
    assert frame["update"].to_list() == [0, 1, 2, 3]
    assert frame["minibatches"].to_list() == [1, 1, 1, 1]
    assert frame["kl_k1"].to_list() == pytest.approx([-0.1] * 4, rel=1e-5)
    assert {row["update"] for row in run.frame("losses_of_data").to_dicts()} == {1}


def test_inputs_that_come_with_some_minibatches_only_leave_the_update_its_row(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run", strict=True) as rec:
        ordinary(rec, policy_loss=torch.tensor(1.0), value_loss=2.0, values=torch.zeros(8))
        ordinary(rec, policy_loss=3.0)
        ordinary(rec, policy_loss=torch.tensor(5.0), entropy=torch.tensor([math.nan] + [0.5] * 7))
        rec.update()
    row = open_run(tmp_path / "run").frame("updates").to_dicts()[0]
    assert row["policy_loss"] == pytest.approx(3.0)
    assert row["value_loss"] is None
    assert row["entropy"] is None
    assert row["nonfinite_sources"] == "entropy[action]: 1"
    assert row["minibatches"] == 3


def test_a_minibatch_of_padding_only_is_left_out_and_not_nan(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run", strict=True) as rec:
        ordinary(rec, valid=torch.ones(8, dtype=torch.bool))
        ordinary(rec, valid=torch.zeros(8, dtype=torch.bool))
        rec.update()
        ordinary(rec, valid=torch.zeros(8, dtype=torch.bool))
        rec.update()
    run = open_run(tmp_path / "run")
    first, second = run.frame("updates").to_dicts()
    assert first["clip_fraction"] == 0.0
    assert first["kl_k3_last_epoch"] == pytest.approx(math.expm1(0.1) - 0.1, rel=1e-4)
    assert second["kl_k3"] is None
    assert second["clip_fraction"] is None
    empty = run.frame("steps").to_dicts()[1]
    assert empty["samples"] == 0
    assert [empty[name] for name in ("kl_k1", "ratio_max", "ratio_min", "clip_fraction")] == [None] * 4


def test_cells_may_be_tensors_and_losses_are_copied(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run", strict=True) as rec:
        loss = torch.tensor(4.0)
        ordinary(rec, policy_loss=loss)
        loss.div_(4)
        rec.update(entropy_coef=torch.tensor(0.25), target_kl=np.array(0.5), learning_rate=torch.tensor(0.125))
    row = open_run(tmp_path / "run").frame("updates").to_dicts()[0]
    assert (row["entropy_coef"], row["target_kl"], row["learning_rate"], row["policy_loss"]) == (0.25, 0.5, 0.125, 4.0)
