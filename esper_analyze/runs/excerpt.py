"""Some updates of a run as a run of their own: what is computed from it is of these updates alone."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from esper_analyze.runs.run import RecordedRun
from esper_analyze.schema.arrow import arrow_schema
from esper_analyze.schema.tables import TABLES
from esper_analyze.storage.row_source import ATTEMPT


def update_span(run: RecordedRun) -> tuple[int, int] | None:
    """Return the first and the last complete update; None without one."""
    parts = run.row_sources("updates")
    return (min(part.first_update for part in parts), max(part.last_update for part in parts)) if parts else None


def excerpt(run: RecordedRun, first: int, last: int) -> RecordedRun:
    """Return ``run`` with the rows of updates ``first`` to ``last`` alone, which are held in memory."""
    tables = {}
    for table in TABLES:
        parts = [
            part for part in run.row_sources(table.name) if part.first_update <= last and part.last_update >= first
        ]
        frames = [part.frame(table.names).filter(pl.col("update").is_between(first, last)) for part in parts]
        if frames:
            rows = pl.concat(frames).sort("rank", ATTEMPT, "seq")
            rows = rows.with_columns(seq=pl.int_range(pl.len(), dtype=pl.Int64))  # of several attempts it starts again
            tables[table.name] = rows.select(table.names).to_arrow().cast(arrow_schema(table))
    return replace(run, merged=tables)
