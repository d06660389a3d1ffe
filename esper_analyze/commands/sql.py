"""``esper-analyze sql``: queries over the tables of runs, in a sandboxed database."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esper_analyze.commands.options import AllAttempts, Json, SkipBroken
from esper_analyze.commands.run_options import open_runs
from esper_analyze.csv_text import SpreadsheetSafe, refuse_unless_csv
from esper_analyze.errors import EsperError, UsageError
from esper_analyze.sql.output import ResultFormat, run_one, write_result
from esper_analyze.sql.statements import COMMANDS, statements
from esper_analyze.storage.output_path import refuse_file
from esper_analyze.terminal import put, tell

if TYPE_CHECKING:
    from esper_analyze.sql.session import Session

Given = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN… [QUERY]",
        help="Runs, directories that hold runs, or patterns; then DuckDB SQL. Without a query: a prompt, or what a "
        "pipe says.",
    ),
]
_MOST_MEMORY = 1_000_000
"""Gigabytes; what is more overflows what DuckDB counts in."""
_QUERY_SIGNS = " \t\n\r;("


def sql(
    arguments: Given,
    shape: Annotated[
        ResultFormat | None,
        typer.Option("--format", help="How to write it; default: a table, or what FILE ends with."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write to this file, atomically.")
    ] = None,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV on stdout; null is an empty cell, NaN is nan.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="Rows shown in the table, 0 for all.")] = 100,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds after which the query is stopped.")] = 60.0,
    memory: Annotated[float, typer.Option(min=0.1, help="Gigabytes of memory for the query; more goes to disk.")] = 2.0,
    skip_broken: SkipBroken = False,
    all_attempts: AllAttempts = False,
    spreadsheet_safe: SpreadsheetSafe = False,
) -> None:
    """Query runs with SQL: each recorded table is a table, with the run's name in its first column, run.

    Beside the tables there are macros for the usual questions: `from first_fired()`; without a query, in a terminal,
    there is a prompt that lists them (.examples), completes names and remembers. Queries from a pipe run one by one.
    The query can read and write nothing else.

    In SQL, NaN is larger than every number: write `where isfinite(x)`. Null is what was not measured: NULL in a table,
    an empty cell in CSV, null in JSON and Parquet; NaN is nan, in JSON the text "NaN". Join tables of several runs
    by (run, rank, update). With --all-attempts each table has a column attempt, too.

    Example: esper-analyze sql RUN "SELECT update, kl_k3 FROM updates WHERE kl_k3 > 0.1"

    Example: esper-analyze sql runs/ "from learnable_by_phase()" --out phases.parquet
    """
    paths, query = split(arguments)
    _check_memory(memory)
    chosen = _format(shape, out, as_json=as_json, as_csv=as_csv)
    refuse_unless_csv(safe=spreadsheet_safe, is_csv=chosen is ResultFormat.CSV)
    if out is not None:
        refuse_file(out)
    runs = open_runs(paths, skip_broken=skip_broken, all_attempts=all_attempts).runs
    from esper_analyze.sql.session import Session

    with Session(runs, timeout=timeout, memory=int(memory * 1e9), attempts=all_attempts) as session:
        session.spreadsheet_safe = spreadsheet_safe
        if query is not None:
            _run_query(session, query, chosen, out, limit)
        elif sys.stdin.isatty():
            _refuse_out(out)
            from esper_analyze.sql.prompt import prompt

            prompt(session, chosen, limit)
        else:
            _piped(session, chosen, out, limit)


def _run_query(session: Session, query: str, shape: ResultFormat, out: Path | None, limit: int) -> None:
    if query.strip().startswith("."):
        _refuse_out(out)
        run_one(session, query.strip().rstrip(";"), shape, None, limit)
    else:
        write_result(session, query, shape, out=out, limit=limit)


def _check_memory(gigabytes: float) -> None:
    if not gigabytes <= _MOST_MEMORY:
        raise UsageError(f"--memory must be between 0.1 and {_MOST_MEMORY:,} GB, not {gigabytes:g}")


def split(arguments: Sequence[str]) -> tuple[list[Path], str | None]:
    """Return the runs and the query: the last argument, when it is not a path and reads like a query or dot command."""
    last = arguments[-1]
    reads = not last.strip() or any(sign in last for sign in _QUERY_SIGNS) or last in COMMANDS
    if os.path.exists(last) or not reads:  # noqa: PTH110 - a text too long for a path is not an error here
        return [Path(argument) for argument in arguments], None
    if len(arguments) == 1:
        raise UsageError("no run is given, only a query", hint='esper-analyze sql RUN "QUERY"')
    return [Path(argument) for argument in arguments[:-1]], last


def _format(shape: ResultFormat | None, out: Path | None, *, as_json: bool, as_csv: bool) -> ResultFormat:
    named = {"--json": as_json, "--csv": as_csv, "--format": shape is not None}
    chosen = [name for name, is_given in named.items() if is_given]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} exclude each other", hint="give one of them")
    if shape is not None:
        return shape
    if as_json or as_csv:
        return ResultFormat.JSON if as_json else ResultFormat.CSV
    if out is None:
        return ResultFormat.TABLE
    ending = out.suffix[1:].lower()
    if ending not in tuple(ResultFormat) or ending == ResultFormat.TABLE:
        raise UsageError(
            f"{out} does not say by its ending how to write it", hint="add --format csv|json|jsonl|parquet"
        )
    return ResultFormat(ending)


def _refuse_out(out: Path | None) -> None:
    if out is not None:
        raise UsageError("--out needs a query", hint='give it as the last argument: sql RUN "QUERY" --out FILE')


def _piped(session: Session, shape: ResultFormat, out: Path | None, limit: int) -> None:
    """Run the queries of a pipe in order; a failed one is reported and the others still run, then exit 2."""
    asked = list(statements(_input_name()))
    if not asked:
        raise UsageError("no query is given, and stdin says nothing", hint='esper-analyze sql RUN "QUERY"')
    if out is not None and len(asked) > 1:
        raise UsageError(f"--out takes one query, these are {len(asked)}", hint="give one after the other")
    worst = 0
    for index, statement in enumerate(asked):
        try:
            if index and shape is not ResultFormat.JSONL:
                put("\n")
            if not run_one(session, statement, shape, out, limit):
                return
            sys.stdout.flush()
        except EsperError as error:
            tell(error)
            worst = max(worst, error.exit_code)
    if worst:
        raise typer.Exit(worst)


def _input_name() -> str:
    """Return what stdin says."""
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise UsageError("what stdin says is not UTF-8", hint="save the queries as UTF-8") from error
