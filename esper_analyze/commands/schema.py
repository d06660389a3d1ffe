"""``esper-analyze schema``: what is recorded, table by table."""

from __future__ import annotations

from esper_analyze.commands.options import Json
from esper_analyze.terminal import put


def schema(as_json: Json = False) -> None:
    """Print every table and column: meaning, unit, how it was reduced, what an empty cell means; and all versions.

    Example: esper-analyze schema | less
    """
    from esper_analyze.schema import TABLES, VERSION, VERSIONS
    from esper_analyze.schema.page import schema_page, table_facts, version_facts
    from esper_analyze.strict_json import strict_json

    if as_json:
        facts = {"tables": [table_facts(table) for table in TABLES], "versions": [version_facts(v) for v in VERSIONS]}
        put(strict_json({"schema_version": VERSION, **facts}))
    else:
        put(schema_page(TABLES, VERSIONS))
