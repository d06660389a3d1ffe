"""Follow the folder of one attempt: new rows, each returned once, whether they come from the log or from a shard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from esper_analyze.detector.rules import RULES
from esper_analyze.errors import DamagedError
from esper_analyze.reports.sections.slot_history import JUDGED
from esper_analyze.schema.tables import BY_NAME
from esper_analyze.storage import layout
from esper_analyze.storage.attempts import shard_fault
from esper_analyze.storage.decode_errors import decoding
from esper_analyze.storage.entries import Entry, fitting
from esper_analyze.storage.layout import ShardEntry
from esper_analyze.storage.shapes import former_names, read_shard, with_names
from esper_analyze.watch.tails import LogTail, ManifestTail, RewrittenError

RecentRow = dict[str, Any]
WINDOW = 120
"""Updates in the window; older rows of tables that grow with every update are never read."""
_SHOWN: Mapping[str, tuple[str, ...]] = {
    "updates": (
        *(
            "env_steps",
            "wall_time",
            "status",
            "nonfinite_sources",
            "level",
            "episode_return_mean",
            "grad_norm_pre_clip",
            "progress",
        ),
        *("kl_k3", "entropy", "explained_variance", "clip_fraction"),
        *("recorder_ms", "recorder_fraction", "dropped_rows", "optimizer_steps", "sampled_steps"),
    ),
    "heads": ("kind", "grad_norm", "grad_state", "entropy_norm", "learnable_fraction", "zero_explained"),
    "lstm": (
        *("c_env_rms_max", "h_env_rms_max", "c_max", "h_saturation", "has_nan", "has_inf"),
        *("forget_saturation", "input_saturation", "output_saturation"),
    ),
    "groups": (),
    "slots": ("tensors", "should_train", *(name for name in JUDGED if name != "update")),
}


def _read(table: str) -> tuple[str, ...]:
    """Return the columns of ``table`` that are shown, and those that rules judge, needed for open incidents."""
    declared = BY_NAME[table]
    judged = (name for rule in RULES if rule.table == table for name in (*rule.columns, *rule.fills))
    subject = () if declared.subject is None else (declared.subject,)
    return tuple(dict.fromkeys((*subject, *_SHOWN[table], *judged)))


GROWING: Mapping[str, tuple[str, ...]] = {table: _read(table) for table in _SHOWN}
"""Tables with rows at every update, and the columns that are read."""
RARE: Mapping[str, tuple[str, ...]] = {
    "losses_of_data": ("kind", "detail", "rows"),
    "levels": ("level", "previous", "rule", "subject", "until"),
    "findings": ("rule", "subject", "metric", "verdict", "value", "threshold", "baseline", "reason"),
}
"""Tables that are read completely: they have rows only when something happens."""


@dataclass(slots=True)
class _TableProgress:
    """Progress in one table: last sequence number from shards, last one returned, and spans that only the log has."""

    sealed: int = -1
    applied: int = -1
    logged: list[tuple[int, int]] = field(default_factory=list)


@dataclass(slots=True)
class AttemptFollower:
    """Follows one attempt. ``until``: its rows from this update on were superseded by a later attempt."""

    folder: Path
    number: int
    rank: int
    until: int | None = None
    first_update: int | None = None
    last_update: int | None = None
    misfits: int = 0
    broken: list[str] = field(default_factory=list)
    _log: LogTail = field(init=False)
    _manifest: ManifestTail = field(init=False)
    _progress: dict[str, _TableProgress] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._log = LogTail(self.folder)
        self._manifest = ManifestTail(self.folder / layout.MANIFEST_FILE)

    @property
    def troubles(self) -> list[str]:
        """Files of the folder that cannot be used, and why."""
        return [*self.broken, *self._log.troubles.values(), *self._manifest.troubles]

    @property
    def touched(self) -> float:
        """Time of the last write to the logs or of a new file (seconds of the epoch)."""
        return self._log.touched

    @property
    def superseded_rows(self) -> int | None:
        """The first update whose rows were recorded here and again by a later attempt; None: there is none."""
        if self.until is None or self.last_update is None or self.until > self.last_update:
            return None
        return self.until

    def news(self) -> dict[str, list[RecentRow]]:
        """Return the new rows of each table, in order of their sequence numbers.

        The log is read before the manifest: rows sealed meanwhile are seen twice (and deduplicated), never missed.
        Raises ``RewrittenError`` when everything must be read again, ``OSError`` when the folder is gone.
        """
        frames = self._log.new()
        entries = self._manifest.new()
        logged = {name: self._logged(name, frames) for name in (*GROWING, *RARE)}
        since = self._since(entries, logged["updates"])
        return {name: self._rows(name, entries, rows, since) for name, rows in logged.items()}

    def _logged(self, name: str, frames: Iterable[Mapping[str, Entry]]) -> pa.Table | None:
        table, progress = BY_NAME[name], self._progress.setdefault(name, _TableProgress())
        names = former_names(table)
        new = [frame[name] for frame in frames if name in frame and frame[name][0] > progress.sealed]
        if not new:
            return None
        progress.logged += [(first, len(rows)) for first, rows in new]
        rows_found, misfits = fitting(table, [(first, with_names(rows, names)) for first, rows in new], self.rank)
        self.misfits += misfits
        return rows_found

    def _since(self, entries: Sequence[ShardEntry], logged: pa.Table | None) -> int:
        """Return the first update of the window, and update ``first_update`` and ``last_update``."""
        shards = [entry for entry in entries if entry.table == "updates"]
        bounds = pc.min_max(logged["update"]).as_py() if logged is not None and len(logged) else None
        firsts = [*(entry.first_update for entry in shards), *([bounds["min"]] if bounds else [])]
        lasts = [*(entry.last_update for entry in shards), *([bounds["max"]] if bounds else [])]
        if firsts:
            self.first_update = min([*firsts, *([] if self.first_update is None else [self.first_update])])
            self.last_update = max([*lasts, *([] if self.last_update is None else [self.last_update])])
        last = self.last_update or 0
        return (last if self.until is None else min(last, self.until - 1)) - WINDOW + 1

    def _rows(self, name: str, entries: Iterable[ShardEntry], logged: pa.Table | None, since: int) -> list[RecentRow]:
        progress, least = self._progress[name], since if name in GROWING else 0
        columns = ("seq", "update", *GROWING.get(name, RARE.get(name, ())))
        parts = [logged.select(columns)] if logged is not None else []
        logged_spans = list(progress.logged)
        for entry in sorted((shard for shard in entries if shard.table == name), key=lambda shard: shard.first_seq):
            if self._brings_more(entry, progress) and entry.last_update >= least:
                parts += self._unsealed(entry, columns, logged_spans)
        rows: list[RecentRow] = []
        for part in parts:
            fresh = part.filter(pc.greater_equal(part["update"], least))
            rows += (fresh if self.until is None else fresh.filter(pc.less(fresh["update"], self.until))).to_pylist()
        rows.sort(key=lambda row: int(row["seq"]))
        if rows and rows[0]["seq"] <= progress.applied:
            raise RewrittenError(str(self.folder))
        progress.applied = rows[-1]["seq"] if rows else progress.applied
        return rows

    def _brings_more(self, entry: ShardEntry, progress: _TableProgress) -> bool:
        """Whether a shard has rows that did not come from the log; sealed spans are forgotten."""
        if entry.last_seq <= progress.sealed:
            return False
        progress.sealed = entry.last_seq
        inside = [count for first, count in progress.logged if entry.first_seq <= first <= entry.last_seq]
        progress.logged = [span for span in progress.logged if span[0] > entry.last_seq]
        return sum(inside) < entry.rows

    def _unsealed(
        self, entry: ShardEntry, columns: Sequence[str], logged_spans: Sequence[tuple[int, int]]
    ) -> list[pa.Table]:
        """Return the rows of a shard that did not come from the log; none, and a note in ``broken``, if damaged."""
        path = self.folder / entry.shard
        fault = shard_fault(path, entry)
        if fault is not None:
            if self._manifest.replaced():
                raise RewrittenError(str(path))
            self.broken.append(f"{entry.shard} {fault}")
            return []
        try:
            with decoding(path):
                data = read_shard(BY_NAME[entry.table], path, entry.schema, columns)
        except DamagedError as error:
            self.broken.append(error.message)
            return []
        known_seqs = [seq for first, count in logged_spans for seq in range(first, first + count)]
        duplicate = pc.is_in(data["seq"], value_set=pa.array(known_seqs, pa.int64()))
        return [data.filter(pc.invert(duplicate))]
