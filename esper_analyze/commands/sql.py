"""``esper-analyze sql``: one query over a run's tables, in a database that can touch nothing else."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Annotated

import typer

from esper_analyze.commands.options import AllAttempts, Json, RunPath, SkipBroken, tell_left_out
from esper_analyze.errors import UsageError
from esper_analyze.terminal import escaped, say, show_table

Query = Annotated[str, typer.Argument(metavar="QUERY", help="DuckDB SQL; `esper-analyze schema` names the columns.")]


def sql(
    run_path: RunPath,
    query: Query,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV on stdout; null is an empty cell, NaN is nan.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="Rows shown in the table, 0 for all.")] = 100,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds after which the query is stopped.")] = 60.0,
    memory: Annotated[float, typer.Option(min=0.1, help="Gigabytes of memory for the query; more goes to disk.")] = 2.0,
    skip_broken: SkipBroken = False,
    all_attempts: AllAttempts = False,
) -> None:
    """Query a run with SQL: each recorded table is a table. The query can read and write nothing else.

    In SQL, NaN is larger than every number: write `where isfinite(x)`.

    Example: esper-analyze sql RUN "SELECT update, kl_k3 FROM updates WHERE kl_k3 > 0.1"
    """
    from esper_analyze.commands.query import answer
    from esper_analyze.runs.run import open_run

    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other", hint="give one of them")
    run = open_run(run_path, skip_broken=skip_broken, all_attempts=all_attempts)
    tell_left_out(run)
    with answer(run, query, timeout=timeout, memory=int(memory * 1e9)) as result:
        if as_json:
            _write_json(result.columns, result.rows)
        elif as_csv:
            csv.writer(sys.stdout, lineterminator="\n").writerows(chain([result.columns], result.rows))
        else:
            _show(result.columns, result.rows, limit)


def _write_json(columns: Sequence[str], rows: Iterable[tuple[object, ...]]) -> None:
    """Write an array of objects, one row after the other: what does not fit in memory may yet fit down a pipe."""
    from esper_analyze.strict_json import strict_json

    before = "[\n "
    for row in rows:
        sys.stdout.write(before + strict_json(dict(zip(columns, row, strict=True))).rstrip("\n").replace("\n", "\n "))
        before = ",\n "
    sys.stdout.write("[]\n" if before.startswith("[") else "\n]\n")


def _show(columns: Sequence[str], rows: Iterator[tuple[object, ...]], limit: int) -> None:
    shown = list(islice(rows, limit or None))
    more = sum(1 for _ in rows)
    numbers = [name for k, name in enumerate(columns) if shown and isinstance(shown[0][k], (int, float))]
    show_table([escaped(name) for name in columns], [[_cell(value) for value in row] for row in shown], right=numbers)
    if more:
        say(f"{more} of {len(shown) + more} rows are not shown: use --limit 0, --json or --csv")


def _cell(value: object) -> str:
    if value is None:
        return "NULL"
    return f"{value:.6g}" if isinstance(value, float) else escaped(value)
