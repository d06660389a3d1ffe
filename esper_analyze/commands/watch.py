"""``esper-analyze watch``: a live view of a run that is being written."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esper_analyze.commands.options import Json, Rank
from esper_analyze.errors import DAMAGED, UsageError
from esper_analyze.storage.layout import RUN_FILE
from esper_analyze.terminal import path_words, put, say

if TYPE_CHECKING:
    from esper_analyze.watch.follow import Follower

_PIPE_WIDTH = 100


def watch(
    run_path: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of one run, recorded or to be recorded.")],
    once: Annotated[
        bool, typer.Option("--once", help="Print one snapshot and exit (default when stdout is not a terminal).")
    ] = False,
    as_json: Json = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the run exists.")] = False,
    interval: Annotated[
        float, typer.Option("--interval", metavar="SECONDS", help="Time between two polls.", min=0.1, max=3600.0)
    ] = 1.0,
    rank: Rank = None,
) -> None:
    """Follow a run while it is written: state, open incidents, heads, recurrent state, lost data.

    Nothing is written to the run, and its training is not affected. Each poll reads only new data, so a long run costs
    no more than a short one; only which rules could judge is computed over the whole run, each time it has grown by a
    twentieth. Incidents come from the detector in the training; of several ranks, the first one is shown, or the one
    that --rank names. A snapshot of a run with damaged files exits 3.

    Example: esper-analyze watch sample_runs/runs/one_update_collapse --once
    """
    from esper_analyze.storage.run_info import identity
    from esper_analyze.watch.follow import Follower

    follower = Follower(run_path, rank)
    shown_once = once or as_json or not (sys.stdout.isatty() and sys.stdin.isatty())
    if not wait:
        try:
            identity(run_path)
        except UsageError as missing:
            raise _with_wait(missing, run_path) from missing
    if shown_once:
        _print_once(follower, interval, as_json=as_json)
        return
    from esper_analyze.watch.view import WatchApp

    error = WatchApp(follower, interval).run(mouse=False)
    if error is not None:
        raise error


def _with_wait(error: UsageError, run_path: Path) -> UsageError:
    """Return ``error``, with how to wait where there is no run yet."""
    if os.path.lexists(run_path / RUN_FILE):
        return error
    return UsageError(error.message, hint=f"{error.hint}; to wait for a run that is yet to begin, add --wait")


def _print_once(follower: Follower, interval: float, *, as_json: bool) -> None:
    """Print one snapshot, once the run exists."""
    import shutil

    from esper_analyze.strict_json import strict_json
    from esper_analyze.terminal import stdout
    from esper_analyze.watch.panels import plain
    from esper_analyze.watch.snapshot import snapshot
    from esper_analyze.watch.writer import WAITING

    follower.poll()
    if follower.state == WAITING and not follower.polls:
        say(f"waiting for {path_words(follower.path)}: there is no run yet")
    while not follower.polls:
        time.sleep(interval)
        follower.poll()
    shot = snapshot(follower)
    if as_json:
        put(strict_json(shot))
    else:
        console = stdout()
        for line in plain(shot, shutil.get_terminal_size((_PIPE_WIDTH, 24)).columns):
            console.print(line, soft_wrap=True)
    if follower.trouble or follower.file_troubles:
        raise typer.Exit(DAMAGED)
