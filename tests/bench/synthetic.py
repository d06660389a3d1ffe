"""A long run made up column by column, so that replay can be timed on more updates than anybody would train.

Most numbers are those of a sound training; one update in a thousand has something far off, so that findings are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from esper_analyze.detector.detector import Detector
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.rules.setting_changed import SETTINGS
from esper_analyze.schema.arrow import arrow_schema
from esper_analyze.schema.column import Table
from esper_analyze.schema.tables import HEADS, UPDATES
from esper_analyze.storage.atomic import append_line
from esper_analyze.storage.shard_file import seal
from recorder.store.run_file import create_run

TIMED = tuple(rule for rule in RULES if rule.table in ("updates", "heads"))
"""The rules that are timed: those of the run as a whole, and those of heads."""
HEAD_NAMES = tuple(f"head{i}" for i in range(8))
SHARD = 100_000
"""Updates a shard."""
RARE = 1e-3

Cells = Mapping[str, Any]
_FAR = {"kl_k3": 0.3, "ratio_max": 30.0, "first_ratio_error": 0.1, "clip_fraction": 0.7, "entropy_norm": 0.03}
_USUAL = {
    "kl_k3": 0.01,
    "first_ratio_error": 1e-7,
    "ratio_max": 1.6,
    "ratio_min": 0.5,
    "entropy_norm": 0.6,
    "explained_variance": 0.7,
    "value_nrmse": 0.5,
    "clip_fraction": 0.1,
    "ess_fraction": 0.98,
    "advantage_min": -2.0,
    "advantage_max": 2.0,
    "episode_return_mean": 20.0,
    "return_mean": 20.0,
    "clip_active_fraction": 0.5,
    "learnable_fraction": 0.8,
    "optimizer_state_lost": 0.0,
    "return_residual": 0.0,
    "ends_continued_fraction": 0.0,
    "return_gamma": 0.99,
}
_STEADY = (*SETTINGS, "advantage_consistency", "minibatch_advantage_consistency", "return_gamma")
"""Columns with the same number in every update of a sound training."""


def make_run(path: Path, updates: int, progress: Callable[[int], None] | None = None) -> Path:
    """Write a closed run of ``updates`` updates with 8 heads into ``path`` and return it."""
    facts = {"name": path.name, "heads": dict.fromkeys(HEAD_NAMES, 4), "total_updates": updates, "level": "NORMAL"}
    create_run(path, facts | {"framework": "made up", "thresholds": Detector(rules=TIMED).thresholds.as_dict()})
    folder = path / "rank00000" / "attempt-0000-00000000"
    folder.mkdir(parents=True)
    seq = 0
    for number, (update, tables) in enumerate(_shards(updates)):
        for table, data in tables:
            own = {"seq": pa.array(np.arange(seq, seq + len(data["update"])))}
            rows = _arrow(table, {**data, **own})
            append_line(folder / "manifest.jsonl", seal(folder, table, number, rows).as_line())
            seq += rows.num_rows
        if progress is not None:
            progress(int(update[-1]) + 1)
    return path


def _shards(updates: int) -> Iterator[tuple[Any, list[tuple[Table, Cells]]]]:
    random = np.random.default_rng(0)
    wanted = Detector(rules=TIMED).wanted
    for start in range(0, updates, SHARD):
        update = np.arange(start, min(start + SHARD, updates))
        n, k = len(update), len(HEAD_NAMES)
        heads = {
            "update": np.repeat(update, k),
            "head": pa.array(HEAD_NAMES * n),
            "kind": pa.array(["categorical"] * (n * k)),
            "grad_state": pa.array(["finite"] * (n * k)),
            "zero_explained": pa.array(["not_zero"] * (n * k)),
        }
        run = {"update": update, "progress": update / updates, "status": pa.array(["performed"] * n)}
        run["nonfinite_sources"] = pa.nulls(n, pa.string())
        yield (
            update,
            [
                (UPDATES, _filled(UPDATES, wanted["updates"], n, random) | run),
                (HEADS, _filled(HEADS, wanted["heads"], n * k, random) | heads),
            ],
        )


def _filled(table: Table, columns: tuple[str, ...], n: int, random: np.random.Generator) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for name in columns:
        kind = arrow_schema(table).field(name).type
        if pa.types.is_boolean(kind):
            cells[name] = np.full(n, name != "ev_low_variance")
        elif pa.types.is_integer(kind):
            cells[name] = np.full(n, 16 if name == "optimizer_steps" else 0)
        elif pa.types.is_floating(kind):
            spread = 0.0 if name in _STEADY else 0.2
            cells[name] = _USUAL.get(name, 1.0) * random.uniform(1 - spread, 1 + spread, n)
            if name in _FAR:
                cells[name][random.random(n) < RARE] = _FAR[name]
    return cells


def _arrow(table: Table, cells: Cells) -> pa.Table:
    columns = []
    n = len(cells["update"])
    for field in arrow_schema(table):
        if field.name in cells:
            cell = cells[field.name]
            columns.append(cell if isinstance(cell, pa.Array) else pa.array(cell, field.type))
        elif field.nullable:
            columns.append(pa.nulls(n, field.type))
        else:
            columns.append(_required(field, n))
    return pa.Table.from_arrays(columns, schema=arrow_schema(table))


def _required(field: pa.Field, n: int) -> pa.Array:
    if pa.types.is_string(field.type):
        return pa.array(["NORMAL"] * n)
    return pa.array(np.zeros(n), field.type) if field.name != "rank" else pa.array(np.zeros(n, np.int64))
