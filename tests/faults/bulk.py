"""Row 35: more data than memory, for ``report``, ``replay`` and ``sql``."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from esper_analyze.schema import BY_NAME
from esper_analyze.schema.column import Kind, Table
from tests.faults.commands import Done, measured
from tests.faults.forged import filled, large_run
from tests.faults.outcome import Bench, Outcome, facts

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


def more_than_memory(bench: Bench) -> Outcome:
    """A run of very many rows: judged, reported and queried within bounds that do not grow with it."""
    outcome = Outcome()
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


def _judged(outcome: Outcome, name: object, done: Done, most: int) -> str:
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
