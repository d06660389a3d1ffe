"""What is read out of a golden run: every cell as today's columns, what ``verify`` says, and the report."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import polars as pl

from esper_analyze.replay.evidence import gather
from esper_analyze.reports.write import FACTS_FILE, write_report
from esper_analyze.runs.run import open_run
from esper_analyze.schema import TABLES
from esper_analyze.storage.maintenance.verify import verify
from esper_analyze.strict_json import strict_json

GOLDEN = Path(__file__).parent
EXPECTED = "expected.json"
PROSE = ("headline", "now", "why", "next", "paragraph", "look_first", "causes", "caveats")
"""Sentences of a report: each has a test of its own, golden runs hold cells and judgements."""


def stored(version: str) -> dict[str, Any]:
    """Return what was stored for ``version``."""
    facts = dict(json.loads((GOLDEN / version / EXPECTED).read_text()))
    return facts | {"cells": recorded(facts["cells"])}


def found(version: str, scratch: Path) -> dict[str, Any]:
    """Return what is read out of the run of ``version`` now."""
    run_dir = GOLDEN / version / "run"
    checked = verify(run_dir).as_dict()
    write_report(gather(open_run(run_dir)), scratch)
    report = json.loads((scratch / FACTS_FILE).read_text().replace(str(run_dir), "RUN"))
    for key in PROSE:
        del report[key]
    for question in report["questions"]:
        del question["asks"], question["words"]
    # What "explained" adds to the incidents are the rules' own words.
    for facts, own in ((checked, "run"), (checked, "path"), (report["run"], "path"), (report, "explained")):
        del facts[own]
    facts = {"cells": recorded(cells(run_dir)), "verify": checked, "report": report}
    return dict(json.loads(strict_json(facts)))


def cells(run_dir: Path) -> dict[str, dict[str, Any]]:
    """Return the rows of each table, and a digest of each column to the last bit."""
    run = open_run(run_dir)
    frames = {table.name: run.frame(table.name) for table in TABLES}
    return {
        name: {"rows": len(frame), **{column: digest(frame[column]) for column in frame.columns}}
        for name, frame in frames.items()
    }


def recorded(tables: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return ``tables`` without the columns that are null: one declared later changes no older version's facts."""
    return {
        name: {column: facts for column, facts in columns.items() if facts != "null"}
        for name, columns in tables.items()
    }


def digest(column: pl.Series) -> str:
    """Return 12 hex digits over the cells; "null" where all are, so that what was not recorded can be seen."""
    if column.null_count() == len(column):
        return "null"
    words = [cell.hex() if isinstance(cell, float) else repr(cell) for cell in column.to_list()]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:12]
