"""``esper-analyze watch``: a live view of a run that is being written, or of the runs below a directory."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esper_analyze.commands.options import Json, Rank
from esper_analyze.errors import DAMAGED, UsageError
from esper_analyze.terminal import path_words, put, say

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.text import Text

_PIPE_WIDTH = 100


def watch(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="Runs, recorded or to be recorded, or directories with runs below."),
    ],
    once: Annotated[
        bool, typer.Option("--once", help="Print one snapshot and exit (default when stdout is not a terminal).")
    ] = False,
    as_json: Json = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until a run begins.")] = False,
    interval: Annotated[
        float, typer.Option("--interval", metavar="SECONDS", help="Time between two polls.", min=0.1, max=3600.0)
    ] = 1.0,
    rank: Rank = None,
) -> None:
    """Follow runs while they are written: state, open incidents, heads, slots, recurrent state, lost data.

    Of several runs, each one that is being written has a line, and so have those that died or ended lately; Enter or a
    number opens a run, Escape goes back. Nothing is written to a run, and no training is affected. Each poll reads only
    new data, so a long run costs no more than a short one; only which rules could judge is computed over the whole run,
    each time it has grown by a twentieth. Incidents come from the detector in the training; of several ranks, the first
    one is shown, or the one that --rank names. A snapshot of a run with damaged files exits 3. --json prints an object
    for one run, for several a list with an object for each line.

    Example: esper-analyze watch sample_runs/runs/one_update_collapse --once

    Example: esper-analyze watch runs
    """
    from esper_analyze.watch.run_list import present_runs

    if not wait:
        _check(paths)
    runs = list(present_runs(paths))
    if rank is not None and len(runs) > 1:
        raise UsageError(f"--rank is about one run, and there are {len(runs)}", hint="give the directory of one run")
    if once or as_json or not (sys.stdout.isatty() and sys.stdin.isatty()):
        runs = runs or _awaited(paths, interval)
        if not (_print_run(runs[0], rank, as_json=as_json) if len(runs) == 1 else _print_list(paths, as_json=as_json)):
            raise typer.Exit(DAMAGED)
        return
    from esper_analyze.watch.view import WatchApp

    error = WatchApp(paths, interval, rank, only=runs[0] if len(runs) == 1 else None).run(mouse=False)
    if error is not None:
        raise error


def _check(paths: Iterable[Path]) -> None:
    """Raise ``UsageError`` for a path that names no run, with how to wait for one."""
    from esper_analyze.runs.fleet import runs_of

    for path in paths:
        try:
            runs_of(path)
        except UsageError as missing:
            wait = "to wait for a run that is yet to begin, add --wait"
            if path.is_dir():
                raise UsageError(f"there is no recorded run at or below {path}", hint=wait) from missing
            raise UsageError(missing.message, hint=f"{missing.hint}; {wait}") from missing


def _awaited(paths: Iterable[Path], interval: float) -> list[Path]:
    """Return the runs that ``paths`` name, once there is one."""
    from esper_analyze.watch.run_list import present_runs

    say(f"waiting for {', '.join(map(path_words, paths))}: there is no run yet")
    while not (runs := present_runs(paths)):
        time.sleep(interval)
    return list(runs)


def _print_run(path: Path, rank: int | None, *, as_json: bool) -> bool:
    """Print a snapshot of one run and return whether its files are undamaged."""
    from esper_analyze.strict_json import strict_json
    from esper_analyze.watch.follow import Follower
    from esper_analyze.watch.panels import printed, sections
    from esper_analyze.watch.snapshot import snapshot

    follower = Follower(path, rank)
    follower.poll()
    shot = snapshot(follower)
    if as_json:
        put(strict_json(shot))
    else:
        _print(printed(sections(shot, _width()), _width()))
    return not (follower.trouble or follower.file_troubles)


def _print_list(paths: list[Path], *, as_json: bool) -> bool:
    """Print a line a run and return whether the files of all runs that are shown are undamaged."""
    from esper_analyze.strict_json import strict_json
    from esper_analyze.watch.panels import printed
    from esper_analyze.watch.run_lines import list_sections
    from esper_analyze.watch.run_list import RunList

    lines = RunList(paths).poll()
    if as_json:
        put(strict_json(lines.shown))
    else:
        _print(printed(list_sections(lines, _width()), _width()))
    return not any(line.fault for line in lines.shown)


def _width() -> int:
    import shutil

    return shutil.get_terminal_size((_PIPE_WIDTH, 24)).columns


def _print(lines: Iterable[Text]) -> None:
    from esper_analyze.terminal import stdout

    console = stdout()
    for line in lines:
        console.print(line, soft_wrap=True)
