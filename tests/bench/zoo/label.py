"""What is known about a run of the zoo: sound, or faulty from which update on; written beside ``run.json``."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from esper_analyze.storage.layout import LABELS_FILE


@dataclass(frozen=True)
class ZooFault:
    """One fault, by what was done to the training and not by what a detector says.

    ``onset`` and ``until`` are the first and last update touched (until None: to the end). Any of ``rules`` counts as
    having found it; a ``hard`` one must be found in the update ``onset`` itself.
    """

    name: str
    onset: int
    rules: tuple[str, ...]
    hard: bool = False
    until: int | None = None

    def as_toml(self) -> str:
        """Return the table of this fault."""
        until = "" if self.until is None else f"until = {self.until}\n"
        rules, hard = json.dumps(list(self.rules)), str(self.hard).lower()
        return (
            f"[[fault]]\nname = {json.dumps(self.name)}\nonset = {self.onset}\n{until}rules = {rules}\nhard = {hard}\n"
        )


def write_label(run_dir: Path, faults: Sequence[ZooFault]) -> None:
    """Write the label of the run in ``run_dir``; no fault means healthy."""
    text = "\n".join(fault.as_toml() for fault in faults) or "healthy = true\n"
    (run_dir / LABELS_FILE).write_text(text)


def has_label(run_dir: Path) -> bool:
    """Return whether the run in ``run_dir`` is made: the label is written last."""
    return (run_dir / LABELS_FILE).exists()


def read_label(run_dir: Path) -> tuple[ZooFault, ...]:
    """Return the faults of the run in ``run_dir``, none for a healthy one."""
    found = tomllib.loads((run_dir / LABELS_FILE).read_text())
    return tuple(
        ZooFault(one["name"], one["onset"], tuple(one["rules"]), one["hard"], one.get("until"))
        for one in found.get("fault", [])
    )
