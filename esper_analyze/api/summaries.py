"""One row per run: what it is, how it ended, its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from esper_analyze.api.frames import Schema, frame
from esper_analyze.reports.listing import summary_of
from esper_analyze.runs.damaged_shard import naming_damaged_shard

if TYPE_CHECKING:
    from esper_analyze.runs.run import RecordedRun

SUMMARY: Schema = {
    "run": pl.String,
    "name": pl.String,
    "framework": pl.String,
    "algorithm": pl.String,
    "updates": pl.Int64,
    "status": pl.String,
    "verdict": pl.String,
    "label": pl.String,
    "rule": pl.String,
    "subject": pl.String,
    "update": pl.Int64,
    "unjudged": pl.String,
    "fault": pl.String,
    "path": pl.String,
}


def summary_frame(runs: Sequence[tuple[str, RecordedRun]]) -> pl.DataFrame:
    """Return one row for each of the labelled ``runs``, in their order."""
    return frame((_row(label, run) for label, run in runs), SUMMARY)


def _row(label: str, run: RecordedRun) -> tuple[object, ...]:
    with naming_damaged_shard(run):
        summary = summary_of(run)
    worst = summary.worst or {}
    what = (label, summary.name, summary.framework, summary.algorithm, summary.updates, summary.status)
    alarm = (worst.get("rule"), worst.get("subject"), worst.get("update"))
    return (*what, summary.verdict, summary.label, *alarm, summary.unjudged, summary.fault, str(run.path))
