"""A head's gradient norm has one producer: ``heads.grad_norm`` and ``groups.grad_norm`` of its group are one number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from esper_analyze.runs.run import RecordedRun, open_run
from esper_analyze.schema.constants import HEAD_GROUP
from esper_analyze.storage.run_info import find_runs
from tests.recorder.loop import Loop
from tests.recorder.trainings import TRAININGS

RUNS = Path(__file__).parents[2] / "sample_runs" / "runs"
ROUNDED = 1e-15
"""Runs recorded while there were two producers may differ by the rounding of one sum."""


def both(run: RecordedRun) -> tuple[pl.Series, pl.Series]:
    """Return the norms of the rows that both tables have."""
    key = ["rank", "update", "group"]
    heads = run.frame("heads", ["rank", "update", "head", "grad_norm"])
    named = heads.with_columns(group=HEAD_GROUP + pl.col("head"))
    rows = named.join(run.frame("groups", [*key, "grad_norm"]), on=key, suffix="_of_group")
    return rows["grad_norm"], rows["grad_norm_of_group"]


def loop(run_dir: Path) -> None:
    """Twelve optimizer steps an update: a finite head, one without a gradient, NaN in all of them, a frozen one."""
    loop = Loop(minibatches=4, epochs=3)
    with loop.recorder(run_dir) as rec:
        for update in range(5):
            loop.detach_head = "op" if update == 1 else None
            loop.agent.heads["slot"].requires_grad_(update != 2)
            rollout = loop.rollout()
            if update == 4:
                rollout["returns"][3] = torch.nan
            loop.train(rec, rollout)
            rec.update(values=rollout["values"], returns=rollout["returns"], masks=rollout["masks"])


def sb3(run_dir: Path) -> None:
    TRAININGS["masked"].run(run_dir)


@pytest.mark.parametrize("record", [loop, sb3])
def test_both_tables_have_it_bit_for_bit(tmp_path: Path, record: Callable[[Path], None]) -> None:
    record(tmp_path / "run")
    heads, groups = both(open_run(tmp_path / "run"))
    assert heads.drop_nulls().len() >= 5
    assert heads.equals(groups)


def test_the_loop_has_every_state_of_a_gradient(tmp_path: Path) -> None:
    loop(tmp_path / "run")
    states = open_run(tmp_path / "run").frame("heads")["grad_state"]
    assert set(states) == {"finite", "nonfinite", "missing", "frozen"}


@pytest.mark.parametrize("path", find_runs(RUNS), ids=lambda path: path.name)
def test_the_sample_runs_have_it_in_both_up_to_rounding(path: Path) -> None:
    heads, groups = both(open_run(path))
    assert heads.len() > 0
    assert heads.is_null().equals(groups.is_null())
    ours, theirs = heads.drop_nulls().to_numpy(), groups.drop_nulls().to_numpy()
    np.testing.assert_allclose(ours, theirs, rtol=ROUNDED, atol=0.0, equal_nan=True)
