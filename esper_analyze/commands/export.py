"""``esper-analyze export``: a run in the formats of other tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esper_analyze.commands.options import takes_options
from esper_analyze.commands.run_options import RunOptions
from esper_analyze.csv_text import SpreadsheetSafe, refuse_unless_csv
from esper_analyze.errors import UsageError, did_you_mean
from esper_analyze.terminal import path_words, put, say

if TYPE_CHECKING:
    from esper_analyze.runs.run import RecordedRun
    from esper_analyze.schema.column import Table


class Target(StrEnum):
    """What a run is exported to."""

    TENSORBOARD = "tensorboard"
    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


To = Annotated[Target, typer.Option("--to", help="Format to write.")]
NewPath = Annotated[Path, typer.Option("--out", "-o", metavar="PATH", help="New file or directory; must not exist.")]
Chosen = Annotated[
    list[str] | None,
    typer.Option("--table", metavar="NAME", help="Only this table; may be given again. Default: all that fit."),
]


@takes_options("path", "to", "out", "chosen", "rank", "skip_broken", "all_attempts", "safe")
def export(options: RunOptions, to: To, out: NewPath, chosen: Chosen = None, safe: SpreadsheetSafe = False) -> None:
    """Write RUN for other tools. `import` reads it back, where table updates is in it.

    csv and jsonl: each table's rows; PATH is a file for one table, else a directory with a file a table. In CSV null is
    an empty cell, NaN is NaN, infinities are inf and -inf; in JSON lines these are the texts "NaN", "Infinity" and
    "-Infinity". Text is exact in both: see --spreadsheet-safe.

    parquet: one file; one table, or without --table a row an update with columns like updates/kl_k3 and
    heads/op/grad_norm. tensorboard: a directory with an event file of the same names as scalars (float32: larger is
    infinite, and counted; null gives no point, free text is left out).

    Example: esper-analyze export RUN --to tensorboard --out tb
    """
    from esper_analyze.interchange.destination import refuse_existing, staged
    from esper_analyze.runs.damaged_shard import naming_damaged_shard

    tables = _tables(chosen)
    refuse_unless_csv(safe=safe, is_csv=to is Target.CSV)
    refuse_existing(out)
    _check_ending(to, tables, out)
    run = options.open()
    with naming_damaged_shard(run), staged(out) as target:
        summary = (
            _series(run, to, tables, target) if _is_series(to, tables) else _rows(run, to, tables, target, safe=safe)
        )
    put(f"{path_words(out)}: {summary}\n")


def _tables(chosen: Sequence[str] | None) -> list[Table]:
    from esper_analyze.schema.tables import BY_NAME

    for name in chosen or ():
        if name not in BY_NAME:
            raise UsageError(f"there is no table {name!r}{did_you_mean(name, BY_NAME)}", hint="--table NAME")
    return [BY_NAME[name] for name in dict.fromkeys(chosen or ())]


def _check_ending(to: Target, tables: Sequence[Table], out: Path) -> None:
    """Raise ``UsageError`` for a file whose name does not say what it is: `import` goes by its ending."""
    is_file = to is Target.PARQUET or (to is not Target.TENSORBOARD and len(tables) == 1)
    if is_file and out.suffix != f".{to}":
        raise UsageError(f"--out {out} does not end in .{to}, by which `import` knows it", hint=f"--out {out}.{to}")


def _is_series(to: Target, tables: Sequence[Table]) -> bool:
    return to is Target.TENSORBOARD or (to is Target.PARQUET and len(tables) != 1)


def _series(run: RecordedRun, to: Target, tables: Sequence[Table], target: Path) -> str:
    """Write one row, or one event, for each update."""
    from esper_analyze.interchange.export_tensorboard import write_events
    from esper_analyze.interchange.export_wide import write_wide
    from esper_analyze.interchange.names_own import TABLES, USUAL
    from esper_analyze.replay.replay import merged_run
    from esper_analyze.wording import many

    misfit = next((table.name for table in tables if table not in TABLES), None)
    if misfit is not None:
        named = ", ".join(table.name for table in TABLES)
        raise UsageError(
            f"table {misfit} has many rows an update and does not fit one row", hint=f"tables that do: {named}"
        )
    merged = merged_run(run)
    if to is Target.PARQUET:
        return f"{many(write_wide(merged, tables or USUAL, target), 'row')}, one an update"
    target.mkdir()
    updates, too_large = write_events(merged, tables or USUAL, target)
    if too_large:
        say(f"esper-analyze: warning: {many(too_large, 'value')} too large for float32, written as infinity")
    return many(updates, "update")


def _rows(run: RecordedRun, to: Target, tables: Sequence[Table], target: Path, *, safe: bool) -> str:
    """Write tables row by row."""
    from esper_analyze.interchange.export_rows import write_csv, write_jsonl
    from esper_analyze.interchange.export_wide import write_table
    from esper_analyze.schema.tables import TABLES
    from esper_analyze.wording import many

    csv: Callable[[RecordedRun, Table, Path], int] = partial(write_csv, safe=safe)
    write = {Target.CSV: csv, Target.JSONL: write_jsonl, Target.PARQUET: write_table}[to]
    if len(tables) == 1:
        return f"{many(write(run, tables[0], target), 'row')} of {tables[0].name}"
    target.mkdir()
    with_rows = [table for table in tables or TABLES if run.row_sources(table.name)]
    if not with_rows:
        say("esper-analyze: the run has no rows in these tables")
    return ", ".join(f"{table.name} {write(run, table, target / f'{table.name}.{to}'):,}" for table in with_rows)
