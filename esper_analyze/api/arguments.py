"""What users hand to the API, checked: each refusal says what is wrong and what would be right."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.errors import UsageError

Changes = Mapping[str, Mapping[str, object]]
"""Rule → threshold → value."""
PathLike = str | os.PathLike[str]
Paths = PathLike | Sequence[PathLike]


def as_path(path: PathLike) -> Path:
    """Return ``path``. Raises ``UsageError`` for what is not a path."""
    try:
        return Path(path)
    except TypeError as error:
        raise UsageError(f"{path!r:.80} is not a path", hint="give a text or a pathlib.Path") from error


def as_paths(paths: Paths) -> list[Path]:
    """Return one path or several. Raises ``UsageError`` for what is neither."""
    if isinstance(paths, (str, os.PathLike)):
        return [as_path(paths)]
    try:
        return [as_path(path) for path in paths]
    except TypeError as error:
        raise UsageError(f"{paths!r:.80} is neither a path nor a list of paths") from error


def run_paths_in(paths: Paths) -> list[Path]:
    """Return the paths of runs. Raises ``UsageError`` when there is none."""
    listed = as_paths(paths)
    if not listed:
        raise UsageError("no path is given", hint="name runs, directories with runs below them, or patterns")
    return listed


def changed(base: Thresholds, changes: Changes) -> Thresholds:
    """Return ``base`` with ``changes``. Raises ``UsageError`` for what is not thresholds, ``ThresholdError`` else."""
    if not isinstance(base, Thresholds):
        raise UsageError(
            f"thresholds must be ea.Thresholds, not {base!r:.80}", hint="run.thresholds are those of a run"
        )
    for rule in changes:
        base[rule]  # also where nothing of it is changed
    return base.merged(changes)
