"""An imported source becomes a run directory like any other: written aside, judged, and put in place by one rename."""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from esper_analyze.errors import DamagedError
from esper_analyze.interchange.destination import refuse_existing, staged
from esper_analyze.interchange.imported import Imported, ImportedAttempt, Row
from esper_analyze.schema import VERSION
from esper_analyze.schema.tables import BY_NAME, TABLES
from esper_analyze.schema.validate import table_faults
from esper_analyze.storage import layout
from esper_analyze.storage.atomic import append_line, write_whole
from esper_analyze.storage.entries import arrow_table
from esper_analyze.storage.shard_file import seal
from esper_analyze.strict_json import plain

if TYPE_CHECKING:
    import pyarrow as pa

    from esper_analyze.detector.detector import Outcome
    from esper_analyze.replay.replay import Replay

SHARD_ROWS = 250_000
"""Rows of a shard: a quarter of what a reader takes of the widest table."""

LAST_UPDATE = 1 << 53
"""No training has so many."""


@dataclass(frozen=True, slots=True)
class Written:
    """A run that was made: rows by table, and how many findings our detector made over it."""

    path: Path
    rows: Mapping[str, int]
    updates: int
    alarms: int
    foreign: int


def write_imported(out: Path, imported: Imported) -> Written:
    """Write ``imported`` as a run at ``out``, with what our detector says of it. Raises ``UsageError``.

    ``out`` must not exist. Until all is there it is made under another name beside it.
    """
    refuse_existing(out)
    tables = _in_order(imported)
    facts = _facts(out, imported)
    replayed = _judged(out, facts, tables)
    tables["findings"] = [finding.as_row() for finding in (*replayed.findings, *imported.foreign)]
    tables["levels"] = [
        {name: getattr(change, name) for name in BY_NAME["levels"].names if hasattr(change, name)}
        for change in replayed.levels
    ]
    with staged(out) as folder:
        _write(folder, facts, _by_attempt(tables, imported.attempts))
    rows = {table.name: len(tables[table.name]) for table in TABLES if tables.get(table.name)}
    alarms = sum(finding.alarm for finding in replayed.findings)
    return Written(out, rows, len(tables["updates"]), alarms, len(imported.foreign))


def _in_order(imported: Imported) -> dict[str, list[Row]]:
    """Return the rows of every table by update, losses included; of updates that cannot be there is none."""
    tables = {}
    for name, rows in imported.rows.items():
        sound = [row for row in rows if 0 <= _update(row) < LAST_UPDATE]
        if len(sound) < len(rows):
            lost = len(rows) - len(sound)
            imported.losses.count(
                "impossible_update", f"row of {name} with an impossible update number", times=lost, lost=lost
            )
        if sound:
            tables[name] = sorted(sound, key=_update)
    if "updates" not in tables:
        raise DamagedError(
            "the source contains no update: nothing was imported", hint="; ".join(imported.losses.sentences())
        )
    tables["losses_of_data"] = [*tables.get("losses_of_data", []), *imported.losses.rows()]
    imported.foreign = [finding for finding in imported.foreign if 0 <= finding.update < LAST_UPDATE]
    return tables


def _update(row: Row) -> int:
    return int(str(row["update"]))


def _facts(out: Path, imported: Imported) -> Row:
    """Return run.json."""
    from esper_analyze.detector.rule import revisions
    from esper_analyze.detector.rules import RULES
    from esper_analyze.detector.thresholds import Thresholds

    versions = {"esper-analyze": metadata.version("esper-analyze")}
    stated = {name: fact for name, fact in imported.facts.items() if fact is not None}
    source: Row = {"format": imported.format, "columns": imported.columns, "left_out": imported.left_out}
    if imported.remarks:
        source["remarks"] = imported.remarks
    return {
        "schema_version": VERSION,
        "run_id": uuid.uuid4().hex,
        "created": time.time(),
        "name": out.name,
        "level": "NORMAL",
        "ranks": 1,
        "versions": versions,
        "heads": {},
        "thresholds": Thresholds.defaults(RULES).as_dict(),
        "rule_revisions": revisions(RULES),
        "imported_from": imported.format,
        "foreign_rules": sorted({finding.rule for finding in imported.foreign}),
        **stated,
        "source": source | _mapping(stated.get("source")),
    }


def _mapping(value: object) -> Row:
    return {str(name): cell for name, cell in value.items()} if isinstance(value, Mapping) else {}


def _judged(out: Path, facts: Row, tables: Mapping[str, list[Row]]) -> Replay:
    """Run our detector over the rows, and fill the columns that it fills."""
    from esper_analyze.replay.replay import replay
    from esper_analyze.runs.run import RecordedRun

    data = {name: _arrow(name, rows, 0) for name, rows in tables.items() if rows}
    filled: dict[tuple[str, str], Row] = {}

    def observe(outcome: Outcome) -> None:
        for (table, column), (subjects, values) in outcome.filled.items():
            for index, update in enumerate(outcome.update.tolist()):
                for subject, value in zip(subjects, values[index].tolist(), strict=True):
                    if not math.isnan(value):
                        filled.setdefault((table, f"{update} {subject}"), {})[column] = value

    result = replay(RecordedRun(out, facts, (), data), observe=observe)
    for table in {table for table, _ in filled}:
        for row in tables[table]:
            row.update(filled.get((table, f"{row['update']} {row[str(BY_NAME[table].subject)]}"), {}))
    return result


def _arrow(name: str, rows: Sequence[Row], first: int) -> pa.Table:
    data = arrow_table(BY_NAME[name], [(first, rows)])
    faults = table_faults(BY_NAME[name], data)
    if faults:
        raise DamagedError(f"the source's {name} cannot be stored: {faults[0]}")
    return data


def _by_attempt(tables: Mapping[str, list[Row]], attempts: Sequence[ImportedAttempt]) -> list[dict[str, list[Row]]]:
    """Return the tables of each attempt: the rows that stand, and those that a later attempt replaced.

    From its first update on an attempt stands, as one that the recorder resumed.
    """
    if not attempts:
        return [dict(tables)]
    firsts = [0, *(attempt.first for attempt in attempts)]
    parts: list[dict[str, list[Row]]] = [{} for _ in firsts]
    views = [*(attempt.superseded for attempt in attempts), tables]
    for latest, view in enumerate(views):
        for name, rows in view.items():
            for row in rows:
                writer = max(number for number in range(latest + 1) if firsts[number] <= _update(row))
                parts[writer].setdefault(name, []).append(row)
    return [{name: sorted(rows, key=_update) for name, rows in part.items()} for part in parts]


def _write(folder: Path, facts: Row, attempts: Sequence[Mapping[str, list[Row]]]) -> None:
    folder.mkdir(parents=True)
    write_whole(folder / layout.RUN_FILE, json.dumps(plain(facts), indent=1, allow_nan=False).encode())
    for number, tables in enumerate(attempts):
        _write_attempt(folder / layout.rank_folder(0) / layout.attempt_folder(number, uuid.uuid4().hex[:8]), tables)


def _write_attempt(attempt: Path, tables: Mapping[str, list[Row]]) -> None:
    attempt.mkdir(parents=True)
    seq = 0
    written: dict[str, Row] = {}
    for table in TABLES:
        rows = tables.get(table.name, [])
        for number, start in enumerate(range(0, len(rows), SHARD_ROWS), start=1):
            data = _arrow(table.name, rows[start : start + SHARD_ROWS], seq)
            append_line(attempt / layout.MANIFEST_FILE, seal(attempt, table, number, data).as_line())
            seq += data.num_rows
        if rows:
            written[table.name] = {"rows": len(rows), "last_update": max(map(_update, rows))}
    marker = {"reason": "imported", "closed_at": time.time(), "lost_rows": 0, "tables": written}
    write_whole(attempt / layout.CLOSED_FILE, json.dumps(marker, indent=1).encode())
