"""Export to a TensorBoard event file: a scalar for every number of every update, its step the update.

TensorBoard's scalars are float32: what is finite and too large for one is infinite there, and counted. Null is no
event; NaN and infinities are events. Words out of a declared set stand as their position in it, free text is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from esper_analyze.interchange.event_file import event_file, too_large
from esper_analyze.interchange.export_wide import wall_times, wide
from esper_analyze.interchange.names_own import split
from esper_analyze.runs.run import RecordedRun
from esper_analyze.schema.column import Column, Kind, Table

if TYPE_CHECKING:
    import polars

Event = tuple[int, float, list[tuple[str, float]]]


def write_events(run: RecordedRun, tables: Sequence[Table], folder: Path) -> tuple[int, int]:
    """Write an event file into ``folder``; return the number of updates, and of values too large for float32."""
    table = wide(run, tables)
    created = _number(run.info.get("created"))
    name = f"events.out.tfevents.{int(created):010d}.export.0"
    events = list(_events(table, created))
    (folder / name).write_bytes(event_file(events, created))
    return table.height, sum(too_large(value) for _, _, values in events for _, value in values)


def _number(created: object) -> float:
    return float(created) if isinstance(created, (int, float)) else 0.0


def _events(table: polars.DataFrame, created: float) -> Iterator[Event]:
    tags = [(name, column) for name in table.columns if (column := _exported(name)) is not None]
    clock = wall_times(table)
    walls = table[clock].to_list() if clock else [None] * table.height
    codes = [_codes(column) for _, column in tags]
    rows = table.select(["update", *(name for name, _ in tags)]).iter_rows()
    last = created
    for (update, *cells), wall in zip(rows, walls, strict=True):
        last = wall if wall is not None else last
        values = [
            (name, float(cell if code is None else code[cell]))
            for (name, _), code, cell in zip(tags, codes, cells, strict=True)
            if cell is not None
        ]
        yield update, last, values


def _exported(name: str) -> Column | None:
    parts = split(name)
    column = None if parts is None else parts[0].column(parts[2])
    return None if column is None or column.kind is Kind.TEXT else column


def _codes(column: Column) -> dict[str, int] | None:
    return {word: index for index, word in enumerate(column.choices)} if column.kind is Kind.CHOICE else None
