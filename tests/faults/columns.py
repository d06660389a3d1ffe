"""Row 20: columns that are not the declared ones.

Each change is done with a manifest that vouches for the file, and with one that is lost and made anew from the files.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from esper_analyze.runs.run import RecordedRun, open_run
from esper_analyze.schema import TABLES
from esper_analyze.schema.arrow import schema_fingerprint
from esper_analyze.storage.layout import MANIFEST_FILE, shard_of
from esper_analyze.storage.maintenance.repair import repair
from tests.faults.children import SEAL_OFTEN
from tests.faults.clerk import Clerk
from tests.faults.outcome import Bench, TrialTally, facts
from tests.schema.newer import relist

UPDATES = 7
ENOUGH = {"SEAL_UPDATES": 4}
LINES = (("verify",), ("replay",), ("report",), ("sql", "select count(*) from updates"), ("compact",))

Frames = dict[str, pl.DataFrame]
Change = Callable[[pa.Table, int], pa.Table]
"""Changes column number k of a shard's rows."""


def _extra(data: pa.Table, k: int) -> pa.Table:
    return data.add_column(k, "extra", pa.nulls(len(data), pa.float64()))


def _missing(data: pa.Table, k: int) -> pa.Table:
    return data.remove_column(k)


def _reordered(data: pa.Table, k: int) -> pa.Table:
    names = data.column_names
    return data.select([*names[k:], *names[:k]] if k else names[::-1])


def _upper(data: pa.Table, k: int) -> pa.Table:
    return _renamed(data, k, data.column_names[k].upper())


def _padded(data: pa.Table, k: int) -> pa.Table:
    return _renamed(data, k, data.column_names[k] + " ")


def _twice(data: pa.Table, k: int) -> pa.Table:
    return data.append_column(data.schema.field(k), data.column(k))


def _twice_other_case(data: pa.Table, k: int) -> pa.Table:
    return data.append_column(data.column_names[k].upper(), data.column(k))


def _renamed(data: pa.Table, k: int, name: str) -> pa.Table:
    return data.rename_columns([name if place == k else old for place, old in enumerate(data.column_names)])


def _retyped(to: pa.DataType) -> Change:
    def change(data: pa.Table, k: int) -> pa.Table:
        field = data.schema.field(k)
        if field.type == to:
            return _extra(data, k)
        try:
            column = data.column(k).cast(to, safe=False)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            column = pa.nulls(len(data), to)
        return data.set_column(k, pa.field(field.name, to, nullable=True), column)

    return change


def _may_be_empty(data: pa.Table, k: int) -> pa.Table:
    place = k if data.column(k).null_count == 0 else 0
    field = data.schema.field(place)
    return pa.Table.from_arrays(data.columns, schema=data.schema.set(place, field.with_nullable(not field.nullable)))


def _nested(data: pa.Table, k: int) -> pa.Table:
    field = data.schema.field(k)
    column = pa.array([[cell] for cell in data.column(k).to_pylist()], pa.list_(field.type))
    return data.set_column(k, field.name, column)


CHANGES: dict[str, Change] = {
    "extra": _extra,
    "missing": _missing,
    "reordered": _reordered,
    "upper case": _upper,
    "a blank in the name": _padded,
    "twice": _twice,
    "twice, once in upper case": _twice_other_case,
    "as text": _retyped(pa.string()),
    "as float32": _retyped(pa.float32()),
    "as int32": _retyped(pa.int32()),
    "as uint64": _retyped(pa.uint64()),
    "as a time": _retyped(pa.timestamp("us")),
    "as decimal": _retyped(pa.decimal128(38, 3)),
    "may be empty, or not": _may_be_empty,
    "as lists": _nested,
}


def odd_columns(bench: Bench) -> TrialTally:
    """Every change of a shard's columns, vouched for or not: named by every command, and all other tables untouched."""
    outcome, clerk = TrialTally(), Clerk()
    child = bench.nursery.run(UPDATES, constants=SEAL_OFTEN | ENOUGH, pace=0.05)
    clean = frames_of(child.run_dir)
    shards = sorted(path.relative_to(child.run_dir) for path in child.run_dir.rglob("*.parquet"))
    for number, (label, change) in enumerate(CHANGES.items()):
        for name in shards if bench.long else bench.random.sample(shards, 1):
            for listed in (True, False) if bench.long else (number % 2 == 0,):
                copy = Path(shutil.copytree(child.run_dir, child.run_dir.with_name("copy")))
                k = _rewritten(bench, copy / name, change)
                shard = copy / name
                _vouch(shard, listed=listed)
                line = LINES[number % len(LINES)]
                _judge(outcome, clerk, f"column {k} {label} in {name.name}, {listed=}", shard, clean, line)
                shutil.rmtree(copy)
    outcome.notes.append(facts(changes=len(CHANGES)))
    clerk.close()
    bench.discard(child, keep=not outcome.met)
    return outcome


def _rewritten(bench: Bench, shard: Path, change: Change) -> int:
    with pq.ParquetFile(shard) as file:
        data = file.read()
    k = bench.random.randrange(data.num_columns)
    pq.write_table(change(data, k), shard)
    return k


def _vouch(shard: Path, *, listed: bool) -> None:
    """Let the manifest list the file as it is now, or lose the manifest."""
    if listed:
        relist(shard, schema=schema_fingerprint(pq.read_schema(shard)))
    else:
        shard.with_name(MANIFEST_FILE).unlink()


def _judge(outcome: TrialTally, clerk: Clerk, label: str, bad: Path, clean: Frames, line: tuple[str, ...]) -> None:
    """The file is named by a command; without it, and after a repair, every other table is as in the clean run."""
    outcome.trials += 1
    run_dir = bad.parents[2]
    said = clerk(line[0], run_dir, *line[1:])
    words = "".join((said.out + said.err).split())
    if said.code != 3 or not said.proper:
        outcome.wrong[f"{label}, {line[0]}: exit {said.code}: {said.err.strip()[-200:]}"] += 1
    if not any(name in words for name in (bad.name, MANIFEST_FILE)):
        outcome.wrong[f"{label}, {line[0]} does not name it: {said.err.strip()[-200:]}"] += 1
    _others(outcome, f"{label}, left out", _left(run_dir, bad), clean, bad)
    repair(run_dir)
    if bad.exists():
        outcome.wrong[f"{label}: repair leaves it in place"] += 1
    _others(outcome, f"{label}, repaired", open_run(run_dir), clean, bad)


def _left(run_dir: Path, bad: Path) -> RecordedRun:
    run = open_run(run_dir, skip_broken=True)
    if not any(broken.file in (bad, bad.with_name(MANIFEST_FILE)) for broken in run.broken):
        raise AssertionError(f"{bad.name} is not among the broken files")
    return run


def _others(outcome: TrialTally, label: str, run: RecordedRun, clean: Frames, bad: Path) -> None:
    if any(broken.file.name == MANIFEST_FILE for broken in run.broken):
        return
    hurt = (shard_of(bad.name) or ("",))[0]
    for name, whole in clean.items():
        found = run.frame(name)
        left = whole.filter(pl.col("seq").is_in(found["seq"].to_list())) if name == hurt else whole
        if not found.equals(left, null_equal=True):
            outcome.wrong[f"{label}: {name} has other rows than the clean run"] += 1


def frames_of(run_dir: Path) -> Frames:
    run = open_run(run_dir)
    return {table.name: run.frame(table.name) for table in TABLES}
