"""Cells of a rollout at their bounds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from esper_analyze.runs.run import open_run
from recorder import Recorder


def cells(run_dir: Path, **given: Any) -> dict[str, Any]:
    with Recorder(run_dir, strict=True) as rec:
        rec.update(**given)
    (row,) = open_run(run_dir).frame("updates").to_dicts()
    return row


@pytest.mark.parametrize(
    ("spread", "low"), [(1e-4, False), (math.nextafter(1e-4, 0.0), True), (0.0, True), (2e-4, False)]
)
def test_a_variance_of_1e_8_is_not_low(spread: float, low: bool, tmp_path: Path) -> None:
    returns = torch.tensor([-spread, spread], dtype=torch.float64)
    row = cells(tmp_path / "run", values=torch.zeros(2, dtype=torch.float64), returns=returns)
    assert row["ev_low_variance"] is low
    assert row["return_variance"] == pytest.approx(spread**2, rel=1e-12)
    assert row["rollout_samples"] == 2


@pytest.mark.parametrize(("floor", "floored"), [(0.5, False), (math.nextafter(0.5, 1.0), True), (None, None)])
def test_a_spread_at_the_floor_is_not_below_it(floor: float | None, floored: bool | None, tmp_path: Path) -> None:
    advantages = torch.tensor([-0.5, 0.5], dtype=torch.float64)
    row = cells(tmp_path / "run", advantages=advantages, advantage_floor=floor)
    assert row["advantage_std_floored"] is floored
    assert row["advantage_std"] == 0.5


def test_cells_that_come_as_tensors_are_written_as_numbers(tmp_path: Path) -> None:
    row = cells(
        tmp_path / "run",
        learning_rate=torch.tensor(0.25),
        entropy_coef=torch.tensor([0.5], dtype=torch.float64),
        target_kl=0.125,
    )
    assert (row["learning_rate"], row["entropy_coef"], row["target_kl"]) == (0.25, 0.5, 0.125)
