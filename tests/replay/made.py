"""Runs held in memory, and results of a replay made of a few facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from esper_analyze.runs.run import RecordedRun
from esper_analyze.schema.tables import BY_NAME
from esper_analyze.storage.attempts import Attempt
from esper_analyze.storage.entries import arrow_table

PATH = Path("made")
READY = {"status": "performed", "level": "NORMAL"}


def run(
    info: Mapping[str, Any] | None = None,
    *,
    path: Path = PATH,
    ranks: int = 0,
    **tables: Sequence[Mapping[str, object]],
) -> RecordedRun:
    """Return a run of the rows in ``tables``; of updates only what is asked of them must be given."""
    rows = {
        name: arrow_table(BY_NAME[name], [(0, [{**(READY if name == "updates" else {}), **row} for row in of_table])])
        for name, of_table in tables.items()
    }
    return RecordedRun(path, dict(info or {}), tuple(Attempt(path, rank, 0) for rank in range(ranks)), rows)


def updates(count: int, **cells: object) -> list[dict[str, object]]:
    """Return rows of the updates 0 to ``count`` - 1, all with ``cells``."""
    return [{"update": update, **cells} for update in range(count)]
