"""A cell that no column is declared for is refused in tests, and counted and logged once in a training."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from esper_analyze.runs.run import open_run
from esper_analyze.storage.block import Block, Rows
from recorder import Recorder, rows
from recorder.rows import undeclared_cells
from tests.recorder.plain import Plain, ordinary

UPDATES = 3


def record(run_dir: Path, *, strict: bool) -> None:
    with Recorder(run_dir, Plain(), heads=("op",), sizes={"op": 4}, strict=strict) as rec:
        for _ in range(UPDATES):
            ordinary(rec)
            rec.update()


def test_it_is_counted_in_every_update_and_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rows, "value_cells", lambda *_: {"kl_k4": 0.5})
    with caplog.at_level(logging.ERROR, "recorder"):
        record(tmp_path / "run", strict=False)
    run = open_run(tmp_path / "run")
    losses = run.frame("losses_of_data", ["update", "kind", "detail", "rows"]).rows()
    why = "cells of updates: ValueError: not declared, so not stored: kl_k4"
    assert losses == [(update, "recorder_error", why, 1) for update in range(UPDATES)]
    assert run.frame("updates")["kl_k3"].null_count() == 0
    assert len([record for record in caplog.records if "cells of updates" in record.getMessage()]) == 1


def test_it_is_refused_where_errors_are_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "value_cells", lambda *_: {"kl_k4": 0.5})
    with pytest.raises(ValueError, match="kl_k4"):
        record(tmp_path / "run", strict=True)


def test_rows_and_blocks_are_looked_through() -> None:
    tables: dict[str, Rows] = {
        "heads": [{"update": 0, "head": "op"}, {"update": 0, "head": "op", "norm": 1.0}],
        "steps": Block(2, {"update": 0, "loss": [1.0, 2.0], "kl": 0.1}),
        "episodes": [],
    }
    assert undeclared_cells(tables) == {"heads": ["norm"], "steps": ["kl", "loss"]}
