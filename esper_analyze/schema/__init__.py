"""Declaration of everything recorded; Arrow schemas, DuckDB views, validation and the schema page derive from it."""

from esper_analyze.schema.column import Column, Kind, Table
from esper_analyze.schema.history import VERSION, VERSIONS
from esper_analyze.schema.tables import BY_NAME, TABLES

__all__ = ["BY_NAME", "TABLES", "VERSION", "VERSIONS", "Column", "Kind", "Table"]
