"""SQL over opened runs, in a database that can touch nothing else; the result is a polars frame."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from esper_analyze.errors import UsageError
from esper_analyze.sql.session import Session

if TYPE_CHECKING:
    from esper_analyze.runs.run import RecordedRun

QueryParameters = Sequence[object] | Mapping[str, object]
_MOST_MEMORY = 1_000_000.0
_PARAMETERS = "give a list for $1, $2 …, a dict for $name"


def queried(
    runs: Sequence[tuple[str, RecordedRun]],
    query: str,
    parameters: QueryParameters | None,
    *,
    timeout: float,
    memory: float,
    attempts: bool = False,
) -> pl.DataFrame:
    """Return what ``query`` finds in the tables of labelled ``runs``; ``memory`` is in gigabytes.

    Raises ``UsageError`` for what is not a query, for what DuckDB objects to, and when time or memory is used up.
    """
    if not isinstance(query, str):
        raise UsageError(f"a query is a text, not {query!r:.80}")
    if not isinstance(timeout, (int, float)) or not 0 < timeout < math.inf:
        raise UsageError(f"timeout={timeout!r} is not a number of seconds above 0")
    if not isinstance(memory, (int, float)) or not 0.1 <= memory <= _MOST_MEMORY:
        raise UsageError(f"memory={memory!r} must be between 0.1 and {_MOST_MEMORY:,.0f} GB")
    size = int(memory * 1e9)
    with Session(runs, timeout=timeout, memory=size, attempts=attempts, ends_process=False) as session:
        try:
            with session.arrow(query, parameters) as (schema, batches):
                rows = pa.Table.from_batches(_bounded(batches, size), schema)
        except TypeError as error:
            if parameters is None:
                raise
            raise UsageError(f"parameters={parameters!r:.80} cannot be used: {error}", hint=_PARAMETERS) from error
    return _plain(_frame(rows))


def _bounded(batches: Iterator[pa.RecordBatch], most: int) -> Iterator[pa.RecordBatch]:
    """Pass on ``batches``. Raises ``UsageError`` once they take more than ``most`` bytes."""
    size = 0
    for batch in batches:
        size += batch.nbytes
        if size > most:
            raise UsageError(
                f"the result takes more than {most / 1e9:g} GB of memory",
                hint="ask for less, or raise memory",
            )
        yield batch


def _frame(rows: pa.Table) -> pl.DataFrame:
    names = rows.column_names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"the result has two columns named {twice}", hint="name one: x AS other")
    try:
        return pl.DataFrame(rows)
    except (pl.exceptions.PolarsError, pa.ArrowException) as error:
        reason = str(error).partition(". Hint")[0]
        raise UsageError(f"polars cannot hold the result: {reason}", hint="cast it to text: x::varchar") from error


def _plain(rows: pl.DataFrame) -> pl.DataFrame:
    """Return whole numbers as integers where they fit (DuckDB sums are decimals), and labels as text."""
    wide = [name for name, kind in rows.schema.items() if isinstance(kind, pl.Decimal) and kind.scale == 0]
    fits = [name for name in wide if rows[name].cast(pl.Int64, strict=False).null_count() == rows[name].null_count()]
    labels = [name for name, kind in rows.schema.items() if kind in (pl.Categorical, pl.Enum)]
    return rows.with_columns(pl.col(fits).cast(pl.Int64), pl.col(labels).cast(pl.String))
