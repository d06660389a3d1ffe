"""The short version of the fault matrix: every fault is done, and every figure reached that needs no quiet machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.matrix import MATRIX
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[2]
MEASURED = {"32", "35", "39", "50"}
"""Rows whose figure is a time or a size in memory: they are for a quiet machine, by hand."""
ROWS = [numbers.split("+")[0] for numbers, _, _ in MATRIX if numbers not in MEASURED]


@pytest.mark.slow
@pytest.mark.clock
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="harm is done by Linux's means")
def test_no_fault_loses_a_finished_update_or_harms_a_training(tmp_path: Path) -> None:
    found = tmp_path / "figures.json"
    line = [sys.executable, "-m", "tests.faults", "--json", str(found), "--only", *ROWS]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=6 * PATIENCE, check=False)
    rows = json.loads(found.read_text())["rows"] if found.exists() else []
    failed = {row["fault"]: row["what_was_seen"] for row in rows if row["verdict"] == "FAILED"}
    assert not failed
    assert done.returncode == 0, done.stderr
    assert len(rows) == len(ROWS)
    assert all(row["trials"] > 0 for row in rows if row["verdict"] == "met")
