"""Runs held in memory, and results of a replay made of a few facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from esper_analyze.runs.run import RecordedRun
from esper_analyze.schema.tables import BY_NAME
from esper_analyze.storage.attempts import Attempt
from esper_analyze.storage.entries import arrow_table
from esper_analyze.storage.row_source import RowSource, in_memory

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
    """Return rows of the updates 0 to ``count`` - 1, all with ``cells``, as the recorder counts minibatches."""
    return [{"update": update, "minibatches": 8, **cells} for update in range(count)]


@dataclass(frozen=True)
class InParts(RecordedRun):
    """A run whose tables are in several pieces of memory."""

    parts: dict[str, list[RowSource]] = field(default_factory=dict)

    def row_sources(self, table: str, rank: int | None = None) -> list[RowSource]:  # noqa: ARG002
        """Return the pieces of ``table``."""
        return self.parts.get(table, [])


def in_parts(until: int | None = None, *, path: Path = PATH, **tables: list[list[int]]) -> InParts:
    """Return a run of which each piece has rows of these updates."""
    attempt = Attempt(path, 0, 0)
    attempt.until = until
    pieces = {
        name: [in_memory(BY_NAME[name], _rows(name, piece), attempt) for piece in of] for name, of in tables.items()
    }
    return InParts(path, {}, (), None, pieces)


def _rows(name: str, piece: list[int]) -> pa.Table:
    """Return rows of a table for these updates."""
    subject = {"head": "op"} if name == "heads" else READY
    return arrow_table(BY_NAME[name], [(0, [{"update": update, **subject} for update in piece])])
