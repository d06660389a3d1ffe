"""What another tool's detector said of an imported run: beside our verdicts, never among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esper_analyze.replay.recorded_rules import foreign_rules
from esper_analyze.reports.render.rows import Cell, Rows

if TYPE_CHECKING:
    from esper_analyze.runs.run import RecordedRun

TITLE = "Alarms of the source's own detector"
_WORST = ("critical", "warning", "info")


def alarms(run: RecordedRun) -> Rows | None:
    """Return its alarms by name and subject: how many, from which update to which; None for a run of our own."""
    import polars as pl

    names = foreign_rules(run)
    if not names:
        return None
    columns = ["update", "rule", "subject", "verdict"]
    rows = run.frame("findings", columns).filter(pl.col("rule").is_in(sorted(names)))
    found = (
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
    for rule, subject, verdicts, count, first, last in found.iter_rows():
        worst = next((one for one in _WORST if one in verdicts), verdicts[0])
        cells.append((rule, subject, worst, count, first, last))
    return Rows(("alarm", "on", "as_bad_as", "times", "first_update", "last_update"), tuple(cells))
