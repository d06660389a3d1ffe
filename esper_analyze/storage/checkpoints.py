"""``checkpoints.jsonl`` of an attempt: which checkpoints the training saved after which update."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from esper_analyze.storage.attempts import Attempt
from esper_analyze.storage.layout import CHECKPOINTS_FILE
from esper_analyze.storage.limits import LARGEST_TEXT
from esper_analyze.storage.run_files import read_file


@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """A checkpoint as the training told of it.

    ``path`` is as given, so that a relative one is relative to the training's working directory. ``update`` is the last
    update whose optimizer steps it contains, −1 before the first; ``env_steps`` None: not given; ``at``: Unix time.
    """

    path: str
    update: int
    env_steps: int | None
    at: float

    def as_line(self) -> bytes:
        """Return the line of ``checkpoints.jsonl``, newline included."""
        return json.dumps(asdict(self)).encode() + b"\n"


def checkpoints_of(attempts: Iterable[Attempt]) -> list[SavedCheckpoint]:
    """Return the checkpoints of the attempts, by update and time; without those of updates that were superseded.

    A file that cannot be read and lines that are torn or malformed are left out: a checkpoint is a hint, not data.
    """
    saved = [
        checkpoint
        for attempt in attempts
        for checkpoint in _read(attempt.folder / CHECKPOINTS_FILE)
        if attempt.until is None or checkpoint.update < attempt.until
    ]
    return sorted(saved, key=lambda checkpoint: (checkpoint.update, checkpoint.at))


def _read(path: Path) -> Iterator[SavedCheckpoint]:
    try:
        lines = read_file(path, LARGEST_TEXT).splitlines()
    except OSError:
        return
    for line in lines:
        try:
            facts = json.loads(line)
            steps = facts["env_steps"]
            yield SavedCheckpoint(
                str(facts["path"]), int(facts["update"]), None if steps is None else int(steps), float(facts["at"])
            )
        except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError):
            continue
