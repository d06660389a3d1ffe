"""Load tables of one or many runs into a DuckDB connection without access to files or network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from esper_analyze.schema import TABLES
from esper_analyze.schema.column import Table
from esper_analyze.schema.macros import MACROS
from esper_analyze.schema.views import literal_path, quote_identifier, quote_text
from esper_analyze.storage.decode_errors import decoding

if TYPE_CHECKING:
    import duckdb

    from esper_analyze.runs.run import RecordedRun

RUN_COLUMN, ATTEMPT_COLUMN = "run", "attempt"


def sandbox(
    runs: Sequence[tuple[str, RecordedRun]],
    tables: Sequence[str] | None = None,
    *,
    memory: int = 2 * 10**9,
    threads: int = 2,
    spill: Path | None = None,
    attempts: bool = False,
) -> duckdb.DuckDBPyConnection:
    """Return a locked connection with the tables of labelled ``runs`` loaded, and the macros over them.

    ``tables`` are the ones to load (default: all). Each begins with a column ``run``, and with ``attempts`` a column
    ``attempt``. After loading, external access, extensions and settings are locked permanently. ``memory`` limits the
    bytes of DuckDB; ``spill`` is a directory for larger intermediate results, without it such a query fails.
    """
    import duckdb

    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{memory * 4 // 5 // 10**6}MB",  # the rest is for memory that DuckDB does not count
        "threads": threads,
        "temp_directory": "" if spill is None else str(spill),
        "python_enable_replacements": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    connection = duckdb.connect(":memory:", config=settings)
    loaded = [table for table in TABLES if tables is None or table.name in tables]
    for table in loaded:
        _load(connection, table, runs, attempts=attempts)
    for macro in MACROS:
        if set(macro.tables) <= {table.name for table in loaded}:
            connection.execute(macro.create)
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")
    return connection


def _load(
    connection: duckdb.DuckDBPyConnection, table: Table, runs: Sequence[tuple[str, RecordedRun]], *, attempts: bool
) -> None:
    # An enum takes one byte a row; a text label would take sixteen, because rows in memory are not compressed.
    kind = f"enum({', '.join(quote_text(label) for label, _ in runs)})"
    queries, registered, files = [], list[str](), list[str]()
    for number, (label, run) in enumerate(runs):
        files += run.files(table.name)
        for attempt, piece in _pieces(run, attempts=attempts):
            named = f"run {number}, {'' if attempt is None else f'attempt {attempt}, '}"
            selects, names = piece.row_queries(connection, table, name_prefix=named)
            registered += names
            fact = "" if attempt is None else f"cast({attempt} as bigint) as {ATTEMPT_COLUMN}, "
            own = f"select cast({quote_text(label)} as {kind}) as {RUN_COLUMN}, {fact}*"
            queries += [f"{own} from ({select})" for select in selects]
    name = quote_identifier(table.name)
    with _naming_damaged(connection, files):
        for place, query in enumerate(queries):  # one by one: each keeps memory for its files until it ends
            into = f"insert into {name}" if place else f"create table {name} as"
            connection.execute(f"{into} {query}")
    for name in registered:
        connection.unregister(name)


def _pieces(run: RecordedRun, *, attempts: bool) -> Iterator[tuple[int | None, RecordedRun]]:
    """Yield the complete run, or with ``attempts`` each attempt of each rank with its number."""
    if not attempts or not run.attempts:
        yield (0 if attempts else None), run
        return
    for attempt in sorted(run.attempts, key=lambda attempt: (attempt.rank, attempt.number)):
        yield attempt.number, replace(run, attempts=(attempt,))


@contextmanager
def _naming_damaged(connection: duckdb.DuckDBPyConnection, files: Sequence[str]) -> Iterator[None]:
    """Find which of ``files`` it is when DuckDB cannot load them; it does not always say."""
    import duckdb

    try:
        yield
    except (duckdb.OutOfMemoryException, duckdb.InterruptException):
        raise
    except duckdb.Error:
        for file in files:
            with decoding(Path(file)):
                rows = f"select * from read_parquet([{quote_text(literal_path(file))}])"
                connection.execute(f"create or replace temp table probe as {rows}")
        raise
