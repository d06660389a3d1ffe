"""What is recorded, declared once: Arrow schemas, DuckDB views, validation and the schema page derive from it."""

from esper_analyze.schema.column import Column, Kind, Table
from esper_analyze.schema.tables import BY_NAME, TABLES

VERSION = "1.0"
"""Schema version written to run.json; the number before the dot changes when old readers must refuse."""

__all__ = ["BY_NAME", "TABLES", "VERSION", "Column", "Kind", "Table"]
