"""Rows 35 and 50: more data than memory, and a live run of very many shards."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from esper_analyze.schema import BY_NAME
from esper_analyze.schema.column import Kind, Table
from esper_analyze.storage.layout import LOCK_FILE, MANIFEST_FILE
from esper_analyze.storage.lock import WriterLock
from esper_analyze.storage.shard_file import seal
from tests.faults.commands import Done, measured
from tests.faults.forged import filled, large_run
from tests.faults.outcome import Bench, TrialTally, facts

LAYERS = 200
MOST = 10**9
"""Bytes that ``report`` and ``replay`` may take, however long the run."""
OVER = 200 << 20
"""Bytes that ``sql`` may take beyond its limit."""
_QUERIES = {
    "sort of all": "select * from layers order by hash(update, layer) limit 3",
    "sums by name": "select layer, count(*), avg(grad_norm), max(update_ratio) from layers group by layer",
    "join": "select count(*) from layers a join layers b using (update, layer) where a.grad_norm > b.mean",
    "every row": "select update, layer, grad_norm from layers",
}


def more_than_memory(bench: Bench) -> TrialTally:
    """A run of very many rows: judged, reported and queried within bounds that do not grow with it."""
    outcome = TrialTally()
    rows = bench.trials(3_500_000, 20_000_000)
    run_dir = large_run(bench.scratch / "bulk", rows, _piece)
    peaks = {}
    for words in (("report", run_dir, "--out", bench.scratch / "bulk-page"), ("replay", run_dir)):
        done = measured(*words, limit=1800)
        peaks[words[0]] = _judged(outcome, words[0], done, MOST)
    memory = rows * len(BY_NAME["layers"].columns) * 8 / 5 / 1e9
    for name, query in list(_QUERIES.items())[: bench.trials(1, 4)]:
        done = measured("sql", run_dir, query, "--csv", "--memory", memory, "--timeout", 900, limit=1800)
        peaks[name] = _judged(outcome, name, done, int(memory * 1e9) + OVER)
    shutil.rmtree(run_dir)
    outcome.notes.append(facts(rows=f"{rows:,}", sql_limit=f"{memory:.3g} GB", **peaks))
    return outcome


def many_shards(bench: Bench) -> TrialTally:
    """A run that is still written, of very many small shards: every reader works within its memory."""
    outcome, peaks = TrialTally(), {}
    updates = bench.trials(100, 5_000)
    here = bench.scratch / "shards"
    shutil.rmtree(here, ignore_errors=True)
    run_dir = _sharded(here / "run", updates)
    folder = next(run_dir.glob("rank*/attempt-*"))
    lock = WriterLock(folder / LOCK_FILE)
    try:
        lines: tuple[tuple[object, ...], ...] = (
            ("ls", here), ("watch", run_dir, "--once"), ("verify", run_dir), ("replay", run_dir), ("heads", run_dir),
            ("report", run_dir, "--out", here / "page"), ("export", run_dir, "--to", "csv", "--out", here / "csv"),
        )  # fmt: skip
        for words in lines:
            peaks[str(words[0])] = _judged(outcome, words[0], measured(*words, limit=3600), MOST)
        done = measured("sql", run_dir, "select count(*) n from heads", "--csv", "--memory", 0.5, limit=3600)
        peaks["sql"] = _judged(outcome, "sql", done, 5 * 10**8 + OVER)
        if done.out.split() != ["n", str(updates)]:
            outcome.wrong[f"sql counts {done.out.split()}"] += 1
    finally:
        lock.release()
    shutil.rmtree(here)
    outcome.notes.append(facts(shards=f"{2 * updates:,}", **peaks))
    return outcome


def _sharded(to: Path, updates: int) -> Path:
    """Write a run that was not closed, each update in shards of its own."""
    run_dir = large_run(to, 0, _piece)
    folder = next(run_dir.glob("rank*/attempt-*"))
    (folder / "closed.json").unlink()
    lines = []
    for update in range(updates):
        for place, name in enumerate(("updates", "heads")):
            own = {"seq": pa.array([2 * update + place]), "update": pa.array([update])}
            cells = dict(_numbers(BY_NAME[name], 1, np.random.default_rng(update)))
            lines.append(seal(folder, BY_NAME[name], update + 1, filled(BY_NAME[name], 1, **(cells | own))).as_line())
    (folder / MANIFEST_FILE).write_bytes(b"".join(lines))
    return run_dir


def _judged(outcome: TrialTally, name: object, done: Done, most: int) -> str:
    outcome.trials += 1
    if done.code:
        outcome.wrong[f"{name}: exit {done.code}: {done.err[-300:].strip()}"] += 1
    if done.peak > most:
        outcome.wrong[f"{name}: {done.peak / 2**20:,.0f} MB, {most / 2**20:,.0f} MB are the most"] += 1
    return f"{done.peak / 2**20:,.0f} MB {done.seconds:.0f} s"


def _piece(start: int, stop: int) -> dict[str, pa.Table]:
    """Return the layers of the rows from ``start`` on, and the updates they belong to."""
    chance = np.random.default_rng(start)
    rows, updates = np.arange(start, stop), np.arange(start // LAYERS, stop // LAYERS)
    names = pa.array([f"body.{k}.weight" for k in range(LAYERS)])
    layers = {
        "seq": pa.array(rows),
        "update": pa.array(rows // LAYERS),
        "layer": pa.DictionaryArray.from_arrays(pa.array((rows % LAYERS).astype(np.int32)), names).cast(pa.string()),
    }
    return {
        "layers": filled(
            BY_NAME["layers"], len(rows), **dict(_numbers(BY_NAME["layers"], len(rows), chance)), **layers
        ),
        "updates": filled(
            BY_NAME["updates"],
            len(updates),
            **dict(_numbers(BY_NAME["updates"], len(updates), chance)),
            seq=pa.array(updates),
            update=pa.array(updates),
        ),
    }


def _numbers(table: Table, rows: int, chance: np.random.Generator) -> Iterator[tuple[str, pa.Array]]:
    """Yield all columns of numbers; those of text stay as they are."""
    noise = np.resize(np.abs(chance.standard_normal(997)) * 0.01 + 0.5, rows)  # quickly packed
    for column in table.columns:
        if column.name in ("rank", "seq", "update"):
            continue
        if column.kind is Kind.FLOAT:
            yield column.name, pa.array(noise)
        if column.kind is Kind.INT:
            yield column.name, pa.array(np.zeros(rows, np.int64))
