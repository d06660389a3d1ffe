"""Declared tables by name, for what a user writes."""

from __future__ import annotations

from esper_analyze.errors import UsageError, did_you_mean
from esper_analyze.schema import BY_NAME
from esper_analyze.schema.column import Table

HINT = "`esper-analyze schema` prints every table and column; ea.columns(TABLE) returns those of a table"


def declared_table(name: str) -> Table:
    """Return the table called ``name``. Raises ``UsageError`` with the nearest name."""
    if not isinstance(name, str) or name not in BY_NAME:
        raise UsageError(f"there is no table {name!r}{did_you_mean(str(name), BY_NAME)}", hint=HINT)
    return BY_NAME[name]
