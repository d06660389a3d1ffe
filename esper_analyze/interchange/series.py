"""Named series of numbers, as TensorBoard files, progress.csv and W&B histories hold them, and their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from esper_analyze.interchange.cells import CellError, fitted, real
from esper_analyze.interchange.imported import Imported, Row
from esper_analyze.schema.tables import BY_NAME


@dataclass(slots=True)
class ScalarSeries:
    """The points of one name in the order they were logged; ``walls`` are UTC epochs, None where not known."""

    steps: list[int] = field(default_factory=list)
    values: list[object] = field(default_factory=list)
    walls: list[float | None] = field(default_factory=list)

    def add(self, step: int, value: object, wall: float | None) -> None:
        """Add one point."""
        self.steps.append(step)
        self.values.append(value)
        self.walls.append(wall)


@dataclass(frozen=True, slots=True)
class LogRow:
    """What was logged at one step, by name. ``wall`` is the last time something was."""

    step: int
    wall: float | None
    cells: Mapping[str, object]

    def begins(self, *prefixes: str) -> bool:
        """Whether a name begins with one of ``prefixes``."""
        return any(name.startswith(prefixes) for name in self.cells)


@dataclass(slots=True)
class ScalarLog:
    """All series of a source. ``timesteps``: steps are environment steps, else positions of rows or updates."""

    series: dict[str, ScalarSeries] = field(default_factory=dict)
    timesteps: bool = True

    def add(self, name: str, step: int, value: object, wall: float | None = None) -> None:
        """Add one point."""
        self.series.setdefault(name, ScalarSeries()).add(step, value, wall)

    def rows(self, wanted: Callable[[str], bool], imported: Imported) -> list[LogRow]:
        """Return the points of the ``wanted`` names by step; of two at one step the later stands, and is counted."""
        cells: dict[int, dict[str, object]] = {}
        walls: dict[int, float] = {}
        for name in filter(wanted, self.series):
            series = self.series[name]
            for step, value, wall in zip(series.steps, series.values, series.walls, strict=True):
                row = cells.setdefault(step, {})
                if name in row:
                    imported.losses.count("logged_twice", "value logged twice at one step, the later one is used", name)
                row[name] = value
                if wall is not None:
                    walls[step] = max(wall, walls.get(step, wall))
        return [LogRow(step, walls.get(step), cells[step]) for step in sorted(cells)]


@dataclass(frozen=True, slots=True)
class Named:
    """The column that holds what a source calls otherwise; ``caveat`` says how its number differs.

    ``zero_if_off``: the source writes 0 where it does not measure, so that 0 in every row is null.
    """

    column: str
    caveat: str = ""
    table: str = "updates"
    zero_if_off: bool = False

    def words(self, name: str) -> str:
        """Return what run.json says of where the column came from."""
        return "; ".join(filter(None, (name, self.caveat)))


NameTable = Mapping[str, Named]


def in_schema(names: NameTable) -> dict[str, Named]:
    """Return those of ``names`` whose column the schema has."""
    return {name: named for name, named in names.items() if named.column in BY_NAME[named.table].names}


def mapped_cells(imported: Imported, row: LogRow, names: NameTable, table: str = "updates") -> Row:
    """Return those cells of ``row`` that ``names`` knows; one that cannot be read is null, and counted.

    Of several names of one column the first that holds a number counts.
    """
    cells: Row = {}
    for name, named in names.items():
        if name not in row.cells or named.table != table or cells.get(named.column) is not None:
            continue
        cells[named.column] = cell(imported, table, named.column, row.cells[name], f"{name} at {row.step}")
        if cells[named.column] is not None:
            imported.columns.setdefault(f"{table}.{named.column}", named.words(name))
    return cells


def add_head(imported: Imported, update: int, cells: Row) -> None:
    """Add what a log says of the distribution of the actions, as the head ``action``."""
    if any(value is not None for value in cells.values()):
        imported.add("heads", {"update": update, "head": "action", "kind": "gaussian", **cells})
        imported.facts["heads"] = {"action": None}


def without_zeros(log: ScalarLog, names: NameTable, imported: Imported) -> dict[str, Named]:
    """Return ``names`` without those that are 0 in every row by construction, which are left out."""
    usable = dict(names)
    for name, named in names.items():
        series = log.series.get(name)
        if named.zero_if_off and series is not None and all(map(_zero, series.values)):
            imported.left_out[name] = "0 in every row: it is not measured with the settings of this training"
            del usable[name]
    return usable


def _zero(value: object) -> bool:
    try:
        return real(value) == 0
    except CellError:
        return False


def cell(imported: Imported, table: str, column: str, value: object, where: str) -> object:
    """Return ``value`` as ``column`` of ``table`` holds it, None and counted when it cannot be."""
    try:
        return fitted(BY_NAME[table].column(column), value)
    except CellError:
        imported.losses.count("unreadable_value", "unreadable value, taken as null", where)
        return None


def leave_out(
    imported: Imported, names: Iterable[str], recognised: Iterable[str], reasons: Mapping[str, str] | None = None
) -> None:
    """Note the ``names`` of a source that no column holds; ``reasons`` are by the beginnings of names."""
    taken_up = set(recognised)
    for name in sorted(set(names) - taken_up):
        begins = (reason for start, reason in (reasons or {}).items() if name.startswith(start))
        imported.left_out.setdefault(name, next(begins, "no column holds it"))
