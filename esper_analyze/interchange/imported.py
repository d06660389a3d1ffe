"""What an importer hands over: rows of declared tables, facts of the run, and what of the source is not in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from esper_analyze.detector.findings import Finding

Row = dict[str, object]
_NAMED = 5
_REGULAR = 0.9
"""Share of the distances that are alike where a log has an interval."""


@dataclass(slots=True)
class _CountedLoss:
    """``counted``: how often. ``lost``: rows that are not there because of it."""

    what: str
    update: int
    counted: int = 0
    lost: int = 0
    where: list[str] = field(default_factory=list)


class ImportLosses:
    """What a source holds broken, twice or not at all: each kind is counted, and its first places are named."""

    def __init__(self) -> None:
        self._kinds: dict[str, _CountedLoss] = {}

    def count(self, kind: str, what: str, where: str = "", *, update: int = 0, times: int = 1, lost: int = 0) -> None:
        """Count ``times`` of ``kind``, of which ``lost`` rows are missing; ``what`` says in words what it is."""
        loss = self._kinds.setdefault(kind, _CountedLoss(what, update))
        loss.counted += times
        loss.lost += lost
        if where and len(loss.where) <= _NAMED:
            loss.where.append(where)

    def add(self, others: ImportLosses) -> None:
        """Count what ``others`` counted."""
        for kind, loss in others._kinds.items():
            mine = self._kinds.setdefault(kind, _CountedLoss(loss.what, loss.update))
            mine.counted += loss.counted
            mine.lost += loss.lost
            mine.where = (mine.where + loss.where)[: _NAMED + 1]

    @property
    def lost(self) -> int:
        """Rows that the source lacks."""
        return sum(loss.lost for loss in self._kinds.values())

    def sentences(self, *, but: Collection[str] = ()) -> list[str]:
        """Return one sentence for each kind, ``but`` some."""
        return [_sentence(loss) for kind, loss in self._kinds.items() if kind not in but]

    def rows(self) -> list[Row]:
        """Return one row of ``losses_of_data`` for each kind."""
        return [
            {"update": loss.update, "kind": kind, "detail": _sentence(loss), "rows": loss.lost}
            for kind, loss in self._kinds.items()
        ]


def _sentence(loss: _CountedLoss) -> str:
    places = ", ".join(loss.where[:_NAMED]) + (" …" if len(loss.where) > _NAMED else "")
    return f"{loss.counted:,} × {loss.what}" + (f": {places}" if places else "")


@dataclass(frozen=True, slots=True)
class ImportedAttempt:
    """A restart: ``first`` is its first update, ``superseded`` the rows by table that it logged again.

    These are rows of the attempt before it, from ``first`` on.
    """

    first: int
    superseded: dict[str, list[Row]]


@dataclass(slots=True)
class Imported:
    """One source, read.

    ``facts`` go into run.json. ``rows`` are by table, without rank and seq. ``columns`` maps our columns to the name in
    the source and, after a semicolon, how its number differs from what the column declares. ``left_out`` maps names in
    the source to why they are in no column. ``foreign`` is what the source's own detector said. ``remarks``: how the
    files of the source were put together, in sentences. ``attempts``: those after the first, none without a restart.
    """

    format: str
    facts: Row = field(default_factory=dict)
    rows: dict[str, list[Row]] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    losses: ImportLosses = field(default_factory=ImportLosses)
    foreign: list[Finding] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    attempts: list[ImportedAttempt] = field(default_factory=list)

    def add(self, table: str, row: Row) -> Row:
        """Add one row and return it."""
        self.rows.setdefault(table, []).append(row)
        return row

    def count_gaps(self, numbers: Iterable[int], why: str) -> None:
        """Count updates between the first and the last that have no row as lost.

        Where only every n-th was logged, that is the fact ``logged_every``; those between are not lost.
        """
        present = sorted(set(numbers))
        every = regular_interval(present)
        if every > 1:
            self.facts["logged_every"] = every
        for before, after in pairwise(present):
            missing = range(before + every, after, every)
            if missing:
                self._gap(missing, why)

    def _gap(self, missing: range, why: str) -> None:
        where = str(missing[0]) if len(missing) == 1 else f"{missing[0]}–{missing[-1]}"
        times = len(missing)
        self.losses.count("missing_updates", f"update {why}", where, update=missing[0], times=times, lost=times)


def regular_interval(numbers: Sequence[int]) -> int:
    """Return the distance that at least 90 % of the ``numbers`` have from the one before, 1 when there is none.

    The first distance does not count where there are more: many loops log their first update, then every n-th.
    """
    distances = [after - before for before, after in pairwise(numbers)]
    usual = distances[1:] if len(distances) > 2 else distances
    if len(usual) < 2:
        return 1
    distance, times = Counter(usual).most_common(1)[0]
    return distance if times >= _REGULAR * len(usual) else 1


def own_finding(update: int, rule: str, subject: str, metric: str, verdict: str, reason: str) -> Finding:
    """Return an alarm of a source's own detector; its words are the reason."""
    return Finding(update, rule, subject, metric, verdict, None, None, None, None, reason)


def named_columns(columns: Mapping[str, str], rows: Iterable[Row], table: str) -> dict[str, str]:
    """Return those of ``columns`` that some row fills, as ``table.column``."""
    filled = {name for row in rows for name, cell in row.items() if cell is not None}
    return {f"{table}.{name}": source for name, source in columns.items() if name in filled}
