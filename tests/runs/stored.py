"""Runs written by the real store in many small shards: closed, or stopped as a kill stops them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from esper_analyze.runs.run import open_run
from esper_analyze.schema import TABLES
from esper_analyze.storage.layout import ShardEntry
from recorder.online_detector import OnlineDetector
from recorder.store.run_file import create_run
from recorder.store.store import Store
from tests.reports.synthetic import quiet

UPDATES = 14
SEALED_EVERY = 4


def write(path: Path, *, close: bool = True, updates: int = UPDATES) -> Path:
    """Write a run that is sealed every four updates; ``close`` False: the last two updates are in the log only."""
    live, noise = OnlineDetector(None, "NORMAL"), np.random.default_rng(7)
    facts = {"heads": {"slot": 4, "op": 5}, "groups": ["actor"], "level": "NORMAL", "total_updates": updates}
    create_run(path, {"name": path.name, **facts, "thresholds": live.detector.thresholds.as_dict()})
    store = Store(path)
    for update in range(updates):
        store.put(live.judge(update, quiet(update, updates, noise)).rows)
        if update % SEALED_EVERY == SEALED_EVERY - 1:
            store.flush()
    if close:
        store.close("closed")
        return path
    store._take_up()
    store.inert = True
    store.claimed.release()
    return path


def folder(run: Path) -> Path:
    """Return the folder of the first writer."""
    return next(run.glob("rank00000/attempt-0000-*"))


def frames(run: Path, **options: Any) -> dict[str, pl.DataFrame]:
    """Return every table as readers see it."""
    opened = open_run(run, **options)
    return {table.name: opened.frame(table.name) for table in TABLES}


def same(one: dict[str, pl.DataFrame], other: dict[str, pl.DataFrame]) -> bool:
    """Whether all tables are equal, null to null."""
    return all(one[name].equals(other[name], null_equal=True) for name in one)


def files(run: Path) -> dict[str, bytes]:
    """Return every file of a run by its name, without the locks' words."""
    found = sorted(path for path in run.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(run)): path.read_bytes() for path in found}


def copied(run: Path, to: Path) -> Path:
    """Return a fresh copy of ``run`` at ``to``."""
    shutil.rmtree(to, ignore_errors=True)
    return Path(shutil.copytree(run, to))


def relist(run: Path, name: str, **changed: object) -> None:
    """Write the manifest anew with other facts about one shard, checksums and all."""
    manifest = folder(run) / "manifest.jsonl"
    lines = []
    for line in manifest.read_bytes().splitlines():
        facts = json.loads(line)
        facts.pop("crc")
        lines.append(ShardEntry(**(facts | changed if facts["shard"] == name else facts)).as_line())
    manifest.write_bytes(b"".join(lines))
