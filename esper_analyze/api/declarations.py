"""What is declared, to look up: the columns of a table, and thresholds as TOML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esper_analyze.detector import toml
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.errors import UsageError, did_you_mean
from esper_analyze.schema.lookup import declared_table

if TYPE_CHECKING:
    import polars


def columns(table: str) -> polars.DataFrame:
    """Return the columns of ``table``: name, kind, unit, meaning, how the inner loop was reduced, what null means."""
    import polars

    from esper_analyze.api.frames import frame

    declared = declared_table(table)
    names = ("column", "kind", "unit", "meaning", "reducer", "null_means")
    rows = [
        (column.name, column.kind.value, column.unit, column.meaning, column.reducer, column.empty)
        for column in declared.columns
    ]
    return frame(rows, dict.fromkeys(names, polars.String))


def thresholds_to_toml(thresholds: Thresholds, *rules: str) -> str:
    """Return ``thresholds`` as TOML, of the built-in ``rules`` named or of all.

    ``Recorder(thresholds=…)`` and ``esper-analyze report --thresholds FILE`` take it. Raises ``EsperError`` for a rule
    that does not exist.
    """
    by_name = {rule.name: rule for rule in RULES}
    for name in rules:
        if name not in by_name:
            raise UsageError(f"there is no rule {name!r}{did_you_mean(name, by_name)}")
    return toml.thresholds_to_toml(thresholds, [by_name[name] for name in rules or by_name])


def thresholds_from_toml(text: str, base: Thresholds | None = None) -> Thresholds:
    """Return ``base`` (default: the built-in defaults) with what the TOML ``text`` says.

    Raises ``EsperError`` for what is no TOML, for unknown names and for values that a threshold cannot have.
    """
    return toml.thresholds_from_toml(text, Thresholds.defaults() if base is None else base)
