"""The part of a run held in memory: the last updates of growing tables, and all rare events."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from esper_analyze.schema.tables import BY_NAME
from esper_analyze.schema.tables.events import RESUMED_FRESH
from esper_analyze.watch.alarms import Alarms
from esper_analyze.watch.attempt import GROWING, WINDOW, RecentRow

MOST_LOSSES = 20
_Subject = str | None


@dataclass(slots=True)
class RecentRows:
    """Rows of the last updates by table, subject and update; alarms, the last change of level, losses of data."""

    alarms: Alarms
    recent: dict[str, dict[_Subject, dict[int, RecentRow]]] = field(
        default_factory=lambda: {name: {} for name in GROWING}
    )
    level: RecentRow | None = None
    losses: deque[RecentRow] = field(default_factory=lambda: deque(maxlen=MOST_LOSSES))
    lost_events: int = 0
    lost_rows: int = 0
    last_update: int | None = None

    def take(self, news: Mapping[str, Sequence[RecentRow]]) -> int:
        """Add new rows of one attempt; return how many there were."""
        for row in news["losses_of_data"]:
            self._lose(row)
        for row in news["findings"]:
            self.alarms.take(row)
        self.level = news["levels"][-1] if news["levels"] else self.level
        for name in GROWING:
            self._add(name, news[name])
        return sum(map(len, news.values()))

    def _lose(self, row: RecentRow) -> None:
        if row["kind"] == RESUMED_FRESH:
            self.alarms.begin_anew(row["update"])
        self.losses.append(row)
        self.lost_events += 1
        self.lost_rows += row["rows"] or 0

    def _add(self, name: str, rows: Iterable[RecentRow]) -> None:
        subject, by_subject = BY_NAME[name].subject, self.recent[name]
        for row in rows:
            by_subject.setdefault(None if subject is None else row[subject], {})[row["update"]] = row
            if name == "updates":
                self.last_update = max(row["update"], -1 if self.last_update is None else self.last_update)
        least = (self.last_update or 0) - WINDOW
        for by_update in by_subject.values():
            for update in [number for number in by_update if number <= least]:
                del by_update[update]

    def rows(self, name: str, subject: _Subject = None) -> list[RecentRow]:
        """Return the rows of one subject in the window, in order of updates."""
        return [row for _, row in sorted(self.recent[name].get(subject, {}).items())]

    def subjects(self, name: str) -> list[str]:
        """Return the subjects of a table in order of appearance."""
        return [str(subject) for subject in self.recent[name]]

    def column(self, name: str, column: str, subject: _Subject = None) -> list[Any]:
        """Return one column of the rows in the window, in order of updates."""
        return [row[column] for row in self.rows(name, subject)]
