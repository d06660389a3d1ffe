"""The joint ratio counts the heads that matter at a sample, and no other: against closed forms in float64."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from esper_analyze.runs.run import RecordedRun, open_run
from recorder import Recorder

N = 32
RELEVANT = np.arange(N) % 4 != 0
OP = np.linspace(-0.05, 0.06, N)
"""Log-ratios of a head that always matters."""
HUGE = np.where(RELEVANT, 0.02, 40.0)
"""Log-ratios of a head that is beyond its clamp wherever it does not matter."""
JOINT = OP + np.where(RELEVANT, HUGE, 0.0)


def k3(log_ratio: Any) -> float:
    return float((np.exp(log_ratio) - 1 - log_ratio).mean())


def record(run_dir: Path, slot: Any = HUGE, relevant: Any = RELEVANT, **given: Any) -> RecordedRun:
    """Record one update of two equal minibatches; everything in float64."""
    old = {name: torch.full((N,), -1.0, dtype=torch.float64) for name in ("op", "slot")}
    new = {"op": old["op"] + torch.from_numpy(OP), "slot": old["slot"] + torch.from_numpy(np.asarray(slot))}
    matters: dict[str, Tensor] = {} if relevant is None else {"slot": torch.from_numpy(relevant)}
    with Recorder(run_dir, heads=("op", "slot"), strict=True) as rec:
        for epoch in range(2):
            rec.minibatch(
                log_prob=new, old_log_prob=old, relevant=matters or None, clip_range=0.2, epoch=epoch, **given
            )
        rec.update(relevant=matters or None)
    return open_run(run_dir)


@pytest.mark.parametrize("of_loop", [True, False], ids=["the loop's own", "summed"])
def test_a_head_beyond_its_clamp_counts_nothing_where_it_does_not_matter(tmp_path: Path, of_loop: bool) -> None:
    given = {"joint_log_ratio": torch.from_numpy(JOINT)} if of_loop else {}
    run = record(tmp_path / "run", **given)
    row = run.frame("updates").to_dicts()[0]
    close: dict[str, Any] = {"rel": 1e-9, "abs": 1e-12}
    assert row["kl_k3"] == pytest.approx(k3(JOINT), **close)
    assert row["kl_k1"] == pytest.approx(-JOINT.mean(), **close)
    assert row["ratio_max"] == pytest.approx(math.exp(JOINT.max()), **close)
    assert row["first_ratio_error"] == pytest.approx(np.abs(JOINT).max(), **close)
    assert row["clamped_fraction"] == 0.0
    slot = run.frame("heads").to_dicts()[1]
    assert slot["kl_k3"] == pytest.approx(k3(HUGE[RELEVANT]), **close)
    critical = run.frame("findings").filter(pl.col("verdict") == "critical")["rule"].to_list()
    assert critical == ["first_ratio"]  # by construction: the first minibatch has moved already
    assert run.rows["transitions"] == 0


def test_a_nonfinite_head_breaks_the_joint_only_where_it_matters(tmp_path: Path) -> None:
    row = record(tmp_path / "run", np.where(RELEVANT, 0.02, np.inf)).frame("updates").to_dicts()[0]
    assert row["ratio_nonfinite"] == 0
    assert row["kl_k3"] == pytest.approx(k3(JOINT), rel=1e-9)
    assert row["nonfinite_sources"] == f"log_prob[slot]: {2 * (~RELEVANT).sum()}"  # the number itself is still told


def test_a_head_that_met_its_clamp_counts_where_it_matters(tmp_path: Path) -> None:
    beyond = np.where(np.arange(N) < 12, 50.0, 0.0)
    row = record(tmp_path / "run", beyond).frame("updates").to_dicts()[0]
    joint = OP + np.where(RELEVANT, np.clip(beyond, -20, 20), 0.0)
    assert row["clamped_fraction"] == ((beyond > 20) & RELEVANT).mean() == 9 / 32
    assert row["kl_k3"] == pytest.approx(k3(joint), rel=1e-9)


def test_padding_never_counts_as_clamped(tmp_path: Path) -> None:
    valid = torch.arange(N) >= 12
    row = record(tmp_path / "run", np.where(np.arange(N) < 12, 50.0, 0.0), None, valid=valid)
    assert row.frame("updates")["clamped_fraction"].to_list() == [0.0]


def test_worst_samples_show_the_joint_of_the_heads_that_matter(tmp_path: Path) -> None:
    slot = np.where(RELEVANT, np.where(np.arange(N) == 5, 3.0, 0.0), 40.0)
    rows = record(tmp_path / "run", slot).frame("transitions").to_dicts()
    joint = [row for row in rows if row["head"] == ""]
    assert {row["bad"] for row in rows} == {2}  # sample 5, in either minibatch
    assert [row["log_ratio"] for row in joint[:2]] == pytest.approx([OP[5] + 3.0] * 2, rel=1e-12)
    assert joint[2]["log_ratio"] == pytest.approx(max(OP, key=abs), rel=1e-9)
    for row in joint:
        assert row["log_prob"] - row["old_log_prob"] == pytest.approx(row["log_ratio"], rel=1e-9)
