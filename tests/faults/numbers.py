"""Rows 17 to 19: null, NaN, infinities and the largest integers come out of every engine as they went in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from esper_analyze.errors import EsperError
from esper_analyze.replay.batches import numbers
from esper_analyze.runs.run import RecordedRun, open_run
from esper_analyze.schema import BY_NAME
from esper_analyze.schema.arrow import arrow_schema, float_columns
from esper_analyze.sql.sandbox import sandbox
from esper_analyze.storage.layout import CLOSED_FILE
from esper_analyze.storage.shard_file import parquet_bytes
from tests.faults.outcome import Bench, TrialTally, facts
from tests.schema.newer import relist

TABLE = BY_NAME["groups"]
COLUMNS = float_columns(TABLE)[:6]
ROWS = 2_000
BOUND = 100.0
SPECIALS = (
    (np.nan,), (np.nan, np.inf), (np.nan, -np.inf), (np.nan, 0.0, -0.0), (np.nan, 1e308, 5e-324), (np.inf,), (150.0,)
)  # fmt: skip
"""What is strewn into a column. NaN alone is the hard one: statistics leave it out, and an engine prunes by them."""

Counts = dict[str, int]
Writer = Callable[[Path, pa.Table], None]


def _own(path: Path, data: pa.Table) -> None:
    path.write_bytes(parquet_bytes(TABLE, data))


def _pyarrow(path: Path, data: pa.Table) -> None:
    pq.write_table(data, path, row_group_size=100)


def _polars(path: Path, data: pa.Table) -> None:
    pl.DataFrame(data).write_parquet(path, statistics=True, row_group_size=100)


def _duckdb(path: Path, data: pa.Table) -> None:
    with duckdb.connect() as connection:
        connection.register("data", data)
        connection.execute(f"copy (select * from data) to '{path}' (format parquet, row_group_size 2048)")


WRITERS: Mapping[str, Writer] = {"recorder": _own, "pyarrow": _pyarrow, "polars": _polars, "duckdb": _duckdb}


def counts_of_nan(bench: Bench) -> TrialTally:
    """A shard full of NaN, infinities and nulls, by every writer: each engine counts the same, or names the file.

    A shard of polars or DuckDB says that every column may be empty, and is refused for that.
    """
    outcome, refused = TrialTally(), 0
    child = bench.nursery.run(6)
    shard = next(child.run_dir.rglob("groups-*.parquet"))
    shard.with_name(CLOSED_FILE).unlink()  # it counts the rows that were there
    for trial in range(bench.trials(1, 25)):
        data, expected = _strewn(np.random.default_rng(bench.random.randrange(2**32) + trial), shard)
        for name, write in WRITERS.items():
            write(shard, data)
            _loaded(outcome, name, shard, expected)
            relist(shard, rows=len(data), first_seq=0, last_seq=len(data) - 1)
            try:
                run = open_run(child.run_dir)
            except EsperError as error:
                refused += 1
                outcome.trials += 1
                if name in ("recorder", "pyarrow") or shard.name not in error.message:
                    outcome.wrong[f"{name}: refused: {error.message}"] += 1
                continue
            for engine, counts in ENGINES.items():
                _hold(outcome, f"{name} through {engine}", counts(run), expected)
    outcome.notes.append(facts(writers=len(WRITERS), engines=len(ENGINES), refused_by_name=refused))
    bench.discard(child, keep=not outcome.met)
    return outcome


def _strewn(rng: np.random.Generator, shard: Path) -> tuple[pa.Table, dict[str, Counts]]:
    """Return rows of the table, and what is to be counted in each of its columns."""
    with pq.ParquetFile(shard) as file:
        template = file.read()
    data = template.take(pa.array(rng.integers(0, len(template), ROWS)))
    data = data.set_column(data.schema.get_field_index("seq"), "seq", pa.array(np.arange(ROWS)))
    data = data.set_column(data.schema.get_field_index("update"), "update", pa.array(np.sort(rng.integers(0, 6, ROWS))))
    expected = {}
    for name in COLUMNS:
        values, null = rng.normal(size=ROWS), rng.random(ROWS) < 0.1
        strewn = rng.random(ROWS) < 0.1
        values[strewn] = rng.choice(SPECIALS[rng.integers(len(SPECIALS))], strewn.sum())
        data = data.set_column(data.schema.get_field_index(name), name, pa.array(values, mask=null))
        expected[name] = _counted(values, null)
    return data.cast(arrow_schema(TABLE)), expected


def _counted(values: np.ndarray[Any, Any], null: np.ndarray[Any, Any]) -> Counts:
    finite = np.isfinite(values) & ~null
    return {
        "null": int(null.sum()),
        "nan": int((np.isnan(values) & ~null).sum()),
        "inf": int((np.isinf(values) & ~null).sum()),
        "zero": int(((values == 0.0) & ~null).sum()),
        "beyond": int((np.where(finite, values, 0.0) > BOUND).sum()),
    }


def _sql(column: str) -> str:
    """Return the counts of a column as SQL: NaN is larger than every number there."""
    return ", ".join(
        f"count(*) filter ({test})"
        for test in (
            f"{column} is null", f"isnan({column})", f"isinf({column})", f"{column} = 0",
            f"isfinite({column}) and {column} > {BOUND}",
        )
    )  # fmt: skip


def _where(column: str) -> tuple[str, ...]:
    tests = (f"{column} is null", f"isnan({column})", f"isinf({column})", f"{column} = 0")
    return (*tests, f"{column} > {BOUND} and isfinite({column})")


def _by_sql(connection: duckdb.DuckDBPyConnection, source: str) -> dict[str, Counts]:
    """Count by filters, which an engine may prune by statistics; and check that it agrees with looking at each row."""
    found = {}
    for name in COLUMNS:
        cells = []
        for test in _where(name):
            row = connection.execute(f"select count(*) from {source} where {test}").fetchone()
            cells.append(row[0] if row else -1)
        looked = connection.execute(f"select {_sql(name)} from {source}").fetchone()
        if looked != tuple(cells):
            cells[1] = -1
        found[name] = dict(zip(("null", "nan", "inf", "zero", "beyond"), cells, strict=True))
    return found


def _view(run: RecordedRun) -> dict[str, Counts]:
    with run.connection() as connection:
        return _by_sql(connection, TABLE.name)


def _sandbox(run: RecordedRun) -> dict[str, Counts]:
    with sandbox([("run", run)], [TABLE.name]) as connection:
        return _by_sql(connection, TABLE.name)


def _in_polars(run: RecordedRun) -> dict[str, Counts]:
    return _by_polars(run.frame(TABLE.name))


def _by_polars(frame: pl.DataFrame) -> dict[str, Counts]:
    found = {}
    for name in COLUMNS:
        cell = pl.col(name)
        tests = (cell.is_null(), cell.is_nan(), cell.is_infinite(), cell == 0.0, cell.is_finite() & (cell > BOUND))
        counts = [len(frame.filter(test)) for test in tests]
        found[name] = dict(zip(("null", "nan", "inf", "zero", "beyond"), counts, strict=True))
    return found


def _in_pyarrow(run: RecordedRun) -> dict[str, Counts]:
    return _by_pyarrow(pa.concat_tables([part.read(COLUMNS) for part in run.row_sources(TABLE.name)]))


def _by_pyarrow(data: pa.Table) -> dict[str, Counts]:
    found = {}
    for name in COLUMNS:
        cell = data[name]
        beyond = pc.and_(pc.is_finite(cell), pc.greater(cell, BOUND))
        tests = (pc.is_null(cell), pc.is_nan(cell), pc.is_inf(cell), pc.equal(cell, 0.0), beyond)
        counts = [pc.sum(test).as_py() or 0 for test in tests]
        found[name] = dict(zip(("null", "nan", "inf", "zero", "beyond"), counts, strict=True))
    return found


def _in_numpy(run: RecordedRun) -> dict[str, Counts]:
    data = pa.concat_tables([part.read(COLUMNS) for part in run.row_sources(TABLE.name)])
    return {name: _counted(*numbers(TABLE, name, data[name])) for name in COLUMNS}


ENGINES: Mapping[str, Callable[[RecordedRun], dict[str, Counts]]] = {
    "DuckDB view": _view,
    "DuckDB table": _sandbox,
    "polars": _in_polars,
    "pyarrow": _in_pyarrow,
    "numpy": _in_numpy,
}


def _loaded(outcome: TrialTally, writer: str, path: Path, expected: dict[str, Counts]) -> None:
    """The file alone, as a foreign one is loaded: by a bare ``create table``, by polars and by pyarrow."""
    with duckdb.connect() as connection:
        connection.execute(f"create table foreign_rows as select * from read_parquet('{path}')")
        _hold(outcome, f"file of {writer} in DuckDB", _by_sql(connection, "foreign_rows"), expected)
    _hold(outcome, f"file of {writer} in polars", _by_polars(pl.read_parquet(path)), expected)
    _hold(outcome, f"file of {writer} in pyarrow", _by_pyarrow(pq.ParquetFile(path).read()), expected)


def _hold(outcome: TrialTally, label: str, found: dict[str, Counts], expected: dict[str, Counts]) -> None:
    outcome.trials += 1
    for name, counts in expected.items():
        for what, count in counts.items():
            if found[name][what] != count:
                outcome.wrong[f"{label}: {found[name][what]} × {what} instead of {count}"] += 1
