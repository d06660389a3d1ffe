"""``monitor.csv`` of Stable-Baselines3's Monitor: a line of JSON, then return, length and end of each episode.

The files hold no step. Each environment writes its own file, and all environments step together: an episode of one of N
files ends N times as many environment steps into the training as the lengths in its file sum up to. That puts it into
the first update with so many steps. A single file written for all environments together has no such order by
environment: there an episode may be counted for an update too early, by less than the length of an episode.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path

from esper_analyze.errors import DamagedError, UsageError
from esper_analyze.interchange.imported import Imported, ImportLosses, Row
from esper_analyze.interchange.rows_file import csv_rows
from esper_analyze.interchange.series import cell

MONITOR_FILE = "monitor.csv"
_LONGER, _TRAINED = 1.05, 100_000
"""The last training is not logged: episodes may end so many times, or steps, later than the last update."""


def is_monitor_file(path: Path) -> bool:
    """Whether ``path`` is named as Monitor names its files."""
    return path.name == MONITOR_FILE or path.name.endswith(f".{MONITOR_FILE}")


def recognises(path: Path) -> Path | None:
    """Return ``path`` when it is a file of Monitor, else None."""
    return path if path.is_file() and is_monitor_file(path) else None


def read(path: Path, framework: str | None = None) -> Imported:
    """Refuse a file of episodes alone. Raises ``UsageError``."""
    del framework
    episodes = sum(1 for _ in csv_rows(path, ImportLosses()))
    raise UsageError(
        f"{path} holds {episodes:,} episodes and no update of a training: nothing to judge",
        hint="import the folder with the progress.csv or event file of the training, this file beside it is read along",
    )


def add_episodes(imported: Imported, files: Sequence[Path]) -> None:
    """Add the episodes of ``files`` to the updates that they ended in; where that cannot be known, say so."""
    if imported.rows.get("episodes"):
        return
    names = files[0].name if len(files) == 1 else f"{len(files):,} {MONITOR_FILE} files"
    ends = [(row["env_steps"], row["update"]) for row in imported.rows.get("updates", []) if row.get("env_steps")]
    steps = [int(str(step)) for step, _ in ends]
    episodes = sorted(_all_episodes(imported, files), key=lambda episode: episode[0])
    if not steps or steps != sorted(set(steps)):
        imported.remarks.append(f"{names} not used: the log does not count environment steps throughout")
    elif episodes and episodes[-1][0] > _LONGER * steps[-1] + _TRAINED:
        imported.remarks.append(f"{names} not used: the episodes go on long after the last update logged")
    elif episodes:
        placed = [(bisect_left(steps, end), row) for end, row in episodes]
        for index, row in placed:
            if index < len(steps):
                imported.add("episodes", {"update": ends[index][1], **row})
        count = sum(index < len(steps) for index, _ in placed)
        imported.remarks.append(f"{count:,} episodes from {names}, placed by the lengths of those before them")
        imported.columns["episodes"] = f"{names}; its update follows from the lengths of the episodes before it"


def _all_episodes(imported: Imported, files: Sequence[Path]) -> Iterator[tuple[int, Row]]:
    for env, file in enumerate(sorted(files)):
        try:
            yield from _episodes(imported, file, env, len(files))
        except (DamagedError, UsageError) as error:
            imported.losses.count("damaged_file", "file of episodes that cannot be read", error.message, lost=1)


def _episodes(imported: Imported, file: Path, env: int, envs: int) -> Iterator[tuple[int, Row]]:
    """Yield the environment steps at which each episode ended, and its row."""
    steps = 0
    for index, row in enumerate(csv_rows(file, imported.losses)):
        where = f"row {index} of {file.name}"
        length = cell(imported, "episodes", "length", row.get("l"), f"l, {where}")
        if not isinstance(length, int):
            return  # what follows ended at an unknown step
        steps += length
        episode_return = cell(imported, "episodes", "episode_return", row.get("r"), f"r, {where}")
        yield steps * envs, {"env": env if envs > 1 else None, "episode_return": episode_return, "length": length}
