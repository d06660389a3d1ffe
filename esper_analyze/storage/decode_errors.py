"""Name the file at fault when a shard that its checksum vouches for cannot be read all the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from esper_analyze.errors import DamagedError, EsperError
from esper_analyze.schema.tables import BY_NAME
from esper_analyze.schema.views import literal_path, quote_text

if TYPE_CHECKING:
    import duckdb

    from esper_analyze.runs.run import RecordedRun

_NEXT = "`esper-analyze verify` looks at every cell; without the file --skip-broken reads the rest"


@contextmanager
def decoding(path: Path | None) -> Iterator[None]:
    """Turn whatever a library raises while it decodes ``path`` into ``DamagedError``; None: rows in memory.

    A panic of polars is no ``Exception``.
    """
    try:
        yield
    except (EsperError, MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if path is None:
            raise
        raise DamagedError(f"{path} cannot be decoded ({type(error).__name__})", hint=_NEXT) from error


@contextmanager
def blamed(run: RecordedRun) -> Iterator[None]:
    """Turn an error that nobody foresaw into ``DamagedError`` when a shard of ``run`` holds what no recorder writes.

    Cells are looked at only now: to look at all of them whenever a run is opened would take as long as to read it.
    """
    try:
        yield
    except (EsperError, MemoryError):
        raise
    except Exception as error:
        fault = _first_fault(run)
        if fault is None:
            raise
        raise DamagedError(fault, hint=_NEXT) from error


@contextmanager
def undecodable(connection: duckdb.DuckDBPyConnection, files: Sequence[str]) -> Iterator[None]:
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


def _first_fault(run: RecordedRun) -> str | None:
    from esper_analyze.storage.shard_scan import entry_faults, shard_contents

    for attempt in run.attempts:
        for path, entry in attempt.shards:
            found = shard_contents(path, BY_NAME[entry.table], attempt.rank)
            for fault in (*found.faults, *entry_faults(entry, found)):
                return f"{path} {fault}"
    return None
