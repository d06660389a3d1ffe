"""Import of the ancestor's ``events.jsonl``: PPO updates, heads, LSTM, seeds, episodes, and its own alarms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from esper_analyze.detector.findings import Finding
from esper_analyze.errors import DamagedError
from esper_analyze.interchange.ancestor_names import ALARMS, CAVEATS, HEADS, LEFT_OUT, VERDICTS
from esper_analyze.interchange.ancestor_rows import (
    AncestorBatch,
    Payload,
    SeedModule,
    batch_rows,
    measurable,
    update_columns,
)
from esper_analyze.interchange.imported import Imported, Row, named_columns, own_finding
from esper_analyze.interchange.json_lines import json_lines

FORMAT = "ancestor"
EVENTS_FILE = "events.jsonl"
_NOT_SAID = "has no event: skipped or lost, the source does not say which"


def recognises(path: Path) -> Path | None:
    """Return the events file that ``path`` is or holds, None when there is none."""
    for file in (path, path / EVENTS_FILE, path / f"{EVENTS_FILE}.gz") if path.is_dir() else (path,):
        if file.is_file() and ".jsonl" in file.name and _has_events(file):
            return file
    return None


def _has_events(file: Path) -> bool:
    from itertools import islice

    from esper_analyze.interchange.imported import ImportLosses

    return any("event_type" in line for _, line in islice(json_lines(file, ImportLosses()), 20))


def read(path: Path) -> Imported:
    """Read the events in the file ``path``. Raises ``UsageError`` or ``DamagedError``."""
    imported = Imported(FORMAT, left_out=dict(LEFT_OUT))
    log = _AncestorLog(imported)
    for number, event in json_lines(path, imported.losses):
        log.take(event, f"line {number}")
    if not log.batches:
        raise DamagedError(f"{path} holds no PPO update", hint="; ".join(imported.losses.sentences()))
    log.finish()
    return imported


@dataclass(slots=True)
class _AncestorLog:
    """The events taken so far, gathered by batch; a batch is an update, counted from 1 there and from 0 here."""

    imported: Imported
    batches: dict[int, AncestorBatch] = field(default_factory=dict)
    config: Row = field(default_factory=dict)
    seen_kinds: set[str] = field(default_factory=set)
    current: int = 0
    alarms: list[tuple[int, Row, Payload]] = field(default_factory=list)

    def take(self, event: Row, where: str) -> None:
        """Take one event in."""
        kind, data = event.get("event_type"), event.get("data")
        number = event.get("event_id")
        if isinstance(number, str):
            if number in self.seen_kinds:
                self.imported.losses.count("repeated_event", "duplicate event, taken once", where)
                return
            self.seen_kinds.add(number)
        if not isinstance(kind, str) or not isinstance(data, dict):
            self.imported.losses.count("malformed_event", "event without a type or a payload", where, lost=1)
            return
        self._dispatch(kind, event, Payload(data, self.imported.losses, where))

    def _dispatch(self, kind: str, event: Row, data: Payload) -> None:
        if kind == "TRAINING_STARTED":
            self.config = {name: cell for name, cell in data.cells.items() if cell is not None}
            self.imported.facts["created"] = _moment(event)
        elif kind == "PPO_UPDATE_COMPLETED":
            self._update(event, data)
        elif kind == "EPOCH_COMPLETED":
            self._seeds(data)
        elif kind == "ANALYTICS_SNAPSHOT":
            self._snapshot(data)
        elif kind == "EPISODE_OUTCOME":
            self.at(self._batch_of_episode(data)).episodes.append(data)
        elif kind in ALARMS:
            self.alarms.append((self._batch_of_alarm(data), event, data))

    def at(self, number: int) -> AncestorBatch:
        """Return the batch ``number``, from 0."""
        return self.batches.setdefault(number, AncestorBatch(number))

    def _update(self, event: Row, data: Payload) -> None:
        reported = data.whole_number("batch")
        number = self.current if reported is None else reported - 1
        batch = self.at(number)
        if batch.update is not None:
            self.imported.losses.count(
                "repeated_update", "update with two events, the first one is used", data.where, lost=1
            )
            return
        batch.update, batch.time, batch.episodes_done = data, _moment(event), _count(event.get("epoch"))
        self.current = number + 1

    def _seeds(self, data: Payload) -> None:
        seeds, env = data.cells.get("seeds"), data.whole_number("env_id")
        if env is None or not isinstance(seeds, Mapping):
            return
        batch = self.at(self._batch_of_episode(data))
        for slot, cells in seeds.items():
            if isinstance(cells, dict):
                batch.seeds.setdefault((env, str(slot)), SeedModule()).take(
                    Payload(cells, self.imported.losses, data.where),
                )

    def _snapshot(self, data: Payload) -> None:
        kind = data.cells.get("kind")
        if kind == "last_action":
            masks = self.at(self._batch_of_episode(data)).masks
            for head in HEADS:
                masked = data.flag(f"{head}_masked")
                if masked is not None:
                    single, total = masks.get(head, (0, 0))
                    masks[head] = single + masked, total + 1
        elif kind == "batch_stats" and (batch := data.whole_number("batch")) is not None:
            self.at(batch - 1).skipped = data.flag("skipped_update")

    def _batch_of_episode(self, data: Payload) -> int:
        """Return the batch an episode was collected for; without its number, the one that is being collected."""
        episode, envs = data.whole_number("episode_idx"), _count(self.config.get("n_envs"))
        return self.current if episode is None or not envs else episode // envs

    def _batch_of_alarm(self, data: Payload) -> int:
        batch = data.whole_number("batch")
        batch = data.whole_number("batch_idx") if batch is None else batch
        return self.current if batch is None else batch - 1

    def finish(self) -> None:
        """Turn the batches into rows, and what is missing between them into losses."""
        usable = measurable(self.batches.values())
        self.imported.facts |= self._facts(usable)
        for number in sorted(self.batches):
            batch_rows(self.imported, self.batches[number], _count(self.config.get("max_batches")), usable)
        updates = self.imported.rows.get("updates", [])
        numbers = {int(str(row["update"])) for row in updates}
        self.imported.count_gaps(numbers, _NOT_SAID)
        self._unfinished(numbers)
        self._findings(numbers)
        self.imported.columns |= named_columns(update_columns(CAVEATS), updates, "updates")

    def _facts(self, usable: bool | None) -> Row:
        heads = [head for head in HEADS if any(batch.has_head(head) for batch in self.batches.values())]
        note = "ratio 1, KL 0 and clip fraction 0 in every update: taken as one inner epoch, so not measurable"
        return {
            "framework": "ancestor",
            "algorithm": "PPO",
            "heads": dict.fromkeys(heads),
            "head_kinds": dict.fromkeys(heads, "categorical"),
            "hyperparameters": self.config,
            "total_updates": _count(self.config.get("max_batches")),
            "seed": self.config.get("seed"),
            "notes": note if usable is False else None,
        }

    def _unfinished(self, numbers: set[int]) -> None:
        """Count what belongs to updates that have no row, and take it out: no update of theirs is there."""
        for table, rows in self.imported.rows.items():
            complete = [row for row in rows if row["update"] in numbers]
            lost = len(rows) - len(complete)
            if lost:
                what = f"row of {table} whose update has no event"
                self.imported.losses.count(f"rows_without_update_{table}", what, times=lost, lost=lost)
            self.imported.rows[table] = complete

    def _findings(self, numbers: set[int]) -> None:
        last = max(numbers, default=0)
        for number, event, data in self.alarms:
            update = (
                number
                if number in numbers
                else min((candidate for candidate in numbers if candidate > number), default=last)
            )
            self.imported.foreign.append(_finding(update, event, data))


def _finding(update: int, event: Row, data: Payload) -> Finding:
    kind = str(event["event_type"]).lower()
    metric = str(data.cells.get("anomaly_type") or kind)
    head = next((head for head in HEADS if metric.endswith(f"_{head}")), None)
    env = data.whole_number("env_id")
    subject = head or ("run" if env is None else f"env {env}")
    words = data.cells.get("detail") or event.get("message") or ", ".join(f"{k} {v}" for k, v in data.cells.items())
    verdict = VERDICTS.get(str(event.get("severity")).lower(), "info")
    return own_finding(update, f"ancestor:{kind}", subject, metric, verdict, str(words))


def _count(cell: object) -> int | None:
    return cell if isinstance(cell, int) and not isinstance(cell, bool) and cell >= 0 else None


def _moment(event: Row) -> float | None:
    try:
        return datetime.fromisoformat(str(event.get("timestamp"))).timestamp()
    except (ValueError, OverflowError):
        return None
