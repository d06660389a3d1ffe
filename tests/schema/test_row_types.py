"""The types of rows are those of the declared tables, and mypy refuses what does not fit them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from esper_analyze.schema import TABLES, Table, row_types
from tests.patience import PATIENCE
from tests.schema.row_types import ASSIGNED, BLOCKS, FILE, source

USE = """
from esper_analyze.schema.row_types import HeadsRow, StepsColumns

row: HeadsRow = {"head": "op", "grad_norm": None, "kl_k3": 0.5}
row["grad_norms"] = 1.0
row["grad_norm"] = "1.0"
row |= {"samples": 0.5}
steps: StepsColumns = {"update": 1, "stepped": [True, None], "loss": 0.1}
"""


def test_they_are_written_from_the_declarations() -> None:
    assert FILE.read_text(encoding="utf-8") == source(), "run python -m tests.schema.row_types"


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_row_may_leave_out_any_cell_and_has_no_other_than_the_table_s(table: Table) -> None:
    kinds = [kind for kind in (f"{prefix(table)}Row", f"{prefix(table)}Columns") if hasattr(row_types, kind)]
    assert len(kinds) == 1 + (table.name in BLOCKS)
    for kind in (getattr(row_types, name) for name in kinds):
        assert kind.__required_keys__ == frozenset()
        assert set(kind.__annotations__) == set(table.names) - set(ASSIGNED)


def prefix(table: Table) -> str:
    return "".join(word.capitalize() for word in table.name.split("_"))


def test_mypy_refuses_a_cell_that_is_not_declared_or_of_another_type(tmp_path: Path) -> None:
    pytest.importorskip(
        "mypy", reason="mypy comes with the dev extra, which the oldest dependencies are tested without"
    )
    (tmp_path / "use.py").write_text(USE)
    command = [sys.executable, "-m", "mypy", "--config-file=", "--ignore-missing-imports", "--follow-imports=silent"]
    done = subprocess.run(
        [*command, f"--cache-dir={tmp_path}", "--no-error-summary", str(tmp_path / "use.py")],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    refused = [int(line.split(":")[1]) for line in done.stdout.splitlines() if "error:" in line]
    assert refused == [5, 6, 7, 8], done.stdout + done.stderr
