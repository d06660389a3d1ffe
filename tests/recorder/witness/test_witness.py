"""Every cell is what its definition says, computed independently in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recorder import td_errors
from tests.recorder.witness.drawn import Array, DrawnTraining
from tests.recorder.witness.expected import expectations
from tests.recorder.witness.scenarios import SCENARIOS

SEEDS = range(30)


@pytest.mark.parametrize("seed", SEEDS)
def test_cells_of_a_drawn_training_are_what_they_should_be(seed: int, tmp_path: Path) -> None:
    assert [line for one in expectations(DrawnTraining(seed, tmp_path / "run")) for line in one.differences()] == []


@pytest.mark.parametrize("name", SCENARIOS)
def test_cells_of_a_scenario_are_what_they_should_be(name: str, tmp_path: Path) -> None:
    assert [line for one in SCENARIOS[name](tmp_path / "run") for line in one.differences()] == []


@pytest.mark.parametrize("seed", range(20))
def test_td_errors_are_those_of_each_step(seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps, envs, gamma = int(rng.integers(1, 6)), int(rng.integers(1, 4)), float(rng.uniform(0.5, 1))
    values, rewards = rng.normal(size=(steps, envs)), rng.normal(size=(steps, envs))
    ends, last = rng.random((steps, envs)) < 0.4, rng.normal(size=envs)
    wanted: Array = np.zeros((steps, envs))
    for t in range(steps):
        for e in range(envs):
            following = last[e] if t == steps - 1 else values[t + 1, e]
            wanted[t, e] = rewards[t, e] + (0.0 if ends[t, e] else gamma * following) - values[t, e]
    v, r, ended, v_last = (torch.from_numpy(x) for x in (values, rewards, ends, last))
    np.testing.assert_allclose(td_errors(v, r, ended, v_last, gamma).numpy(), wanted, rtol=1e-12, atol=1e-14)
