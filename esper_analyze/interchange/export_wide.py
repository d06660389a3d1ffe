"""Everything of an update in one row, with columns ``updates/COLUMN`` and ``TABLE/SUBJECT/COLUMN``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from esper_analyze.errors import UsageError
from esper_analyze.interchange.names_own import series_columns
from esper_analyze.runs.run import RecordedRun
from esper_analyze.schema.column import Table
from esper_analyze.schema.tables import UPDATES

if TYPE_CHECKING:
    import polars
    import pyarrow as pa

MOST_COLUMNS = 20_000
"""A wider file opens in no tool; 64 heads are some thousand columns."""


def wide(run: RecordedRun, tables: Sequence[Table]) -> polars.DataFrame:
    """Return one row an update with what ``tables`` say of it; a column that is null throughout is left out.

    When an update has two rows of one subject, the later one stands. Raises ``UsageError`` beyond MOST_COLUMNS.
    """
    import polars

    parts = [part for table in tables for part in _parts(run.frame(table.name), table)]
    columns = sum(frame.width - 1 for frame in parts)
    if columns > MOST_COLUMNS:
        raise UsageError(f"{columns:,} columns are more than {MOST_COLUMNS:,}", hint="choose tables: --table updates")
    updates = polars.concat([frame.select("update") for frame in parts]).unique().sort("update")
    for frame in parts:
        updates = updates.join(frame, on="update", how="left", maintain_order="left")
    return updates


def _parts(rows: polars.DataFrame, table: Table) -> list[polars.DataFrame]:
    if table.subject is None:
        return [_named(rows, table, table.name)]
    subjects = rows[table.subject].unique(maintain_order=True).to_list()
    return [_named(rows.filter(rows[table.subject] == key), table, f"{table.name}/{key}") for key in subjects]


def _named(rows: polars.DataFrame, table: Table, prefix: str) -> polars.DataFrame:
    latest = rows.unique("update", keep="last", maintain_order=True)
    names = [name for name in series_columns(table) if latest[name].null_count() < latest.height]
    return latest.select("update", *(latest[name].alias(f"{prefix}/{name}") for name in names))


def write_parquet(data: pa.Table, path: Path) -> None:
    """Write ``data`` to ``path``: floats without statistics, by which DuckDB 2.0.0 answers wrongly about NaN."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    integers = [field.name for field in data.schema if pa.types.is_integer(field.type)]
    pq.write_table(data, path, compression="zstd", write_statistics=integers or False)


def write_wide(run: RecordedRun, tables: Sequence[Table], path: Path) -> int:
    """Write one row an update to the Parquet file ``path`` and return the rows."""
    table = wide(run, tables)
    write_parquet(table.to_arrow(compat_level=_oldest()), path)
    return table.height


def write_table(run: RecordedRun, table: Table, path: Path) -> int:
    """Write the rows of one table to the Parquet file ``path`` and return their number."""
    import pyarrow as pa

    from esper_analyze.schema.arrow import arrow_schema

    parts = [part.read(table.names).cast(arrow_schema(table)) for part in run.row_sources(table.name)]
    data = pa.concat_tables(parts) if parts else arrow_schema(table).empty_table()
    write_parquet(data, path)
    return int(data.num_rows)


def _oldest() -> polars.CompatLevel:
    import polars

    return polars.CompatLevel.oldest()


def wall_times(table: polars.DataFrame) -> str | None:
    """Return the column of ``table`` that says when each update ended, None when none does."""
    name = f"{UPDATES.name}/wall_time"
    return name if name in table.columns else None
