"""``esper-analyze schema``: what is recorded, table by table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from esper_analyze.commands.options import Json
from esper_analyze.errors import UsageError, did_you_mean
from esper_analyze.terminal import put

if TYPE_CHECKING:
    from esper_analyze.schema.column import Table


def schema(
    tables: Annotated[
        list[str] | None, typer.Argument(metavar="[TABLE]…", help="Print only these tables.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Print every table and column: meaning, unit, how it was reduced, what an empty cell means; and all versions.

    Example: esper-analyze schema updates

    Example: esper-analyze schema | less
    """
    from esper_analyze.schema import TABLES, VERSION, VERSIONS
    from esper_analyze.schema.page import schema_page, table_facts, tables_page, version_facts
    from esper_analyze.strict_json import strict_json

    shown = _named(tables or (), TABLES)
    facts: dict[str, object] = {"schema_version": VERSION, "tables": [table_facts(table) for table in shown]}
    if as_json:
        put(strict_json(facts if tables else facts | {"versions": [version_facts(v) for v in VERSIONS]}))
    else:
        put(tables_page(shown) if tables else schema_page(shown, VERSIONS))


def _named(names: Sequence[str], tables: Sequence[Table]) -> Sequence[Table]:
    """Return the tables called ``names``, all without one. Raises ``UsageError`` for an unknown name."""
    by_name = {table.name: table for table in tables}
    for name in names:
        if name not in by_name:
            having = [table.name for table in tables if name in table.names and name not in table.key]
            hint = f"{name} is a column of {', '.join(having)}" if having else ""
            raise UsageError(f"there is no table {name!r}{'' if having else did_you_mean(name, by_name)}", hint=hint)
    return [by_name[name] for name in names] if names else tables
