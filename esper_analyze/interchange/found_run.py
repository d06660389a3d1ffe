"""One run that a source holds, found and not yet read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from esper_analyze.interchange.imported import Imported
from esper_analyze.schema.printable import invisible

_LONGEST = 80


@dataclass(frozen=True, slots=True)
class FoundRun:
    """``name``: what tells it from the others of its source, as the name of a folder. ``read`` takes the framework."""

    name: str
    read: Callable[[str | None], Imported]


def folder_name(text: str) -> str:
    """Return the name of a run, which its source may have from anyone, as the name of a folder."""
    safe = "".join("_" if character in '/\\:*?"<>|' or invisible(character) else character for character in text)
    safe = safe.strip().lstrip(".")[:_LONGEST].strip()
    return safe or "run"


def distinct(names: list[str]) -> list[str]:
    """Return ``names`` with a number behind those that are there already."""
    used: set[str] = set()
    result = []
    for name in names:
        number, candidate = 1, name
        while candidate in used:
            number += 1
            candidate = f"{name}-{number}"
        used.add(candidate)
        result.append(candidate)
    return result
