"""Loops of other kinds: mixed precision, accumulation, several optimizers, half precision, many tensors, compiled."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from esper_analyze.runs.run import RecordedRun, open_run
from recorder import Recorder
from tests.recorder.plain import Plain, ordinary


def one_step(rec: Recorder, model: nn.Module, optimizer: Any, loss: Tensor, **options: Any) -> None:
    zeros = torch.zeros(4)
    rec.minibatch(log_prob=zeros, old_log_prob=zeros, loss=loss, **options)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    optimizer.step()


@pytest.mark.parametrize("unscale", [True, False])
def test_mixed_precision_gradients_are_seen_unscaled_and_the_scale_is_recorded(tmp_path: Path, unscale: bool) -> None:
    torch.manual_seed(0)
    before = torch.amp.GradScaler.scale
    model = Plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    x, true = torch.randn(4, 3), []
    with Recorder(tmp_path / "run", model, heads={"op": model.op}, strict=True) as rec:
        for _ in range(3):
            loss = model.op(x).square().mean()
            true.append(
                math.sqrt(
                    sum(
                        float(g.double().square().sum())
                        for g in torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
                    )
                )
            )
            rec.minibatch(log_prob=torch.zeros(4), old_log_prob=torch.zeros(4), loss=loss)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            if unscale:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            else:
                rec.gradients()
            scaler.step(optimizer)
            scaler.update()
        rec.update()
    run = open_run(tmp_path / "run")
    row = run.frame("updates").to_dicts()[0]
    assert row["loss_scale"] == 1024.0
    assert run.frame("steps")["grad_norm_pre_clip"].to_list() == pytest.approx(true, rel=1e-5)
    assert run.frame("steps")["grad_norm_post_clip"].to_list() == pytest.approx(true, rel=1e-5)
    assert run.frame("groups")["grad_norm"].to_list() == pytest.approx([np.mean(true)] * 3, rel=1e-5)
    assert torch.amp.GradScaler.scale is before  # what was put over it is gone with the recorder


def test_a_step_that_the_scaler_skips_is_no_step(tmp_path: Path) -> None:
    model = Plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    with Recorder(tmp_path / "run", model, heads={"op": model.op}, strict=True) as rec:
        loss = model.op(torch.full((4, 3), math.inf)).sum()
        rec.minibatch(log_prob=torch.zeros(4), old_log_prob=torch.zeros(4), loss=loss)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        scaler.step(optimizer)
        scaler.update()
        rec.update()
    run = open_run(tmp_path / "run")
    assert run.frame("steps")["stepped"].to_list() == [False]
    assert run.frame("updates")["status"].to_list() == ["nonfinite_skipped"]
    assert run.frame("updates")["inf_grad_count"].to_list() == [12]


def test_gradient_accumulation_counts_one_step(tmp_path: Path) -> None:
    model = Plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Recorder(tmp_path / "run", model, heads={"op": model.op}, strict=True) as rec:
        for minibatch in range(4):
            loss = model.op(torch.randn(4, 3)).square().mean()
            rec.minibatch(log_prob=torch.zeros(4), old_log_prob=torch.zeros(4), loss=loss)
            loss.backward()
            if minibatch % 2:
                torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
                optimizer.zero_grad()
        rec.update()
    run = open_run(tmp_path / "run")
    assert run.frame("steps")["stepped"].to_list() == [False, True, False, True]
    assert run.frame("steps")["grad_norm_pre_clip"].null_count() == 2
    assert run.frame("updates")["optimizer_steps"].to_list() == [2]


def test_actor_and_critic_with_optimizers_of_their_own_are_joined(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"actor": nn.Linear(3, 2), "critic": nn.Linear(3, 1)})
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.1) for part in model.values()]
    wanted = []
    with Recorder(tmp_path / "run", model, heads={"op": model["actor"]}, strict=True, overhead_budget=None) as rec:
        for _ in range(3):
            rec.minibatch(log_prob=torch.zeros(4), old_log_prob=torch.zeros(4))
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter)
            wanted.append(
                math.sqrt(sum(float(p.grad.double().square().sum()) for p in model.parameters() if p.grad is not None))
            )
            for part, optimizer in zip(model.values(), optimizers, strict=True):
                torch.nn.utils.clip_grad_norm_(part.parameters(), 0.5)
                optimizer.step()
        rec.update()
    run = open_run(tmp_path / "run")
    assert run.frame("steps")["grad_norm_pre_clip"].to_list() == pytest.approx(wanted, rel=1e-6)
    assert run.frame("steps")["grad_norm_post_clip"].to_list() == pytest.approx([math.sqrt(0.5)] * 3, rel=1e-5)
    assert run.frame("updates")["clip_active_fraction"].to_list() == [None]  # two bounds, one joint norm
    groups = {row["group"]: row for row in run.frame("groups").to_dicts()}
    assert groups["all"]["tensors_without_grad"] == 0
    assert groups["all"]["grad_norm"] == pytest.approx(np.mean(wanted), rel=1e-6)
    assert groups["all"]["cosine_minibatches"] is not None
    assert run.rows["layers"] == 4


def test_half_precision_norms_do_not_overflow(tmp_path: Path) -> None:
    model = Plain(64).half()
    with Recorder(tmp_path / "run", model, heads={"op": model.op}, strict=True) as rec:
        rec.minibatch(log_prob=torch.zeros(4), old_log_prob=torch.zeros(4))
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 6e4)
        rec.gradients(0.5)
        rec.update()
    row = open_run(tmp_path / "run").frame("groups").to_dicts()[-1]
    assert row["grad_norm"] == pytest.approx(6e4 * math.sqrt(64 * 3 + 64), rel=1e-3)
    assert row["exploding_severity"] == 1.0
    assert row["health"] == pytest.approx(0.2)


@pytest.mark.parametrize("size", [1e20, 1e-30])
def test_gradients_beyond_float32_squares_stay_what_they_are(tmp_path: Path, size: float) -> None:
    for name, width in (("small", 4), ("large", 30_000)):
        model = Plain(width)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        with Recorder(tmp_path / name, model, heads={"op": model.op}, strict=True) as rec:
            rec.minibatch(log_prob=torch.zeros(4), old_log_prob=torch.zeros(4))
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, size)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            rec.update()
        row = open_run(tmp_path / name).frame("groups").to_dicts()[-1]
        assert row["grad_norm"] == pytest.approx(size * math.sqrt(4 * width), rel=1e-5)
        assert row["min_tensor_norm"] == pytest.approx(size * math.sqrt(width), rel=1e-5)


def test_the_clip_with_shared_norms_changes_gradients_as_torch_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    for width in (4, 30_000):
        model, twin = Plain(width), Plain(width)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        rec = Recorder(tmp_path / str(width), model, heads={"op": model.op}, strict=True)
        own = torch.nn.utils.clip_grad_norm_
        for scale in (1e-30, 1e-3, 1.0, 1e3, 1e20, math.inf, math.nan, 0.0):
            rec.minibatch(log_prob=torch.zeros(4), old_log_prob=torch.zeros(4))
            for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
                mine.grad = torch.randn_like(mine) * scale
                theirs.grad = mine.grad.clone()
            total = own(model.parameters(), 0.5)
            wanted = own(list(twin.parameters()), 0.5)  # not the model's: torch's own work
            assert torch.equal(total, wanted) or (total.isnan() and wanted.isnan())
            for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
                assert mine.grad is not None
                assert theirs.grad is not None
                assert mine.grad.numpy().tobytes() == theirs.grad.numpy().tobytes()
            optimizer.step()
        rec.close()


def test_gradients_changed_after_the_clip_are_noticed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    seen: list[float] = []
    with Recorder(tmp_path / "run", model, heads={"op": model.op}, strict=True) as rec:
        for update in range(6):
            for _ in range(3):
                loss = model.op(torch.randn(4, 3)).square().mean()
                rec.minibatch(log_prob=torch.zeros(4), old_log_prob=torch.zeros(4), loss=loss)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                if update >= 3:  # somebody begins to double what was clipped
                    for parameter in model.parameters():
                        assert parameter.grad is not None
                        parameter.grad *= 2
                seen.append(
                    math.sqrt(
                        sum(float(p.grad.double().square().sum()) for p in model.parameters() if p.grad is not None)
                    )
                )
                optimizer.step()
            rec.update()
    found = open_run(tmp_path / "run").frame("steps")["grad_norm_post_clip"].to_list()
    assert found[:10] == pytest.approx(seen[:10], rel=1e-5)  # the first step of an update is always measured
    assert found[12:] == pytest.approx(seen[12:], rel=1e-5)  # from the next update on every step is again


def test_two_thousand_tensors_and_a_hundred_heads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = nn.ModuleDict({f"head_{place}": nn.Linear(2, 2) for place in range(100)})
    model = nn.ModuleDict({"heads": layers, "rest": nn.ModuleList([nn.Linear(1, 1) for _ in range(900)])})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    names = list(layers)
    with Recorder(tmp_path / "run", model, heads={name: layers[name] for name in names}, strict=True) as rec:
        for _ in range(2):
            old = {name: torch.zeros(8) for name in names}
            rec.minibatch(log_prob={name: torch.full((8,), 0.01) for name in names}, old_log_prob=old, entropy=old)
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            rec.update()
    run = open_run(tmp_path / "run")
    assert run.rows["heads"] == 200
    assert run.rows["layers"] == 2 * 2000
    assert run.frame("heads")["grad_norm"].to_list() == pytest.approx([math.sqrt(6)] * 200, rel=1e-6)
    assert run.frame("updates")["ratio_max"].to_list() == pytest.approx([math.exp(1.0)] * 2, rel=1e-5)


def test_a_compiled_model_is_recorded_under_its_own_names(tmp_path: Path) -> None:
    model = Plain()
    compiled = cast("Plain", torch.compile(model, backend="eager"))  # a module that has the attributes of the model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Recorder(tmp_path / "run", compiled, heads={"op": model.op}, strict=True) as rec:
        one_step(rec, model, optimizer, compiled.op(torch.randn(4, 3)).square().mean())
        rec.update()
    torch.distributions.Distribution.set_default_validate_args(True)  # compiling switches it off for everybody
    run = open_run(tmp_path / "run")
    assert run.frame("layers")["layer"].to_list() == ["op.weight", "op.bias"]
    assert run.frame("groups")["tensors_without_grad"].to_list() == [0, 0, 0]


def test_a_head_thawed_in_mid_training_is_no_longer_called_frozen(tmp_path: Path) -> None:
    model = Plain()
    for parameter in model.parameters():
        parameter.requires_grad = False
    with Recorder(tmp_path / "run", model, heads={"op": model.op}, strict=True) as rec:
        for update in range(2):
            if update:
                for parameter in model.parameters():
                    parameter.requires_grad = True
                    parameter.grad = torch.ones_like(parameter)
            ordinary(rec)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            rec.update()
    assert open_run(tmp_path / "run").frame("heads")["grad_state"].to_list() == ["frozen", "finite"]


def accumulated(run_dir: Path, *, every: int, updates: int = 6, minibatches: int = 4) -> RecordedRun:
    """Record a policy of which an optimizer step is taken after each ``every`` minibatches; actions never change."""
    torch.manual_seed(0)
    model = Plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    x = torch.randn(8, 3)
    with Recorder(run_dir, model, heads={"op": model.op}, strict=True, overhead_budget=None) as rec:
        for _ in range(updates):
            old = model.op(x).log_softmax(-1)[:, 0].detach()
            for minibatch in range(minibatches):
                new = model.op(x).log_softmax(-1)[:, 0]
                loss = -new.mean() / every
                rec.minibatch(log_prob=new, old_log_prob=old, clip_range=0.2, loss=loss, entropy=-new, epoch=minibatch)
                loss.backward()
                if minibatch % every == every - 1:
                    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                    optimizer.step()
                    optimizer.zero_grad()
            rec.update()
    return open_run(run_dir)


def test_minibatches_before_the_first_optimizer_step_say_nothing_about_the_policy(tmp_path: Path) -> None:
    one_step = accumulated(tmp_path / "one", every=4)
    assert one_step.frame("updates")["kl_k3"].to_list() == [0.0] * 6  # by construction
    assert one_step.frame("updates")["inner_loop_measurable"].to_list() == [False] * 6
    findings = one_step.frame("findings").to_dicts()
    judged = {row["rule"]: row["verdict"] for row in findings if row["metric"] in ("kl_k3", "ratio_min", "ratio_max")}
    assert set(judged.values()) == {"not_applicable"}
    assert not [row for row in findings if row["verdict"] in ("warning", "critical")]
    two_steps = accumulated(tmp_path / "two", every=2)
    assert two_steps.frame("updates")["inner_loop_measurable"].to_list() == [True] * 6
    assert min(two_steps.frame("updates")["kl_k3"].to_list()) > 0.0


def test_where_steps_cannot_be_seen_minibatches_are_counted(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run", heads=("op",), strict=True) as rec:
        for minibatches in (1, 2):
            for _ in range(minibatches):
                ordinary(rec)
            rec.update()
    assert open_run(tmp_path / "run").frame("updates")["inner_loop_measurable"].to_list() == [False, True]


def test_the_noise_scale_counts_the_samples_of_all_minibatches_behind_a_step(tmp_path: Path) -> None:
    """Gradients of 2 minibatches of 8 samples are means over 16; closed form by the two-batch estimator."""
    torch.manual_seed(0)
    model, gradients = Plain(), []
    with Recorder(tmp_path / "run", model, heads={"op": model.op}, strict=True, overhead_budget=None) as rec:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        for minibatch in range(8):
            ordinary(rec)
            if minibatch % 2:
                for parameter in model.parameters():
                    parameter.grad = 1.0 + 0.1 * torch.randn_like(parameter)
                gradients.append(np.concatenate([p.grad.numpy().ravel() for p in model.parameters()]))  # type: ignore[union-attr]
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9)
                optimizer.step()
        rec.update()
    all_of = np.array(gradients, np.float64)
    small, big = np.square(all_of).sum(1).mean(), np.square(all_of.mean(0)).sum()
    signal = (4 * big - small) / 3
    wanted = (small - big) / (1 / 16 - 1 / 64) / signal
    rows = {row["group"]: row for row in open_run(tmp_path / "run").frame("groups").to_dicts()}
    assert rows["all"]["noise_scale"] == pytest.approx(wanted, rel=1e-4)
