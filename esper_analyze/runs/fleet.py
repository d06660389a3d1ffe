"""Several runs at once: found by directory or pattern, each with a unique label."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from esper_analyze.errors import EsperError, UsageError
from esper_analyze.runs.run import RecordedRun, open_run
from esper_analyze.storage.run_info import find_runs, identity

PATTERN_SIGNS = ("*", "?", "[")
"""Characters by which a path that does not exist is a pattern."""


@dataclass(frozen=True, slots=True)
class RecordedFleet:
    """Opened runs with their labels, and the errors of runs that could not be opened."""

    runs: tuple[tuple[str, RecordedRun], ...]
    unopened: tuple[EsperError, ...] = ()


def open_fleet(
    paths: Sequence[Path],
    *,
    skip_broken: bool = False,
    all_attempts: bool = False,
    progress: Callable[[int], None] | None = None,
) -> RecordedFleet:
    """Open every run that ``paths`` name: runs, directories of runs, patterns; ``progress`` takes how many are open.

    Raises what ``open_run`` raises; with ``skip_broken`` a run that cannot be opened is listed in ``unopened``.
    """
    run_dirs = run_paths(paths)
    opened: list[tuple[str, RecordedRun]] = []
    unopened: list[EsperError] = []
    for label, path in zip(labels(run_dirs), run_dirs, strict=True):
        try:
            opened.append((label, open_run(path, skip_broken=skip_broken, all_attempts=all_attempts)))
        except EsperError as error:
            if not skip_broken or len(run_dirs) == 1:
                raise
            unopened.append(error)
        if progress is not None:
            progress(len(opened) + len(unopened))
    return RecordedFleet(tuple(opened), tuple(unopened))


def run_paths(paths: Iterable[Path]) -> list[Path]:
    """Return the runs that ``paths`` name, each once, in order. Raises ``UsageError`` for one that names none."""
    by_resolved: dict[Path, Path] = {}
    for path in paths:
        for run in runs_of(path):
            by_resolved.setdefault(run.resolve(), run)
    return list(by_resolved.values())


def runs_of(path: Path) -> list[Path]:
    """Return the runs that one path names, in order. Raises ``UsageError`` when it names none."""
    if not path.exists() and any(sign in str(path) for sign in PATTERN_SIGNS):
        matched = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
        runs = [run for folder in matched if folder.is_dir() for run in find_runs(folder)]
        if not runs:
            raise UsageError(f"no recorded run matches {path}", hint="`esper-analyze ls DIR` lists the runs below DIR")
        return runs
    runs = find_runs(path) if path.is_dir() else []
    if not runs:
        identity(path)  # raises the error that names the problem
    return runs


def labels(paths: Sequence[Path]) -> list[str]:
    """Return a label for each run: its directory's name, with as many parent names as make the labels unique."""
    parts = [path.resolve().parts for path in paths]
    depth = 1
    while depth < max(map(len, parts), default=1) and len({names[-depth:] for names in parts}) < len(parts):
        depth += 1
    return [str(Path(*names[-depth:])) for names in parts]
