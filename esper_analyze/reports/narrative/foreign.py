"""Alarms of another tool's detector in an imported run, shown separately from our verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esper_analyze.replay.recorded_rules import foreign_rules
from esper_analyze.reports.render.rows import Cell, SectionTable

if TYPE_CHECKING:
    from esper_analyze.runs.run import RecordedRun

TITLE = "Alarms of the source's own detector"
_WORST = ("critical", "warning", "info")


def alarms(run: RecordedRun) -> SectionTable | None:
    """Return the alarms by name and subject with count and updates; None for a run that was not imported."""
    import polars as pl

    names = foreign_rules(run)
    if not names:
        return None
    columns = ["update", "rule", "subject", "verdict"]
    rows = run.frame("findings", columns).filter(pl.col("rule").is_in(sorted(names)))
    grouped = (
        rows.group_by("rule", "subject")
        .agg(
            verdicts=pl.col("verdict").unique(),
            alarms=pl.len(),
            first=pl.col("update").min(),
            last=pl.col("update").max(),
        )
        .sort("first", "rule", "subject")
    )
    cells: list[tuple[Cell, ...]] = []
    for rule, subject, verdicts, count, first, last in grouped.iter_rows():
        worst = next((verdict for verdict in _WORST if verdict in verdicts), verdicts[0])
        cells.append((rule, subject, worst, count, first, last))
    return SectionTable(("alarm", "on", "as_bad_as", "times", "first_update", "last_update"), tuple(cells))
