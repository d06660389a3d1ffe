"""Every cell is what its definition says, computed independently in float64; a column that nothing computes fails."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from esper_analyze.schema.column import Table
from esper_analyze.schema.tables import TABLES
from recorder import td_errors
from tests.recorder.witness.drawn import Array, Drawn
from tests.recorder.witness.expected import Expected, expectations
from tests.recorder.witness.scenarios import SCENARIOS

SEEDS = range(30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drawn")


@cache
def of_seed(seed: int, folder: Path) -> list[Expected]:
    return list(expectations(Drawn(seed, folder / f"{seed}")))


@cache
def of_scenario(name: str, folder: Path) -> list[Expected]:
    return list(SCENARIOS[name](folder / name))


@pytest.mark.parametrize("seed", SEEDS)
def test_cells_of_a_drawn_training_are_what_they_should_be(seed: int, folder: Path) -> None:
    assert [line for one in of_seed(seed, folder) for line in one.differences()] == []


@pytest.mark.parametrize("name", SCENARIOS)
def test_cells_of_a_scenario_are_what_they_should_be(name: str, folder: Path) -> None:
    assert [line for one in of_scenario(name, folder) for line in one.differences()] == []


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_declared_column_has_a_value_that_is_computed_independently(table: Table, folder: Path) -> None:
    every = [one for seed in SEEDS for one in of_seed(seed, folder)]
    every += [one for name in SCENARIOS for one in of_scenario(name, folder)]
    witnessed = {
        name for one in every if one.table == table.name for name, cell in one.cells.items() if cell is not None
    }
    assert set(table.names) - witnessed == set()


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
