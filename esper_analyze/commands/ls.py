"""``esper-analyze ls``: the runs below a directory, one per line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from esper_analyze.commands.options import Json
from esper_analyze.errors import DAMAGED, UsageError
from esper_analyze.terminal import escaped, put, say, show_table

_TITLES = ("run", "name", "framework", "algorithm", "updates", "status", "verdict")


def ls(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory to look in, at any depth.")],
    as_json: Json = False,
) -> None:
    """List the runs below DIR: what they are, how they ended, and their verdict by what the live detector said.

    A run that cannot be read is listed with its reason and hides no other; the exit code is then 3.

    Example: esper-analyze ls sample_runs/runs
    """
    from esper_analyze.reports.listing import summarise
    from esper_analyze.storage.maintenance.verify import orphans
    from esper_analyze.storage.run_info import find_runs
    from esper_analyze.strict_json import strict_json

    if not directory.is_dir():
        raise UsageError(f"{directory} is not a directory", hint="give a directory with recorded runs below it")
    runs = find_runs(directory)
    summaries = [summarise(path) for path in sorted([*runs, *orphans(directory, runs)])]
    if as_json:
        put(strict_json(summaries))
    elif summaries:
        rows = [[escaped(cell) for cell in summary.cells(directory)] for summary in summaries]
        show_table(_TITLES, rows, right=("updates",))
    else:
        say(f"no recorded run at or below {directory}")
    bad = sum(summary.fault is not None for summary in summaries)
    if bad:
        say(f"{bad} of {len(summaries)} runs cannot be read in full")
        raise typer.Exit(DAMAGED)
