"""A declared column whose value nothing computes independently fails the suite."""

from __future__ import annotations

import pytest

from esper_analyze.schema.column import Table
from esper_analyze.schema.tables import TABLES
from tests.recorder.witness.drawn import DrawnTraining
from tests.recorder.witness.expected import Expected, expectations
from tests.recorder.witness.scenarios import SCENARIOS


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> list[Expected]:
    """Return what the cells of some drawn trainings and of all scenarios should be."""
    folder = tmp_path_factory.mktemp("runs")
    drawn = [one for seed in range(6) for one in expectations(DrawnTraining(seed, folder / f"{seed}"))]
    return drawn + [one for name, scenario in SCENARIOS.items() for one in scenario(folder / name)]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_declared_column_has_a_value_that_is_computed_independently(table: Table, every: list[Expected]) -> None:
    witnessed = {
        name for one in every if one.table == table.name for name, cell in one.cells.items() if cell is not None
    }
    missing = [name for name in table.names if name not in witnessed]
    assert not missing, f"compute what each cell of {missing} should be in tests/recorder/witness"
