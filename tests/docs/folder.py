"""The folder in which the documentation's commands run: a clone's samples, and a user's own runs and logs."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from esper_analyze.storage.layout import FAULT_FILE
from recorder.online_detector import OnlineDetector
from recorder.store.run_file import create_run
from recorder.store.store import Store
from tests.docs.blocks import BLOCKS, ROOT
from tests.interchange.consoles import sb3_table
from tests.interchange.logs import sb3_rows, write_csv
from tests.patience import PATIENCE
from tests.reports.synthetic import quiet

SAMPLES = ROOT / "sample_runs" / "runs"


def fill(folder: Path) -> None:
    """Make what the documents name: ``sample_runs``, ``runs/first``, ``runs/second``, ``runs/killed``, ``logs`` …"""
    (folder / "sample_runs").symlink_to(ROOT / "sample_runs")
    (folder / "runs").mkdir()
    for name, sample in (("first", "one_update_collapse"), ("second", "masked_healthy")):
        shutil.copytree(SAMPLES / sample, folder / "runs" / name)
    write_killed(folder / "runs" / "killed")
    (labels,) = (block.code for block in BLOCKS if block.marks.get("example") == "labels of many")
    (folder / "labels-of-runs.toml").write_text(labels)
    (folder / "logs").mkdir()
    rows = [row for _, row in sb3_rows(6)]
    write_csv(folder / "logs" / "progress.csv", rows)
    (folder / "logs" / "console.txt").write_text("\n".join(map(sb3_table, rows)))


def write_killed(run_dir: Path) -> None:
    """Write a run of 22 updates: two shards a table, a log cut within a frame, one bit of a shard flipped."""
    with TemporaryDirectory() as elsewhere:
        origin = Path(elsewhere) / run_dir.name
        live = OnlineDetector(None, "NORMAL")
        create_run(origin, {"name": run_dir.name, "heads": {"slot": 4, "op": 5}, "groups": ["actor", "critic"]})
        store = Store(origin)
        noise = np.random.default_rng(7)
        for update in range(23):
            store.put(live.judge(update, quiet(update, 30, noise)).rows)
            store.settle(PATIENCE)  # a frame of the log for each update
            if update in (7, 15):
                store.flush()
        shutil.copytree(origin, run_dir)  # what a training that is killed now leaves behind
        store.close("closed")
    next(run_dir.glob("rank*/attempt*")).joinpath(FAULT_FILE).unlink(missing_ok=True)  # as the sentinel does
    (log,) = run_dir.rglob(".wal-*")
    log.write_bytes(log.read_bytes()[:-20])
    shard = next(run_dir.rglob("heads-000002.parquet"))
    harmed = bytearray(shard.read_bytes())
    harmed[len(harmed) // 2] ^= 1
    shard.write_bytes(harmed)
