"""One writer's folder, followed: rows that are new, each once, whether they came by the log or by a shard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from esper_analyze.detector.rules import RULES
from esper_analyze.errors import DamagedError
from esper_analyze.schema.tables import BY_NAME
from esper_analyze.storage import layout
from esper_analyze.storage.attempts import shard_fault
from esper_analyze.storage.decode_errors import decoding
from esper_analyze.storage.entries import Entry, fitting
from esper_analyze.storage.layout import ShardEntry
from esper_analyze.storage.shapes import former_names, read_shard, with_names
from esper_analyze.watch.tails import LogTail, ManifestTail, RewrittenError

Row = dict[str, Any]
WINDOW = 120
"""Updates that are looked back on; older rows of tables that grow with every update are never read."""
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
        ),
        *("recorder_ms", "recorder_fraction", "dropped_rows", "optimizer_steps", "sampled_steps"),
    ),
    "heads": ("kind", "grad_norm", "grad_state", "entropy_norm", "learnable_fraction", "zero_explained"),
    "lstm": (
        *("c_env_rms_max", "h_env_rms_max", "c_max", "h_saturation", "has_nan", "has_inf"),
        *("forget_saturation", "input_saturation", "output_saturation"),
    ),
    "groups": (),
    "slots": (),
}


def _read(table: str) -> tuple[str, ...]:
    """Return the columns of ``table`` that are shown, and those that rules judge: open incidents follow them."""
    declared = BY_NAME[table]
    judged = (name for rule in RULES if rule.table == table for name in (*rule.columns, *rule.fills))
    subject = () if declared.subject is None else (declared.subject,)
    return tuple(dict.fromkeys((*subject, *_SHOWN[table], *judged)))


GROWING: Mapping[str, tuple[str, ...]] = {table: _read(table) for table in _SHOWN}
"""Tables with rows at every update, and the columns of them that are read."""
RARE: Mapping[str, tuple[str, ...]] = {
    "losses_of_data": ("kind", "detail", "rows"),
    "levels": ("level", "previous", "rule", "subject", "until"),
    "findings": ("rule", "subject", "metric", "verdict", "value", "threshold", "baseline", "reason"),
}
"""Tables that are read whole: they have rows only when something happens."""


@dataclass(slots=True)
class _Known:
    """What of a table was taken: the last sequence number that a shard brought, and what only the log has."""

    sealed: int = -1
    applied: int = -1
    logged: list[tuple[int, int]] = field(default_factory=list)


@dataclass(slots=True)
class AttemptFollower:
    """Follows one attempt. ``until``: its rows from this update on were recorded anew by a later attempt."""

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
    _known: dict[str, _Known] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._log = LogTail(self.folder)
        self._manifest = ManifestTail(self.folder / layout.MANIFEST_FILE)

    @property
    def troubles(self) -> list[str]:
        """What of the folder cannot be used, in words."""
        return [*self.broken, *self._log.troubles.values(), *self._manifest.troubles]

    @property
    def touched(self) -> float:
        """When something was last written to the logs, or a file made (seconds of the epoch)."""
        return self._log.touched

    def news(self) -> dict[str, list[Row]]:
        """Return the rows of each table that were not returned yet, in order of their sequence numbers.

        The log is read before the manifest: what a writer seals meanwhile is seen twice, and never not at all.
        Raises ``RewrittenError`` when all must be read anew, ``OSError`` when the folder is gone.
        """
        frames = self._log.new()
        entries = self._manifest.new()
        logged = {name: self._logged(name, frames) for name in (*GROWING, *RARE)}
        since = self._since(entries, logged["updates"])
        return {name: self._rows(name, entries, rows, since) for name, rows in logged.items()}

    def _logged(self, name: str, frames: Iterable[Mapping[str, Entry]]) -> pa.Table | None:
        table, known = BY_NAME[name], self._known.setdefault(name, _Known())
        names = former_names(table)
        new = [frame[name] for frame in frames if name in frame and frame[name][0] > known.sealed]
        if not new:
            return None
        known.logged += [(first, len(rows)) for first, rows in new]
        found, misfits = fitting(table, [(first, with_names(rows, names)) for first, rows in new], self.rank)
        self.misfits += misfits
        return found

    def _since(self, entries: Sequence[ShardEntry], logged: pa.Table | None) -> int:
        """Return the first update to look at, and note the first and last one of all."""
        own = [entry for entry in entries if entry.table == "updates"]
        seen = pc.min_max(logged["update"]).as_py() if logged is not None and len(logged) else None
        firsts = [*(entry.first_update for entry in own), *([seen["min"]] if seen else [])]
        lasts = [*(entry.last_update for entry in own), *([seen["max"]] if seen else [])]
        if firsts:
            self.first_update = min([*firsts, *([] if self.first_update is None else [self.first_update])])
            self.last_update = max([*lasts, *([] if self.last_update is None else [self.last_update])])
        last = self.last_update or 0
        return (last if self.until is None else min(last, self.until - 1)) - WINDOW + 1

    def _rows(self, name: str, entries: Iterable[ShardEntry], logged: pa.Table | None, since: int) -> list[Row]:
        known, least = self._known[name], since if name in GROWING else 0
        columns = ("seq", "update", *GROWING.get(name, RARE.get(name, ())))
        parts = [logged.select(columns)] if logged is not None else []
        taken = list(known.logged)
        for entry in sorted((one for one in entries if one.table == name), key=lambda one: one.first_seq):
            if self._brings_more(entry, known) and entry.last_update >= least:
                parts += self._unsealed(entry, columns, taken)
        rows: list[Row] = []
        for part in parts:
            fresh = part.filter(pc.greater_equal(part["update"], least))
            rows += (fresh if self.until is None else fresh.filter(pc.less(fresh["update"], self.until))).to_pylist()
        rows.sort(key=lambda row: int(row["seq"]))
        if rows and rows[0]["seq"] <= known.applied:
            raise RewrittenError(str(self.folder))
        known.applied = rows[-1]["seq"] if rows else known.applied
        return rows

    def _brings_more(self, entry: ShardEntry, known: _Known) -> bool:
        """Whether a shard holds rows that no log brought; what it seals need not be kept in mind any more."""
        if entry.last_seq <= known.sealed:
            return False
        known.sealed = entry.last_seq
        inside = [count for first, count in known.logged if entry.first_seq <= first <= entry.last_seq]
        known.logged = [one for one in known.logged if one[0] > entry.last_seq]
        return sum(inside) < entry.rows

    def _unsealed(self, entry: ShardEntry, columns: Sequence[str], taken: Sequence[tuple[int, int]]) -> list[pa.Table]:
        """Return the rows of a shard that did not come by the log; none, and a trouble, when it is damaged."""
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
        own = [seq for first, count in taken for seq in range(first, first + count)]
        seen = pc.is_in(data["seq"], value_set=pa.array(own, pa.int64()))
        return [data.filter(pc.invert(seen))]
