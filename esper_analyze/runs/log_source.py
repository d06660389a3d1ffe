"""What an imported run says of the log that it came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from esper_analyze.terminal import cleaned


def is_log(info: Mapping[str, Any]) -> bool:
    """Whether a run with this run.json is the imported log of another tool; what `export` wrote is a recording."""
    source = info.get("source")
    columns = source.get("columns") if isinstance(source, Mapping) else None
    exported = isinstance(columns, Mapping) and "all" in columns
    return info.get("imported_from") not in (None, "own") and not exported


def source_of_log(info: Mapping[str, Any]) -> str:
    """Return of the log of another tool which file it was and how often it was logged, empty for a recording."""
    source, interval = info.get("source"), info.get("logged_every")
    if info.get("imported_from") is None or not isinstance(source, Mapping):
        return ""
    name = cleaned(source.get("path") or info["imported_from"], 60)
    if name == "-":
        name = "pasted text"
    return f"imported from {name}" + (f", every {interval:,}th update logged" if isinstance(interval, int) else "")
