"""Every source that can be imported, written out, and which of them a path is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from esper_analyze.errors import UsageError
from esper_analyze.interchange import (
    import_ancestor,
    import_console,
    import_own,
    import_rlprobe,
    import_sb3,
    import_tensorboard,
    import_wandb,
)
from esper_analyze.interchange.imported import Imported


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of source: ``recognises`` returns the file or directory to read that a path is or holds, or None."""

    name: str
    what: str
    recognises: Callable[[Path], Path | None]
    read: Callable[[Path], Imported]


SOURCES = (
    Source("rlprobe", "a directory that rlprobe wrote", import_rlprobe.recognises, import_rlprobe.read),
    Source("ancestor", "the ancestor's events.jsonl", import_ancestor.recognises, import_ancestor.read),
    Source("tensorboard", "TensorBoard event files", import_tensorboard.recognises, import_tensorboard.read),
    Source("sb3", "Stable-Baselines3's progress.csv", import_sb3.recognises, import_sb3.read),
    Source("own", "what `export` wrote as CSV, JSON lines or Parquet", import_own.recognises, import_own.read),
    Source("wandb", "a W&B history as .csv, .jsonl or .parquet", import_wandb.recognises, import_wandb.read),
    Source("console", "printed text, from - or a .log or .txt", import_console.recognises, import_console.read),
)
"""In the order they are tried: a more particular one before one that takes any file of its ending."""
_DIRECTORY = ("tensorboard", "sb3", "ancestor")
"""Sources that may lie beside one another in a directory that a training logged to."""


def read_source(path: Path, kind: str | None = None) -> Imported:
    """Read ``path`` as the source called ``kind``, or as what it is. Raises ``UsageError`` or ``DamagedError``."""
    if not path.exists() and path != import_console.STANDARD_INPUT:
        raise UsageError(f"{path} does not exist", hint="give the file or directory to import")
    places = [
        (format_source, path_inside)
        for format_source in SOURCES
        if kind in (None, format_source.name) and (path_inside := format_source.recognises(path))
    ]
    if not places:
        wanted = next((format_source.what for format_source in SOURCES if format_source.name == kind), None)
        kinds = "; ".join(f"{format_source.name}: {format_source.what}" for format_source in SOURCES)
        if wanted is None:
            raise UsageError(f"{path} is not in a format that can be imported", hint=kinds)
        raise UsageError(f"{path} is not, and does not hold, {wanted}", hint="--format auto detects the format")
    if path.is_dir() and len(places) > 1 and all(format_source.name in _DIRECTORY for format_source, _ in places):
        named = ", ".join(f"{path_inside.name} ({format_source.name})" for format_source, path_inside in places)
        raise UsageError(f"{path} holds several logs: {named}", hint="give one of them, or --format")
    source, path_inside = places[0]
    imported = source.read(path_inside)
    imported.facts["source"] = {"path": path_inside.name} | _mapping(imported.facts.get("source"))
    return imported


def _mapping(value: object) -> dict[str, object]:
    return dict(value) if isinstance(value, dict) else {}
