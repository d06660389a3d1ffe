"""Gradient norms of heads that share one output layer, with a scaled loss, against the gradients themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from esper_analyze.runs.run import open_run
from recorder import Recorder
from recorder.capture.parameters import ParameterRows

SIZES = {"op": 4, "slot": 2, "style": 3}


def heads_of(layer: nn.Linear) -> dict[str, Any]:
    parts, start = {}, 0
    for name, size in SIZES.items():
        parts[name] = [ParameterRows(p, start, start + size) for p in layer.parameters()]
        start += size
    return parts


@pytest.mark.parametrize("clip", ["before unscaling", "after unscaling"])
@pytest.mark.parametrize("scale", [1.0, 1024.0])
@pytest.mark.parametrize("wide", [False, True])
def test_norms_of_rows_are_those_without_the_scale(clip: str, scale: float, wide: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 600 if wide else 5), nn.Linear(600 if wide else 5, sum(SIZES.values())))
    layer = model[1]
    assert isinstance(layer, nn.Linear)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
    wanted: list[np.ndarray[Any, Any]] = []
    with Recorder(tmp_path / "run", model, heads=heads_of(layer)) as rec:
        for _ in range(2):
            new, old = ({n: torch.full((8,), -1.0) for n in SIZES} for _ in range(2))
            rec.minibatch(log_prob=new, old_log_prob=old)
            optimizer.zero_grad()
            loss = model(torch.randn(7, 3)).pow(2).sum()
            scaler.scale(loss).backward()
            assert layer.weight.grad is not None
            assert layer.bias.grad is not None
            wanted.append(torch.cat([layer.weight.grad, layer.bias.grad[:, None]], dim=1).double().numpy() / scale)
            if clip == "after unscaling":
                scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9)
            scaler.step(optimizer)
            scaler.update()
        rec.update()
    rows = {row["head"]: row for row in open_run(tmp_path / "run").frame("heads").to_dicts()}
    start = 0
    for name, size in SIZES.items():
        mine = [float(np.linalg.norm(one[start : start + size])) for one in wanted]
        start += size
        assert rows[name]["grad_norm"] == pytest.approx(np.mean(mine), rel=1e-5), name
