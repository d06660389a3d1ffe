"""Runs written by hand, shard by shard: a few rows, in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from esper_analyze.schema import BY_NAME
from esper_analyze.schema.history import VERSION, VERSION_KEY
from esper_analyze.storage.entries import arrow_table
from esper_analyze.storage.layout import (
    CLOSED_FILE,
    MANIFEST_FILE,
    ShardEntry,
    attempt_folder,
    log_name,
    rank_folder,
)
from esper_analyze.storage.log_frames import MAGIC, encode
from esper_analyze.storage.shard_file import seal

Row = Mapping[str, Any]


def updates(*numbers: int, **cells: Any) -> list[Row]:
    """Return a row of table updates for each number."""
    return [{"update": number, "status": "performed", "level": "NORMAL", **cells} for number in numbers]


def heads(number: int, *names: str, **cells: Any) -> list[Row]:
    """Return a row of table heads for each name."""
    return [{"update": number, "head": name, "kind": "categorical", **cells} for name in names]


@dataclass
class HandmadeAttempt:
    """One writer's folder. Rows get sequence numbers as they are sealed or logged."""

    run: Path
    rank: int = 0
    number: int = 0
    seq: int = 0
    shards: int = 0
    entries: list[ShardEntry] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder = (
            self.run / rank_folder(self.rank) / attempt_folder(self.number, f"{self.rank:04x}{self.number:04x}")
        )
        self.folder.mkdir(parents=True)

    def seal(self, *, listed: bool = True, **tables: Sequence[Row]) -> list[ShardEntry]:
        """Seal rows of tables under one number; ``listed`` False: the manifest does not name them."""
        self.shards += 1
        sealed = []
        for name, rows in tables.items():
            data = arrow_table(BY_NAME[name], [(self.seq, rows)], self.rank)
            sealed.append(seal(self.folder, BY_NAME[name], self.shards, data))
            self._count(name, len(rows))
        if listed:
            self.entries += sealed
            with (self.folder / MANIFEST_FILE).open("ab") as manifest:
                manifest.write(b"".join(entry.as_line() for entry in sealed))
        return sealed

    def log(self, number: int = 1, **tables: Sequence[Row]) -> Path:
        """Append a frame of rows to a log."""
        path = self.folder / log_name(number)
        if not path.exists():
            path.write_bytes(MAGIC)
        frame = {}
        for name, rows in tables.items():
            frame[name] = (self.seq, rows)
            self._count(name, len(rows))
        with path.open("ab") as log:
            log.write(encode(frame))
        return path

    def close(self, reason: str = "closed", lost: int = 0, **rows: int) -> None:
        """Leave the clean-close marker with the rows that were written, or those given."""
        counted = self.rows | rows
        tables = {name: {"rows": count, "last_update": 0} for name, count in counted.items()}
        marker = {"reason": reason, "closed_at": 0.0, "lost_rows": lost, "tables": tables}
        (self.folder / CLOSED_FILE).write_text(json.dumps(marker))

    def _count(self, name: str, rows: int) -> None:
        self.seq += rows
        self.rows[name] = self.rows.get(name, 0) + rows


def identify(run: Path, **facts: Any) -> Path:
    """Write run.json."""
    run.mkdir(parents=True, exist_ok=True)
    known = {VERSION_KEY: VERSION, "run_id": "0", "name": run.name, "level": "NORMAL", "ranks": 1}
    (run / "run.json").write_text(json.dumps(known | facts))
    return run
