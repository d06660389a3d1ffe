"""The updates just before an escalation have rows of ``layers``; a checkpoint carries the detector on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch import Tensor, nn

from esper_analyze.runs.run import open_run
from recorder import Recorder
from recorder.measure import gradients as measure
from recorder.pretrigger import UPDATES

SPIKE = 9


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def train(rec: Recorder, net: nn.Module, updates: range, seen: dict[int, list[dict[str, Tensor]]]) -> None:
    """Four clipped steps an update; the old log-probs of update ``SPIKE`` are off by 4 nats."""
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for update in updates:
        torch.manual_seed(update)
        for _ in range(4):
            x, action = torch.randn(16, 4), torch.randint(2, (16, 1))
            logits = net(x).log_softmax(-1)
            log_prob, entropy = logits.gather(1, action)[:, 0], -(logits.exp() * logits).sum(-1)
            old = log_prob.detach() + 1e-5 * torch.randn(16) - (4.0 if update == SPIKE else 0.0)
            loss = -(log_prob - old).exp().mean()
            rec.minibatch(log_prob=log_prob, old_log_prob=old, entropy=entropy, clip_range=0.2, loss=loss)
            optimizer.zero_grad()
            loss.backward()
            seen.setdefault(update, []).append(
                {k: p.grad.clone() for k, p in net.named_parameters() if p.grad is not None}
            )
            nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            optimizer.step()
        rec.update()


def layers(path: Path) -> pl.DataFrame:
    return open_run(path).frame("layers").sort("update", "layer")


@pytest.fixture
def rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget that samples update 0 and then none of the few that follow."""
    monkeypatch.setattr("recorder.budget.Budget.wants", lambda _self, update, *, every: every or update == 0)


@pytest.mark.usefixtures("rarely")
@pytest.mark.parametrize("small", [True, False])
def test_the_updates_before_an_escalation_have_layers_with_the_true_norms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: bool
) -> None:
    if not small:
        monkeypatch.setattr(measure, "SMALL", 0)
    net = model()
    seen: dict[int, list[dict[str, Tensor]]] = {}
    with Recorder(tmp_path / "run", net, sizes={"action": 2}, strict=True) as rec:
        train(rec, net, range(SPIKE + 3), seen)
    found = layers(tmp_path / "run")
    before = list(range(SPIKE - UPDATES + 1, SPIKE + 1))
    assert found["update"].unique(maintain_order=True).to_list() == [0, *before, SPIKE + 1, SPIKE + 2]
    kept = found.filter(pl.col("update").is_in(before))
    assert kept["weight_norm"].null_count() == kept["update_ratio"].null_count() == len(kept) == 4 * UPDATES
    for row in kept.iter_rows(named=True):
        gradient = seen[row["update"]][row["minibatch"]][row["layer"]].double()
        assert row["grad_norm"] == pytest.approx(gradient.norm().item(), rel=1e-6)
        if small:
            assert row["std"] == pytest.approx(gradient.std(correction=0).item(), rel=1e-6)
            assert (row["min"], row["max"]) == (gradient.min().item(), gradient.max().item())
        else:
            assert row["std"] is None


@pytest.mark.usefixtures("rarely")
def test_without_a_finding_nothing_is_kept_on_disk(tmp_path: Path) -> None:
    net = model()
    with Recorder(tmp_path / "run", net, sizes={"action": 2}, strict=True) as rec:
        train(rec, net, range(SPIKE), {})
    assert layers(tmp_path / "run")["update"].unique().to_list() == [0]


def findings(path: Path) -> list[dict[str, Any]]:
    frame = open_run(path).frame("findings")
    return frame.drop("rank", "seq").to_dicts()


@pytest.mark.parametrize("at", [3, SPIKE + 1, SPIKE + 4])
def test_a_checkpoint_carries_the_detector_on(tmp_path: Path, at: int) -> None:
    whole, parts = model(), model()
    with Recorder(tmp_path / "whole", whole, strict=True) as rec:
        train(rec, whole, range(SPIKE + 8), {})
    with Recorder(tmp_path / "first", parts, strict=True) as rec:
        train(rec, parts, range(at), {})
        saved = json.loads(json.dumps(rec.state_dict()))
    with Recorder(tmp_path / "second", parts, strict=True) as rec:
        rec.load_state_dict(saved)
        train(rec, parts, range(at, SPIKE + 8), {})
    told = ("update", "rule", "subject", "verdict", "previous", "reason")
    split = findings(tmp_path / "first") + findings(tmp_path / "second")
    assert [[one[name] for name in told] for one in split] == [
        [one[name] for name in told] for one in findings(tmp_path / "whole")
    ]
    (loss,) = open_run(tmp_path / "second").frame("losses_of_data").to_dicts()
    assert (loss["kind"], loss["rows"]) == ("continued", 0)
    assert "another recording" in loss["detail"]
    levels = [
        row["level"] for part in ("first", "second") for row in open_run(tmp_path / part).frame("updates").to_dicts()
    ]
    assert levels == open_run(tmp_path / "whole").frame("updates")["level"].to_list()


def test_a_state_is_taken_up_only_before_the_first_update(tmp_path: Path) -> None:
    net = model()
    with Recorder(tmp_path / "run", net, sizes={"action": 2}, strict=True) as rec:
        train(rec, net, range(1), {})
        with pytest.raises(RuntimeError, match="before the first update"):
            rec.load_state_dict(rec.state_dict())
