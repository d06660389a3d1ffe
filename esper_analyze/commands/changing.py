"""Change the files of a run, for the commands that do: nobody else may write to it meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from esper_analyze.terminal import counted, escaped


@contextmanager
def changing(run_path: Path, doing: str) -> Iterator[Callable[[], None]]:
    """Hold the run exclusively and yield what to call for each shard, for a progress bar titled ``doing``.

    Raises ``UsageError`` for what is no run or is being written, and when the disk fails.
    """
    from esper_analyze.storage.maintenance.exclusive import exclusive
    from esper_analyze.storage.maintenance.journal import cannot_write
    from esper_analyze.storage.maintenance.verify import shard_count
    from esper_analyze.storage.run_info import identity

    identity(run_path)
    try:
        with exclusive(run_path), counted(f"{doing} {escaped(run_path.name)}", shard_count(run_path)) as step:
            yield step
    except OSError as error:
        raise cannot_write(error) from error
