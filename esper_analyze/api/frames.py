"""Records and rows of the lower layers as polars frames with fixed columns and types."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import polars as pl

from esper_analyze.detector.incidents import Incident
from esper_analyze.reports.render.rows import Cell, SectionTable

if TYPE_CHECKING:
    from esper_analyze.detector.escalation import LevelChange
    from esper_analyze.detector.findings import Finding
    from esper_analyze.replay.whatif import Alarm, AlarmChange

Schema = dict[str, type[pl.DataType]]

INCIDENTS: Schema = {
    "start": pl.Int64,
    "end": pl.Int64,
    "verdict": pl.String,
    "rule": pl.String,
    "subject": pl.String,
    "metric": pl.String,
    "onset": pl.Int64,
    "peak": pl.Float64,
    "peak_update": pl.Int64,
    "statistic": pl.String,
    "threshold": pl.Float64,
    "now": pl.Float64,
    "now_update": pl.Int64,
    "updates_in_alarm": pl.Int64,
    "ended": pl.String,
    "cause": pl.String,
}
FINDINGS: Schema = {
    "update": pl.Int64,
    "rule": pl.String,
    "subject": pl.String,
    "metric": pl.String,
    "verdict": pl.String,
    "previous": pl.String,
    "value": pl.Float64,
    "threshold": pl.Float64,
    "baseline": pl.Float64,
    "reason": pl.String,
}
LEVELS: Schema = {
    "update": pl.Int64,
    "level": pl.String,
    "previous": pl.String,
    "rule": pl.String,
    "subject": pl.String,
    "finding_update": pl.Int64,
    "until": pl.Int64,
}
CHANGES: Schema = {
    "change": pl.String,
    "rule": pl.String,
    "subject": pl.String,
    "metric": pl.String,
    "verdict": pl.String,
    "live_start": pl.Int64,
    "live_end": pl.Int64,
    "now_start": pl.Int64,
    "now_end": pl.Int64,
}


def frame(rows: Iterable[Sequence[object]], schema: Schema) -> pl.DataFrame:
    """Return ``rows`` as a frame with the columns and types of ``schema``."""
    return pl.DataFrame(list(rows), schema=schema, orient="row")


def incident_frame(incidents: Sequence[Incident]) -> pl.DataFrame:
    """Return one row per incident, the earliest first; ``cause`` names the rule of the incident it is shown under."""
    ordered = sorted(incidents, key=lambda incident: incident.start)
    return frame((_incident(incidents, incident) for incident in ordered), INCIDENTS)


def _incident(incidents: Sequence[Incident], incident: Incident) -> list[object]:
    cells = asdict(incident) | {
        "verdict": incident.peak_verdict,
        "updates_in_alarm": incident.count,
        "cause": None if incident.cause is None else incidents[incident.cause].rule,
    }
    return [cells[name] for name in INCIDENTS]


def finding_frame(findings: Iterable[Finding]) -> pl.DataFrame:
    """Return one row per change of verdict."""
    return frame(([asdict(finding)[name] for name in FINDINGS] for finding in findings), FINDINGS)


def level_frame(levels: Iterable[LevelChange]) -> pl.DataFrame:
    """Return one row per change of the telemetry level."""
    return frame(([asdict(level)[name] for name in LEVELS] for level in levels), LEVELS)


def change_frame(changes: Iterable[AlarmChange]) -> pl.DataFrame:
    """Return one row per alarm, live or now; updates are null on the side that has none, ends while it is open."""
    return frame((_change(change) for change in changes), CHANGES)


def _change(change: AlarmChange) -> tuple[object, ...]:
    alarm = change.about
    what = (change.what, alarm.rule, alarm.subject, alarm.metric, alarm.verdict)
    return (*what, *_span(change.live), *_span(change.now))


def _span(alarm: Alarm | None) -> tuple[int | None, int | None]:
    return (None, None) if alarm is None else (alarm.start, alarm.end)


def row_frame(rows: SectionTable) -> pl.DataFrame:
    """Return the rows of a section; a column that mixes numbers with words becomes text."""
    records = list(rows.records())
    return pl.DataFrame([_column(name, [record[name] for record in records]) for name in rows.columns])


def _column(name: str, cells: Sequence[Cell]) -> pl.Series:
    kinds = {type(cell) for cell in cells if cell is not None}
    if kinds and kinds <= {int, float}:
        numbers = [cell if cell is None else float(cell) for cell in cells]  # type: ignore[arg-type]
        return pl.Series(name, cells, pl.Int64) if kinds == {int} else pl.Series(name, numbers, pl.Float64)
    if kinds == {bool}:
        return pl.Series(name, cells, pl.Boolean)
    return pl.Series(name, [None if cell is None else str(cell) for cell in cells], pl.String)
