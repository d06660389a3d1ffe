"""Integers near 2^63 are added up and judged without wrapping."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from esper_analyze.replay.batches import numbers
from esper_analyze.replay.replay import merged_run, replay
from esper_analyze.runs.run import open_run
from esper_analyze.schema.tables import UPDATES
from esper_analyze.storage.block import Block
from esper_analyze.storage.maintenance.verify import verify
from recorder.store.run_file import create_run
from recorder.store.store import Store

LARGEST = 2**63 - 1


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    create_run(tmp_path, {"name": "counts", "level": "NORMAL"})
    store = Store(tmp_path)
    cells = {"update": np.arange(4), "status": "performed", "level": "NORMAL", "kl_k3": 0.01}
    store.put({"updates": Block(4, {**cells, "dropped_rows": np.full(4, LARGEST)})})
    store.close("closed")
    return tmp_path


def test_rows_counted_as_lost_do_not_wrap(run_dir: Path) -> None:
    (marker,) = run_dir.rglob("closed.json")
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"lost_rows": 4 * LARGEST}))
    found = verify(run_dir)
    assert [fault.rows for fault in found.faults] == [4 * LARGEST]


def test_counts_beyond_2_to_the_53_are_judged(run_dir: Path) -> None:
    judged = replay(open_run(run_dir))
    assert [(incident.rule, incident.peak) for incident in judged.incidents if incident.rule == "data_lost"] == [
        ("data_lost", 2.0**63)
    ]


@pytest.mark.parametrize("cell", [LARGEST, -(2**63), 2**53 + 1, -1, 0])
def test_the_detector_gets_the_nearest_float(cell: int) -> None:
    values, null = numbers(UPDATES, "dropped_rows", pa.chunked_array([pa.array([cell, None], pa.int64())]))
    assert values[0] == float(cell)
    assert null.tolist() == [False, True]


def test_counts_of_several_ranks_are_added_up_without_wrapping(tmp_path: Path) -> None:
    create_run(tmp_path, {"name": "counts", "level": "NORMAL", "ranks": 2})
    for rank in range(2):
        store = Store(tmp_path, rank=rank)
        cells = {"update": np.arange(3), "status": "performed", "level": "NORMAL"}
        store.put({"updates": Block(3, {**cells, "dropped_rows": np.array([LARGEST, 5, 2**62])})})
        store.close("closed")
    assert merged_run(open_run(tmp_path)).frame("updates")["dropped_rows"].to_list() == [LARGEST, 10, LARGEST]
