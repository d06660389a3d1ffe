"""What sampled updates look at besides gradients: gates, losses apart; and how the budget spaces them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from esper_analyze.runs.run import open_run
from recorder import Recorder, td_errors
from recorder.budget import AT_LEAST_EVERY, Budget
from recorder.gates import Gates, lstms


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


def test_td_errors_follow_the_recurrence() -> None:
    values, rewards = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[0.5], [1.0], [0.0]])
    ends = torch.tensor([[0.0], [1.0], [0.0]])
    found = td_errors(values, rewards, ends, torch.tensor([8.0]), 0.5)
    assert found.flatten().tolist() == [0.5 + 0.5 * 2 - 1, 1.0 + 0 - 2, 0 + 0.5 * 8 - 4]
