"""Table ``slots`` by slot: gate state of the last seed module that should have trained, and stages over time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite
from typing import TYPE_CHECKING, Any

from esper_analyze.reports.render.rows import Mark
from esper_analyze.runs.series import Series, queried, series_of
from esper_analyze.schema.tables.slots import LOW_RATIO

if TYPE_CHECKING:
    import duckdb
    import polars

HEALTH_GATE = 0.7
"""Least health with which a seed module passes the quality gate; the least ratio is ``LOW_RATIO``."""
STRETCHES = 600
"""Most spans of updates in which stages are resolved."""
_SEED = "tensors > 0 and should_train"
JUDGED = ("update", "stage", "blueprint", "alpha", "normalized_ratio", "health", "exploding_severity",
          "vanishing_severity", "tensors_nonfinite", "low_ratio_cause")  # fmt: skip
"""Columns of the last row in which a seed module should have trained, in the order of ``SlotLocation``."""
_VERDICTS = ("critical", "warning", "no_data", "ok", "not_applicable")
PANEL = ("normalized_ratio", "seed_norm", "host_norm", "health", "alpha")


@dataclass(frozen=True, slots=True)
class SlotLocation:
    """One environment and slot, measured at the last update with a seed module that should train (None without one)."""

    name: str
    seeded: int
    update: int | None
    stage: str | None
    blueprint: str | None
    alpha: float | None
    ratio: float | None
    health: float | None
    exploding: float | None
    vanishing: float | None
    nonfinite: int | None
    cause: str | None

    @classmethod
    def of_rows(cls, name: str, rows: Sequence[Mapping[str, Any]]) -> SlotLocation:
        """Return a slot from its rows in order of updates, as ``read_locations`` does from the whole table."""
        judged: Mapping[str, Any] = next((row for row in reversed(rows) if row["tensors"] and row["should_train"]), {})
        seeded = sum(row["tensors"] is not None for row in rows)
        return cls(name, seeded, *(judged.get(column) for column in JUDGED))

    @property
    def severity(self) -> int:
        """Order by what the gate says of the seed module, the worst first."""
        return _VERDICTS.index(self.gate.verdict)

    @property
    def gate(self) -> Mark:
        """Whether the seed module passes (ratio at least 0.10, health at least 0.7), and if not, what stops it."""
        return next(mark for stops, mark in self._gates() if stops)

    def _gates(self) -> Iterable[tuple[object, Mark]]:
        """Yield whether each check of the gate stops the seed module, in order."""
        numbers = [value for value in (self.ratio, self.health) if value is not None]
        yield self.update is None, Mark("not_applicable", "not training", "–")
        yield self.nonfinite or not all(map(isfinite, numbers)), Mark("critical", "NaN", "✕")
        yield self.ratio is None and self.cause == "disconnected", Mark("critical", "disconnected", "⊘")
        yield self.exploding, Mark("critical", "exploding", "▲")
        yield self.ratio is None, Mark("no_data", "no gradient", "–")
        yield self.ratio is not None and self.ratio < LOW_RATIO, Mark("warning", "low ratio", "▼")
        yield self.health is None, Mark("no_data", "no health", "–")
        yield self.health is not None and self.health < HEALTH_GATE, Mark("warning", "low health", "▼")
        yield True, Mark("ok", "passes", "●")


@dataclass(frozen=True, slots=True)
class StageSpan:
    """A span of updates in one stage: first and last update."""

    start: int
    end: int
    stage: str


@dataclass(frozen=True, slots=True)
class Lane:
    """A slot over time: spans with a seed module in it, and the updates with a problem, by kind."""

    spans: tuple[StageSpan, ...]
    exploding: tuple[int, ...]
    low: tuple[int, ...]
    cut: tuple[int, ...]
    broken: tuple[int, ...]


_LAST = f"""
    with judged as (
        select * from slots where {_SEED}
        qualify row_number() over (partition by place order by update desc, seq desc) = 1
    ), known as (
        select place, count(*) filter (tensors is not null) as seeded, min(env) as env, min(slot) as slot from slots
        group by place
    )
    select known.place, seeded, {", ".join(JUDGED)}
    from known left join judged using (place) order by known.env, known.slot, known.place
"""
_SPANS = f"""
    select place, ((update - $first) // $width)::bigint as stretch, bool_or(tensors is not null) as seeded,
        last(coalesce(stage, '') order by update, seq) as stage,
        bool_or(coalesce(exploding_severity > 0 and isfinite(exploding_severity), false)) as exploding,
        bool_or(coalesce({_SEED} and isfinite(normalized_ratio) and normalized_ratio < {LOW_RATIO}, false)) as low,
        bool_or(coalesce({_SEED} and low_ratio_cause = 'disconnected' and normalized_ratio is null, false)) as cut,
        bool_or(coalesce(tensors_nonfinite > 0 or not isfinite(normalized_ratio), false)) as broken
    from slots where list_contains($places, place) group by place, stretch order by place, stretch
"""
_PANELS = """
    select update, seq, place, normalized_ratio, grad_norm as seed_norm, host_grad_norm as host_norm, health, alpha
    from slots where list_contains($places, place) order by update, seq
"""


def read_locations(connection: duckdb.DuckDBPyConnection) -> list[SlotLocation]:
    """Return every slot, in order of environment and slot."""
    return [SlotLocation(*row) for row in queried(connection, _LAST).iter_rows()]


def read_lanes(connection: duckdb.DuckDBPyConnection, places: Sequence[str]) -> dict[str, Lane]:
    """Return the lanes of ``places``, in that order; very many updates are merged into ``STRETCHES`` spans."""
    first, last = queried(connection, "select min(update), max(update) from slots").row(0)
    width = max(1, -(-(last - first + 1) // STRETCHES))
    rows = queried(connection, _SPANS, {"first": first, "width": width, "places": list(places)})
    parts = rows.partition_by("place", as_dict=True, maintain_order=True)
    return {name: _lane(parts[name,], first, width) for name in places if (name,) in parts}


def _lane(rows: polars.DataFrame, first: int, width: int) -> Lane:
    start = [first + width * stretch for stretch in rows["stretch"]]
    cells = list(zip(start, rows["stage"], rows["seeded"], strict=True))
    spans = []
    for (stage, seeded, _), members in groupby(
        enumerate(cells), key=lambda cell: (cell[1][1], cell[1][2], cell[1][0] - width * cell[0])
    ):
        starts = [at for _, (at, _, _) in members]
        if seeded:
            spans.append(StageSpan(starts[0], starts[-1] + width - 1, stage))
    marks = (
        tuple(at for at, bad in zip(start, rows[kind], strict=True) if bad)
        for kind in ("exploding", "low", "cut", "broken")
    )
    return Lane(tuple(spans), *marks)


def read_panels(connection: duckdb.DuckDBPyConnection, places: Sequence[str]) -> dict[str, dict[str, Series]]:
    """Return place → column of ``PANEL`` → series, in the order of ``places``."""
    rows = queried(connection, _PANELS, {"places": list(places)})
    rows = rows.unique(subset=["update", "place"], keep="last", maintain_order=True)
    parts = rows.partition_by("place", as_dict=True, maintain_order=True)
    return {name: {column: series_of(parts[name,], column) for column in PANEL} for name in places if (name,) in parts}
