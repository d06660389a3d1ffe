"""Every cell is what its definition says, computed independently in float64; a column that nothing computes fails."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from esper_analyze.schema.column import Table
from esper_analyze.schema.tables import TABLES
from tests.recorder.witness.drawn import Drawn
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
