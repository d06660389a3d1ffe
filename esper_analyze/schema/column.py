"""Declaration of a column: name, type, unit, meaning, reducer, and the meaning of null."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from esper_analyze.schema.merging import MergeRule, RankRows


class Kind(Enum):
    """Storage type of a column."""

    FLOAT = "float"  # float64; null, NaN, ±Inf and 0.0 are four different cells
    INT = "int"  # int64
    BOOL = "bool"
    TEXT = "text"
    CHOICE = "choice"  # text out of a declared set


@dataclass(frozen=True, slots=True)
class Column:
    """One declared column.

    ``empty`` says what null means; ``required`` columns are never null. ``reducer`` says how the values of the
    update's inner loop are reduced to one number (empty if there is nothing to reduce). ``choices`` lists the values
    of a ``CHOICE`` column. ``merge`` says how the values of several ranks become one; None in a table whose rows are
    not merged, and of key columns.
    """

    name: str
    kind: Kind
    meaning: str
    unit: str = ""
    reducer: str = ""
    empty: str = "not measured"
    required: bool = False
    choices: tuple[str, ...] = ()
    merge: MergeRule | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """One declared table; ``key`` names the columns that identify a row, ``ranks`` what a merge of ranks does to it.

    Raises ``ValueError`` if a column of a merged table has no merge rule, or a column of another table has one.
    """

    name: str
    meaning: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    ranks: RankRows = RankRows.OF_ALL

    def __post_init__(self) -> None:
        unmerged = {*self.key, "rank", "seq"}
        for column in self.columns:
            needed = self.ranks is RankRows.MERGED and column.name not in unmerged
            if needed != (column.merge is not None):
                raise ValueError(f"{self.name}.{column.name}: {'no' if needed else 'needless'} merge rule")

    def __hash__(self) -> int:
        return hash(self.name)  # caches hash tables often, and some have a hundred columns

    def column(self, name: str) -> Column:
        """Return the column called ``name``. Raises ``KeyError`` when the table has none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"table {self.name} has no column {name!r}")

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in declared order."""
        return tuple(column.name for column in self.columns)

    @property
    def merge_rules(self) -> Mapping[str, MergeRule]:
        """The rule of every column that is merged, in declared order."""
        return {column.name: column.merge for column in self.columns if column.merge is not None}

    @property
    def subject(self) -> str | None:
        """The key column that names a row's subject (head, group, phase), or None for the run itself."""
        return next((name for name in self.key if name not in ("rank", "update", "seq")), None)


def real(
    name: str,
    meaning: str,
    unit: str = "",
    reducer: str = "",
    empty: str = "not measured",
    *,
    merge: MergeRule | None = None,
) -> Column:
    """Declare a float column."""
    return Column(name, Kind.FLOAT, meaning, unit, reducer, empty, merge=merge)


def count(
    name: str,
    meaning: str,
    unit: str = "",
    reducer: str = "",
    empty: str = "not measured",
    *,
    merge: MergeRule | None = None,
) -> Column:
    """Declare an integer column that may be null."""
    return Column(name, Kind.INT, meaning, unit, reducer, empty, merge=merge)


def flag(
    name: str, meaning: str, reducer: str = "", empty: str = "not measured", *, merge: MergeRule | None = None
) -> Column:
    """Declare a boolean column."""
    return Column(name, Kind.BOOL, meaning, "", reducer, empty, merge=merge)


def text(
    name: str, meaning: str, empty: str = "not given", *, required: bool = False, merge: MergeRule | None = None
) -> Column:
    """Declare a text column."""
    return Column(name, Kind.TEXT, meaning, empty="never" if required else empty, required=required, merge=merge)


def choice(
    name: str,
    meaning: str,
    choices: tuple[str, ...],
    empty: str = "not measured",
    *,
    required: bool = False,
    merge: MergeRule | None = None,
) -> Column:
    """Declare a text column whose values come from ``choices``."""
    return Column(
        name,
        Kind.CHOICE,
        meaning,
        empty="never" if required else empty,
        required=required,
        choices=choices,
        merge=merge,
    )


def key(name: str, meaning: str) -> Column:
    """Declare an integer key column (never null)."""
    return Column(name, Kind.INT, meaning, empty="never", required=True)


RANK = key("rank", "process of a distributed training, 0 when there is one")
UPDATE = key("update", "PPO update (rollout + optimisation), counted from 0 within the run")
SEQ = key("seq", "position of the row in its writer's output; defines the order and identifies duplicates")
