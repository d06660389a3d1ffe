"""Rows 18 and 19: every value comes back bit by bit, and no sum of the largest integers wraps."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from esper_analyze.runs.run import RecordedRun, open_run
from esper_analyze.schema import TABLES
from esper_analyze.schema.column import Column, Kind, Table
from esper_analyze.storage.block import Block, Rows
from esper_analyze.storage.maintenance.compact import compact
from esper_analyze.storage.maintenance.repair import repair
from recorder.store import store as store_module
from recorder.store.run_file import create_run
from recorder.store.store import Store
from tests.faults.outcome import Bench, TrialTally, facts
from tests.patience import PATIENCE

AT_ONCE = 125
"""Rows of one example, half handed over one by one and half as a block."""
OWN = ("rank", "seq")
_FLOATS = st.integers(0, 2**64 - 1).map(lambda bits: np.uint64(bits).view(np.float64).item())
_WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_INTEGERS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([-(2**63), 2**63 - 1, 0, 2**53 + 1]))
SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, -5e-324, 1.7976931348623157e308, 1e20, 2.0**53, 0.1)

Cells = dict[str, list[Any]]


def round_trips(bench: Bench) -> TrialTally:
    """Rows of any values through log, shard, repair and compact: read back bit by bit by every engine."""
    outcome, tally = TrialTally(), {"rows": 0, "cells": 0, "readings": 0}
    per_example = AT_ONCE * len(STAGES) * len(READERS)

    @seeded(bench.random.randrange(2**32))
    @settings(max_examples=bench.trials(4, 80), deadline=None, database=None, phases=[Phase.generate])
    @given(st.data())
    def example(data: st.DataObject) -> None:
        table = data.draw(st.sampled_from(TABLES))
        cells = _drawn(data, table)
        with tempfile.TemporaryDirectory(dir=bench.scratch) as place:
            _pass_through(outcome, Path(place) / "run", table, cells)
        outcome.trials += AT_ONCE
        tally["rows"] += AT_ONCE
        tally["cells"] += AT_ONCE * len(cells)
        tally["readings"] += per_example

    example()
    outcome.notes.append(facts(**tally))
    return outcome


def _drawn(data: st.DataObject, table: Table) -> Cells:
    """Return columns of cells: out of pools that hypothesis fills, in an order that it seeds."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    pools: dict[Kind, list[Any]] = {
        Kind.FLOAT: [*SPECIAL, *data.draw(st.lists(_FLOATS, min_size=30, max_size=30))],
        Kind.INT: data.draw(st.lists(_INTEGERS, min_size=20, max_size=20)),
        Kind.BOOL: [True, False],
        Kind.TEXT: data.draw(st.lists(_WORDS, min_size=8, max_size=8)),
    }
    return {
        column.name: sorted(range(AT_ONCE)) if column.name == "update" else _column(rng, column, pools)
        for column in table.columns
        if column.name not in OWN
    }


def _column(rng: np.random.Generator, column: Column, pools: dict[Kind, list[Any]]) -> list[Any]:
    pool: list[Any] = list(column.choices) if column.kind is Kind.CHOICE else pools[column.kind]
    pool = pool if column.required else [*pool, None]
    if column.kind is Kind.INT and column.name in ("dropped_rows", "rows", "place"):
        pool = [one for one in pool if one is None or 0 <= one < 2**40] or [0]
    return [pool[place] for place in rng.integers(len(pool), size=AT_ONCE)]


def _pass_through(outcome: TrialTally, run_dir: Path, table: Table, cells: Cells) -> None:
    create_run(run_dir, {"name": "values"})
    store, half = Store(run_dir), AT_ONCE // 2
    rows = [{name: column[k] for name, column in cells.items()} for k in range(AT_ONCE)]
    if table.name != "updates":
        store.put({"updates": Block(AT_ONCE, {"update": cells["update"], "status": "performed", "level": "NORMAL"})})
    store.put({table.name: rows[: half // 2]})
    store.put({table.name: _block(cells, half // 2, half)})
    store.flush()
    store.put({table.name: rows[half : half + half // 2]})
    store.put({table.name: _block(cells, half + half // 2, AT_ONCE)})
    store.settle(PATIENCE)
    _killed(store)
    for stage, work in STAGES.items():
        work(run_dir)
        run = open_run(run_dir)
        for reader, read in READERS.items():
            _compare(outcome, f"{table.name} after {stage} by {reader}", read(run, table), cells)
    shutil.rmtree(run_dir)


def _killed(store: Store) -> None:
    """Leave the store as a kill leaves it: half of the rows are in a shard, half in the log."""
    store.inert = store._closing = True
    for bell, thread in ((store._bell, store._thread), (store._due_bell, store._sealer)):
        store_module._ring(bell)
        thread.join()
    store.claimed.release()


def _block(cells: Cells, start: int, stop: int) -> Rows:
    """Return rows as the recorder hands them over: arrays where no cell is empty."""
    found: dict[str, Any] = {}
    for name, column in cells.items():
        part = column[start:stop]
        plain = all(isinstance(cell, (float, int)) and not isinstance(cell, bool) for cell in part)
        found[name] = np.array(part, np.float64 if isinstance(part[0], float) else np.int64) if plain else part
    return Block(stop - start, found)


def _in_polars(run: RecordedRun, table: Table) -> pa.Table:
    return run.frame(table.name).to_arrow()


def _in_pyarrow(run: RecordedRun, table: Table) -> pa.Table:
    return pa.concat_tables(
        [rows.read(table.names).replace_schema_metadata(None) for rows in run.row_sources(table.name)]
    )


def _in_duckdb(run: RecordedRun, table: Table) -> pa.Table:
    with run.connection() as connection:
        return connection.sql(f"select * from {table.name} order by seq").to_arrow_table()


READERS = {"polars": _in_polars, "pyarrow": _in_pyarrow, "DuckDB": _in_duckdb}
STAGES: dict[str, Callable[[Path], object]] = {"a kill": lambda _: None, "repair": repair, "compact": compact}


def _compare(outcome: TrialTally, label: str, found: pa.Table, cells: Cells) -> None:
    if len(found) != AT_ONCE:
        outcome.lost += max(AT_ONCE - len(found), 0)
        outcome.wrong[f"{label}: {len(found)} rows of {AT_ONCE}"] += 1
        return
    for name, wanted in cells.items():
        other = [k for k, cell in enumerate(found[name].to_pylist()) if not _same(cell, wanted[k])]
        if other:
            outcome.wrong[f"{label}: {name} is {found[name][other[0]]} where {wanted[other[0]]!r} was given"] += 1


def _same(one: Any, other: Any) -> bool:
    """Whether two cells are equal to the last bit; a NaN is a NaN whatever its payload."""
    if isinstance(one, float) and isinstance(other, float):
        return one.hex() == other.hex()
    return type(one) is type(other) and one == other
