"""What only an update in trouble records: worst samples, broken tensors; and mixed precision, gates, odd loops."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from esper_analyze.runs.run import Run, open_run
from recorder import Recorder, td_errors
from recorder.budget import AT_LEAST_EVERY, Budget
from recorder.gates import Gates, lstms
from tests.recorder.loop import Loop


def two_heads(run_dir: Path, log_ratios: dict[str, Tensor], **given: Any) -> Run:
    """Record one update of two minibatches whose log-ratios are known."""

    def cut(cells: Any, part: slice) -> Any:
        return {head: one[part] for head, one in cells.items()} if isinstance(cells, dict) else cells[part]

    with Recorder(run_dir, heads=("op", "slot"), strict=True) as rec:
        for minibatch in range(2):
            part = slice(32 * minibatch, 32 * minibatch + 32)
            old = {name: torch.full((32,), -1.0) for name in log_ratios}
            rec.minibatch(
                log_prob={name: old[name] + log_ratios[name][part] for name in log_ratios},
                old_log_prob=old,
                clip_range=0.2,
                epoch=minibatch,
                **{name: cells[part] for name, cells in given.items() if isinstance(cells, Tensor)},
                **{
                    name: {head: one[part] for head, one in cells.items()}
                    for name, cells in given.items()
                    if isinstance(cells, dict)
                },
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


def norm_of(gradients: Any) -> float:
    """Return the L2 norm over gradients, in float64."""
    return math.sqrt(sum(float(one.double().square().sum()) for one in gradients if one is not None))


class Plain(nn.Module):
    """One layer, one head."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.op = nn.Linear(3, width)


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
                        parameter.grad *= 2  # type: ignore[operator]
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
    compiled = torch.compile(model, backend="eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Recorder(tmp_path / "run", compiled, heads={"op": model.op}, strict=True) as rec:
        one_step(rec, model, optimizer, compiled.op(torch.randn(4, 3)).square().mean())
        rec.update()
    run = open_run(tmp_path / "run")
    assert run.frame("layers")["layer"].to_list() == ["op.weight", "op.bias"]
    assert run.frame("groups")["tensors_without_grad"].to_list() == [0, 0, 0]


def gates_by_hand(module: nn.Module, x: Tensor, h: Tensor, c: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return the gates i, f, g, o of one step, and the states after it."""
    ending = "" if isinstance(module, nn.LSTMCell) else "_l0"
    sums = x @ getattr(module, f"weight_ih{ending}").T + getattr(module, f"bias_ih{ending}")
    sums = sums + h @ getattr(module, f"weight_hh{ending}").T + getattr(module, f"bias_hh{ending}")
    i, f, g, o = sums.chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return [i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()], o.sigmoid() * c.tanh(), c


@pytest.mark.parametrize("form", ["sequence", "batch_first", "stepwise", "cell"])
def test_gates_agree_with_the_lstm_worked_out_by_hand(form: str) -> None:
    torch.manual_seed(1)
    module: Any = nn.LSTMCell(3, 5) if form == "cell" else nn.LSTM(3, 5, batch_first=form == "batch_first")
    for parameter in module.parameters():
        parameter.data *= 8  # saturates
    x, h, c = torch.randn(6, 4, 3), torch.randn(1, 4, 5), torch.randn(1, 4, 5)
    gates = Gates(lstms(nn.ModuleList([module])))
    gates.watch()
    with torch.no_grad():
        module(torch.zeros(4, 3) if form == "cell" else torch.zeros(4, 1, 3))  # a rollout's call is not looked at
    if form == "sequence":
        module(x, (h, c))
    elif form == "batch_first":
        module(x.swapaxes(0, 1), (h, c))
    else:
        state = (h[0], c[0]) if form == "cell" else (h, c)
        for step in x:
            result = module(step, state) if form == "cell" else module(step.unsqueeze(0), state)
            state = result if form == "cell" else result[1]
    found = gates.take()
    assert found is not None
    kept: list[list[Tensor]] = []
    hidden, cell = h[0], c[0]
    for step in x:
        values, hidden, cell = gates_by_hand(module, step, hidden, cell)
        kept.append(values)
    i, f, g, o = (torch.stack([step[gate].detach() for step in kept]) for gate in range(4))
    wanted = [int(((one < 0.05) | (one > 0.95)).sum()) for one in (f, i, o)]
    assert found[:3].tolist() == wanted
    assert float(found[3]) == pytest.approx(float(g.sum()), rel=1e-4)
    assert float(found[4]) == g.numel()
    assert gates.state is not None
    assert torch.allclose(gates.state[0].reshape(4, 5), hidden, atol=1e-6)
    assert torch.allclose(gates.state[1].reshape(4, 5), cell, atol=1e-5)
    assert not module._forward_hooks


def test_td_errors_follow_the_recurrence() -> None:
    values, rewards = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[0.5], [1.0], [0.0]])
    ends = torch.tensor([[0.0], [1.0], [0.0]])
    found = td_errors(values, rewards, ends, torch.tensor([8.0]), 0.5)
    assert found.flatten().tolist() == [0.5 + 0.5 * 2 - 1, 1.0 + 0 - 2, 0 + 0.5 * 8 - 4]


def test_the_budget_thins_and_thickens() -> None:
    budget = Budget(0.02)
    sampled = 0
    for update in range(400):
        wanted = budget.wants(update, every=False)
        sampled += wanted
        budget.settle(update, elapsed=1.0, core=0.015, detail=0.02 * wanted)
    assert 80 <= sampled <= 120  # 0.005 s an update are left, one sampled update costs 0.02 s
    for update in range(400, 800):
        wanted = budget.wants(update, every=False)
        sampled += wanted
        budget.settle(update, elapsed=1.0, core=0.001, detail=0.01 * wanted)
    assert sampled > 450  # there is room for nearly all


def test_core_beyond_the_budget_leaves_rare_samples_and_recovers() -> None:
    budget = Budget(0.02)
    kept = [update for update in range(200) if _settled(budget, update, core=0.05)]
    assert kept == list(range(0, 200, AT_LEAST_EVERY))
    later = [update for update in range(200, 400) if _settled(budget, update, core=0.0)]
    assert len(later) > 100


def _settled(budget: Budget, update: int, *, core: float) -> bool:
    wanted = budget.wants(update, every=False)
    budget.settle(update, elapsed=1.0, core=core, detail=0.01 * wanted)
    return wanted


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.5, math.nan])
def test_a_budget_that_is_no_share_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="share of the time"):
        Budget(fraction)


def test_separate_backwards_give_the_angle_between_the_losses_and_change_nothing(tmp_path: Path) -> None:
    def trained(run_dir: Path | None) -> tuple[list[Tensor], list[float]]:
        torch.manual_seed(0)
        model = nn.ModuleDict({"body": nn.Linear(3, 4), "op": nn.Linear(4, 2), "v": nn.Linear(4, 1)})
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        rec = None
        if run_dir is not None:
            rec = Recorder(
                run_dir,
                model,
                heads={"op": model["op"]},
                groups={"shared": model["body"], "critic": model["v"]},
                strict=True,
                overhead_budget=None,
                separate_backward=True,
            )
        angles = []
        for _ in range(3):
            hidden = torch.tanh(model["body"](torch.randn(8, 3)))
            logits = model["op"](hidden).log_softmax(-1)
            policy, value, entropy = (
                -logits[:, 0].mean(),
                model["v"](hidden).square().mean(),
                (logits.exp() * logits).sum(-1).mean(),
            )
            loss = policy + value + 0.01 * entropy
            body = list(model["body"].parameters())
            a, b = ([g.flatten() for g in torch.autograd.grad(one, body, retain_graph=True)] for one in (policy, value))
            angles.append(float(torch.cosine_similarity(torch.cat(a), torch.cat(b), dim=0)))
            if rec is not None:
                rec.minibatch(
                    log_prob=logits[:, 0],
                    old_log_prob=logits[:, 0].detach(),
                    policy_loss=policy,
                    value_loss=value,
                    entropy_loss=entropy,
                )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            if rec is not None:
                rec.update()
        if rec is not None:
            rec.close()
        return [parameter.detach().clone() for parameter in model.parameters()], angles

    weights, angles = trained(tmp_path / "run")
    twin, _ = trained(None)
    assert all(torch.equal(a, b) for a, b in zip(weights, twin, strict=True))
    rows = open_run(tmp_path / "run").frame("groups").to_dicts()
    shared = [row["cosine_actor_critic"] for row in rows if row["group"] == "shared"]
    assert shared == pytest.approx(angles, rel=1e-4)
    assert all(
        row["cosine_actor_critic"] is None and row["entropy_grad_norm"] is None
        for row in rows
        if row["group"] == "critic"
    )
    assert all(row["entropy_grad_norm"] > 0 for row in rows if row["group"] == "shared")


class Odd(nn.LSTM):
    """An LSTM that is called in its own way."""

    def forward(self, *, x: Tensor) -> Any:  # type: ignore[override]
        return super().forward(x)


def test_an_lstm_called_by_keywords_or_oddly_never_breaks_the_forward() -> None:
    module = nn.LSTM(3, 5)
    gates = Gates(lstms(nn.ModuleList([module])))
    gates.watch()
    module(input=torch.randn(2, 1, 3), hx=(torch.zeros(1, 1, 5), torch.zeros(1, 1, 5)))
    found = gates.take()
    assert found is not None
    assert float(found[4]) == 10
    gates.watch()
    packed = nn.utils.rnn.pack_sequence([torch.randn(2, 3)])
    module(packed)
    assert gates.take() is None
    odd = Odd(3, 5)
    gates = Gates(lstms(nn.ModuleList([odd])))
    gates.watch()
    odd(x=torch.randn(2, 1, 3))
    with pytest.raises(IndexError):
        gates.take()
    assert not odd._forward_hooks


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


def ordinary(rec: Recorder, **more: Any) -> None:
    """One minibatch of one head, and whatever more."""
    rec.minibatch(log_prob=torch.full((8,), -1.0), old_log_prob=torch.full((8,), -1.1), clip_range=0.2, **more)


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
