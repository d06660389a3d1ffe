"""Import of a long table, a row for each point: neptune-exporter's Parquet files, Aim's and MLflow's exports.

A row names its run, its metric, its step and its value. Rows that hold anything but a number (settings, texts, files)
are left out. Of Aim, metrics of different contexts keep their context in their name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial
from pathlib import Path

from esper_analyze.errors import UsageError
from esper_analyze.interchange.found_run import FoundRun, distinct, folder_name
from esper_analyze.interchange.imported import Imported, ImportLosses, Row
from esper_analyze.interchange.raw_log import RawLog
from esper_analyze.interchange.row_log import number_of
from esper_analyze.interchange.rows_file import column_names, rows_of
from esper_analyze.interchange.steps_log import Point, log_of


@dataclass(frozen=True, slots=True)
class LongLayout:
    """What an exporter calls the columns: the first of each that a file has counts."""

    format: str
    names: tuple[str, ...]
    values: tuple[str, ...]
    runs: tuple[str, ...]
    moments: tuple[str, ...]
    prefix: str = ""
    """What the exporter's users put before the names of a library."""


LAYOUTS = (
    LongLayout("neptune", ("attribute_path",), ("float_value",), ("run_id",), ("timestamp",), "metrics/"),
    LongLayout("aim", ("metric.name", "metric_name", "metric", "name"), ("value", "metric.value"),
           ("run.hash", "run_hash", "run", "run_id"), ("time", "timestamp")),
    LongLayout("mlflow", ("key",), ("value",), ("run_uuid", "run_id"), ("timestamp",)),
)  # fmt: skip
_CONTEXT = "context"
_NO_CONTEXT: tuple[object, ...] = (None, "", "{}", {})
_MILLISECONDS = 1e11
"""A moment above it is in milliseconds: as seconds it would be in the year 5138."""
_ContextPoint = tuple[str, Point]


def _column(names: Iterable[str], candidates: Iterable[str]) -> str | None:
    present = set(names)
    return next((name for name in candidates if name in present), None)


def _layout(path: Path) -> tuple[LongLayout, list[str]] | None:
    names = column_names(path)
    if names is None:
        return None
    for layout in LAYOUTS:
        if "step" in names and _column(names, layout.names) and _column(names, layout.values):
            return layout, names
    return None


def recognises(path: Path) -> Path | None:
    """Return ``path`` when it is a long table, else None."""
    return path if _layout(path) is not None else None


def runs(path: Path) -> list[FoundRun]:
    """Return the runs of the file ``path``. Raises ``UsageError`` or ``DamagedError``."""
    matched = _layout(path)
    if matched is None:
        raise UsageError(f"{path} is no table of points")
    layout, names = matched
    losses, points = ImportLosses(), dict[str, list[_ContextPoint]]()
    run_column = _column(names, layout.runs)
    for row in rows_of(path, losses):
        run = str(row.get(run_column)) if run_column else ""
        points.setdefault(run, []).extend(_points(row, names, layout))
    logged = {run: mine for run, mine in points.items() if mine}
    if not logged:
        raise UsageError(f"{path} holds no number of a series", hint="export metrics, not settings alone")
    folders = distinct([folder_name(run) for run in logged])
    return [
        FoundRun(folder, partial(_read, path, layout.format, mine, losses))
        for folder, mine in zip(folders, logged.values(), strict=True)
    ]


def _read(path: Path, kind: str, points: list[_ContextPoint], losses: ImportLosses, framework: str | None) -> Imported:
    contexts: dict[str, set[str]] = {}
    for context, (name, *_) in points:
        contexts.setdefault(name, set()).add(context)
    raw = RawLog(kind, [])
    raw.attempts = [
        log_of(
            (f"{name}/{context}" if context and len(contexts[name]) > 1 else name, step, value, wall)
            for context, (name, step, value, wall) in points
        )
    ]
    raw.losses.add(losses)
    return raw.imported(str(path), framework)


def _points(row: Row, names: list[str], layout: LongLayout) -> Iterator[_ContextPoint]:
    name, step = row.get(str(_column(names, layout.names))), _real(row.get("step"))
    value = _real(row.get(str(_column(names, layout.values))))
    if not isinstance(name, str) or value is None or step is None or step != step // 1:
        return
    context = "/".join(str(cell) for column, cell in row.items() if _CONTEXT in column and cell not in _NO_CONTEXT)
    moment = row.get(str(_column(names, layout.moments)))
    yield context, (name.removeprefix(layout.prefix), int(step), value, _moment(moment))


def _real(value: object) -> float | None:
    return float(value) if isinstance(value, Decimal) else number_of(value)


def _moment(cell: object) -> float | None:
    if isinstance(cell, datetime):
        return cell.timestamp()
    number = number_of(cell)
    return number / 1e3 if number is not None and number > _MILLISECONDS else number
