"""Policy cells: when an inferred number of actions is believed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from esper_analyze.runs.run import open_run
from recorder import Recorder
from tests.recorder.plain import Plain

MOST = math.log(4) * 1.01 + 0.01
"""Entropy of four actions, and what half precision may add: a hundredth of it and 0.01."""


@pytest.mark.parametrize(
    ("entropy", "believed"),
    [
        (MOST, True),
        (math.nextafter(MOST, 2.0), False),
        (math.log(4) * 1.005, True),
        (0.0, True),
        (-0.01, True),
        (math.nextafter(-0.01, -1.0), False),
    ],
)
@pytest.mark.parametrize("counted", [True, False])
def test_an_entropy_beyond_its_bounds_says_that_the_inferred_size_is_wrong(
    entropy: float, believed: bool, counted: bool, tmp_path: Path
) -> None:
    model = Plain(4)
    spread = torch.full((8,), 1.0, dtype=torch.float64)
    spread[3] = entropy
    valid = torch.ones(8, dtype=torch.bool)
    valid[3] = counted
    same = torch.full((8,), -1.0, dtype=torch.float64)
    with Recorder(tmp_path / "run", model, heads={"op": model.op}) as rec:
        rec.minibatch(log_prob={"op": same}, old_log_prob={"op": same}, entropy={"op": spread}, valid=valid)
        rec.update()
    (row,) = open_run(tmp_path / "run").frame("heads").to_dicts()
    if believed or not counted:
        mine = [1.0] * 7 + [entropy] * counted
        assert row["entropy_norm"] == pytest.approx(sum(mine) / len(mine) / math.log(4), rel=1e-12)
        assert row["choice_samples"] == len(mine)
    else:
        assert (row["entropy_norm"], row["choice_samples"]) == (None, None)


def test_each_head_has_its_own_ratio(tmp_path: Path) -> None:
    """Three heads whose actions all became likelier, each by another factor."""
    change = {"op": 0.1, "slot": 0.3, "style": -0.2}
    old = {name: torch.full((4,), -1.0, dtype=torch.float64) for name in change}
    model = nn.ModuleDict({name: nn.Linear(3, 4) for name in change})
    with Recorder(tmp_path / "run", model, heads=dict(model.items()), strict=True) as rec:
        rec.minibatch(log_prob={n: x + change[n] for n, x in old.items()}, old_log_prob=old, clip_range=0.2)
        rec.update()
    rows = {row["head"]: row for row in open_run(tmp_path / "run").frame("heads").to_dicts()}
    assert set(rows) == set(change)
    for name, by in change.items():
        row = rows[name]
        assert (row["ratio_max"], row["ratio_min"]) == pytest.approx((math.exp(by),) * 2, rel=1e-12)
        assert row["kl_k3"] == pytest.approx(math.exp(by) - 1 - by, rel=1e-9)
        assert row["clip_fraction"] == (1.0 if name == "slot" else 0.0)
        assert (row["samples"], row["relevant_samples"]) == (4, 4)
