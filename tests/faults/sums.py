"""Row 19: the largest integers in every column, and in every number a shard is known by: no sum of ours wraps."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from esper_analyze.replay.batches import numbers
from esper_analyze.runs.run import RecordedRun, open_run
from esper_analyze.schema import TABLES
from esper_analyze.schema.arrow import integer_columns
from esper_analyze.schema.column import Column, Kind, Table
from esper_analyze.sql.sandbox import sandbox
from esper_analyze.storage.block import Block
from esper_analyze.storage.maintenance.verify import verify
from recorder.store.run_file import create_run
from recorder.store.store import Store
from tests.faults.clerk import Clerk, CommandResult
from tests.faults.outcome import Bench, TrialTally, facts
from tests.schema.newer import relist

UPDATES = 6
LARGEST = 2**63 - 1
POOLS = ((LARGEST,), (2**62,), (2**53 + 1,), (-(2**63),), (LARGEST, -(2**63), 0, 1))
EDGES: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("seq", (LARGEST - 2, LARGEST - 1, LARGEST)),
    ("seq", (0, 1, LARGEST)),
    ("seq", (-(2**63), 0, LARGEST)),
    ("update", (0, 1, LARGEST)),
    ("update", (-(2**63), 0, LARGEST)),
    ("update", (LARGEST, LARGEST, LARGEST)),
)
OWN = ("rank", "seq", "update")
SQL = "select count(*), max(update), sum(update) from episodes"
COMMANDS = (("verify", "--json"), ("ls", "--json"), ("replay", "--json"), ("sql", SQL), ("compact",), ("repair",))


def sums(bench: Bench) -> TrialTally:
    """Counts near 2^63 in every integer column; then sequence and update numbers as far apart as they can be."""
    outcome, place, clerk = TrialTally(), bench.scratch / "sums", Clerk()
    for trial, pool in enumerate(POOLS if bench.long else bench.random.sample(POOLS[:4], 1)):
        run_dir = place / f"run{trial}"
        _record(run_dir, np.random.default_rng(trial), pool)
        _added_up(outcome, run_dir, str(pool))
        for line in (("verify",), ("replay",), ("report", "--out", place / "page")):
            _quiet(outcome, f"counts of {pool}, {line[0]}", clerk(line[0], run_dir, *line[1:]))
    for column, edge in EDGES if bench.long else bench.random.sample(EDGES, 2):
        run_dir = place / f"{column}{edge[0]}{edge[1]}"
        _record(run_dir, np.random.default_rng(0), (1,))
        _stretched(run_dir, column, edge)
        for name, *more in COMMANDS:
            _quiet(outcome, f"{column} of {edge}, {name}", clerk(name, run_dir, *more), codes=(0, 3))
    clerk.close()
    outcome.notes.append(facts(counts=len(POOLS), edges=len(EDGES)))
    shutil.rmtree(place)
    return outcome


def _record(run_dir: Path, rng: np.random.Generator, pool: tuple[int, ...]) -> None:
    create_run(run_dir, {"name": "sums", "heads": {"op": 3}, "groups": ["all"], "level": "NORMAL"})
    store = Store(run_dir)
    for table in TABLES:
        cells = {column.name: _cells(column, rng, pool) for column in table.columns if column.name not in OWN}
        store.put({table.name: Block(UPDATES, {"update": np.arange(UPDATES), **cells})})
    store.close("closed")


def _cells(column: Column, rng: np.random.Generator, pool: tuple[int, ...]) -> Any:
    if column.kind is Kind.INT:
        return np.array([pool[place] for place in rng.integers(len(pool), size=UPDATES)], np.int64)
    plain = {Kind.FLOAT: 0.5, Kind.BOOL: False, Kind.TEXT: "all"}
    return column.choices[0] if column.kind is Kind.CHOICE else plain[column.kind]


def _stretched(run_dir: Path, column: str, edge: tuple[int, ...]) -> None:
    """Put three rows into a shard whose numbers are as far apart as can be; the manifest vouches for them."""
    shard = next(run_dir.rglob("episodes-*.parquet"))
    with pq.ParquetFile(shard) as file:
        data = file.read().slice(0, len(edge))
    place = data.schema.get_field_index(column)
    data = data.set_column(place, data.schema.field(place), pa.array(edge, pa.int64()))
    pq.write_table(data, shard)
    name = "update" if column == "update" else "seq"
    known = {"rows": len(edge), f"first_{name}": min(edge), f"last_{name}": max(edge)}
    relist(shard, **known)
    shard.with_name("closed.json").unlink()


def _added_up(outcome: TrialTally, run_dir: Path, label: str) -> None:
    """Sums by SQL, the count of lost rows, and each number as the detector gets it, against Python's own integers."""
    run, lost = open_run(run_dir), 0
    with run.connection() as view, sandbox([("run", run)]) as loaded:
        for table in TABLES:
            cells = {name: run.frame(table.name)[name].to_list() for name in integer_columns(table)}
            for name, own in cells.items():
                outcome.trials += 1
                query = f'select sum("{name}"), count("{name}") from {table.name}'
                for connection in (view, loaded):
                    if connection.execute(query).fetchone() != (sum(own), len(own)):
                        outcome.wrong[f"{label}: SQL's sum of {table.name}.{name}"] += 1
                _rounded(outcome, run, table, name, own)
            lost += _lost(table, cells)
    found = verify(run_dir)
    noted = [fault.reason for fault in found.faults if fault.table == "losses_of_data"]
    if noted != ([f"{lost:,} errors or rows that cost data are noted"] if lost else []):
        outcome.wrong[f"{label}: verify says {noted} of the {lost} noted in losses_of_data"] += 1


def _lost(table: Table, cells: dict[str, list[int]]) -> int:
    return sum(one for one in cells["rows"] if one > 0) if table.name == "losses_of_data" else 0


def _rounded(outcome: TrialTally, run: RecordedRun, table: Table, name: str, own: list[int]) -> None:
    data = pa.concat_tables([part.read([name]) for part in run.row_sources(table.name)])
    if numbers(table, name, data[name])[0].tolist() != [float(one) for one in own]:
        outcome.wrong[f"{table.name}.{name} comes to the detector otherwise"] += 1


def _quiet(outcome: TrialTally, label: str, said: CommandResult, *, codes: tuple[int, ...] = (0,)) -> None:
    """Count what is no proper answer of a command."""
    outcome.trials += 1
    if said.code not in codes or not said.proper:
        outcome.wrong[f"{label}: exit {said.code}, {said.err.strip()[-200:]}"] += 1
    if '"rows": -' in said.out or '"lost_rows": -' in said.out:
        outcome.wrong[f"{label}: a count below zero"] += 1
