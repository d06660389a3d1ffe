"""A run as rlprobe 0.1 writes it: its steps, its alarms, and what it lost itself."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from esper_analyze.errors import DamagedError, UsageError
from esper_analyze.interchange.sources import read_source
from esper_analyze.storage.maintenance.verify import verify
from tests.interchange.conftest import Taken

STEPS = [
    {"step": k, "timestamp": 1.7e9 + k, "rank": 0, "reward_mean": 0.1 * k, "kl_mean": 0.02, "lr": 1e-5,
     "value_loss": math.nan if k == 3 else 0.5, "grad_norm": 1.0, "weight_update_ratio": 1e-3, "extra.mine": 3.0,
     "value_explained_variance": None}
    for k in (0, 1, 3, 4)
]  # fmt: skip


def write(folder: Path, *, version: int = 1, parts: bool = False) -> Path:
    folder.mkdir()
    facts = {"schema_version": version, "run_id": "r", "created_at": "2026-07-01T00:00:00+00:00", "algorithm": "ppo"}
    (folder / "manifest.json").write_text(json.dumps(facts))
    if parts:  # a run that was killed, or is still written
        (folder / "steps").mkdir()
        for k in range(2):
            pq.write_table(pa.Table.from_pylist(STEPS[2 * k : 2 * k + 2]), folder / "steps" / f"part-{k:05d}.parquet")
    else:
        pq.write_table(pa.Table.from_pylist(STEPS), folder / "steps.parquet")
    events = [
        {"timestamp": 1.0, "kind": "nan_detected", "step": 3, "message": "value loss"},
        {"timestamp": 2.0, "kind": "checkpoint", "step": 3, "message": ""},
        {"timestamp": 3.0, "kind": "recorder_drops", "step": None, "message": "full", "data": {"count": 7}},
    ]
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


@pytest.mark.parametrize("parts", [False, True])
def test_steps_become_updates_and_what_is_of_something_else_is_left_out(
    taken: Taken, tmp_path: Path, parts: bool
) -> None:
    run = taken(write(tmp_path / "rlp", parts=parts))
    rows = run.frame("updates").to_dicts()
    assert [row["update"] for row in rows] == [0, 1, 3, 4]
    assert [row["grad_norm_pre_clip"] for row in rows] == [1.0] * 4
    assert math.isnan(rows[2]["value_loss"])
    assert [row["explained_variance"] for row in rows] == [None] * 4
    assert [row["kl_k3"] for row in rows] == [None] * 4
    assert "reference policy" in run.info["source"]["left_out"]["kl_mean"]
    assert run.info["source"]["left_out"]["extra.mine"]
    assert verify(run.path).damage == []


def test_its_alarms_and_its_losses_are_kept(taken: Taken, tmp_path: Path) -> None:
    run = taken(write(tmp_path / "rlp"))
    theirs = run.frame("findings").filter(rule="rlprobe:nan_detected").to_dicts()
    assert [(row["update"], row["verdict"], row["reason"]) for row in theirs] == [(3, "critical", "value loss")]
    lost = {row["kind"]: row["rows"] for row in run.frame("losses_of_data").to_dicts()}
    assert lost == {"missing_updates": 1, "recorder_drops": 7}


def test_a_newer_rlprobe_and_a_broken_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="schema 2"):
        read_source(write(tmp_path / "newer", version=2))
    broken = write(tmp_path / "broken")
    (broken / "manifest.json").write_text("{")
    with pytest.raises(DamagedError, match=r"manifest\.json"):
        read_source(broken)
