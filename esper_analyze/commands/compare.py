"""``esper-analyze compare``: where two runs part, or which runs of a group leave the others, and when."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esper_analyze.commands.options import Json, SkipBroken, tell_left_out
from esper_analyze.errors import FINDINGS, UsageError
from esper_analyze.storage.output_path import refuse_folder
from esper_analyze.terminal import cleaned, escaped, path_words, progress, put, say, show_table

if TYPE_CHECKING:
    from esper_analyze.comparison.side_by_side import SideBySide
    from esper_analyze.runs.fleet import RecordedFleet
    from esper_analyze.runs.run import RecordedRun

Runs = Annotated[
    list[Path],
    typer.Argument(metavar="RUN…", help="Two runs or more: directories of runs, directories that hold runs, patterns."),
]
MOST_SETTINGS = 12
"""Differing settings listed in the terminal; page and JSON have all."""
_NUMBERS = ("update", "has", "other has", "beyond band", "updates", "leaves at", "median", "metrics out")


def compare(
    paths: Runs,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where page, figures and compare.json are written.")
    ] = Path("reports/compare"),
    as_json: Json = False,
    fail_on_parting: Annotated[
        bool,
        typer.Option("--fail-on-parting", help="Exit 1 when a run parts from the others, or its returns end apart."),
    ] = False,
    no_page: Annotated[
        bool, typer.Option("--no-page", help="Draw and write nothing: the table, or JSON, is all.")
    ] = False,
    skip_broken: SkipBroken = False,
) -> None:
    """Find the first update where runs part, in which metric, and how their settings differ.

    Two runs: the update up to which they are equal in all columns compared, then the first at which one lies beyond
    what the other does at about that time by more than their own early noise, and stays there. That two seeds part
    some day is no fault: of sound pairs some do, mostly late; the page says how many.

    Three and more: the first update where each run leaves what the others do. Give five sound seeds or more, and the
    one with a fault stands out within a few updates.

    Where the last tenths of runs do not overlap they are different at the end, also when no update can be named at
    which they part. Settings, also those that follow a schedule, are listed and never part.

    Writes a page with the metrics over each other, its figures as PNG, and compare.json; the table goes to stdout.

    Example: esper-analyze compare runs/before runs/after

    Example: esper-analyze compare runs/seeds --out reports/seeds --fail-on-parting

    Example: esper-analyze compare 'runs/lr-*' --json
    """
    from esper_analyze.comparison.metrics import TOPICS
    from esper_analyze.comparison.side_by_side import side_by_side
    from esper_analyze.comparison.write import facts, write_comparison
    from esper_analyze.runs.fleet import open_fleet
    from esper_analyze.strict_json import strict_json

    if not no_page:
        refuse_folder(out)
    runs = _usable(open_fleet(paths, skip_broken=skip_broken))
    with progress("reading", len(runs)) as step:
        found = side_by_side(runs, progress=step)
    if not found.metrics:
        raise UsageError("these runs have no metric in common", hint="`esper-analyze sql RUN` shows what was recorded")
    page = None
    if not no_page:
        with progress("drawing", len(TOPICS)) as step:
            page = write_comparison(found, out, progress=step)
    if as_json:
        put(strict_json(facts(found)))
    else:
        _show(found)
        put("" if page is None else f"\n{path_words(page)}\n")
    if fail_on_parting and (found.leavings or found.outcome_apart):
        raise typer.Exit(FINDINGS)


def _usable(fleet: RecordedFleet) -> list[tuple[str, RecordedRun]]:
    """Return the runs that have an update, and say what is left out. Raises ``UsageError`` when fewer than two do."""
    for error in fleet.unopened:
        say(f"esper-analyze: warning: left out: {error.message}")
    for _, run in fleet.runs:
        tell_left_out(run)
    empty = [label for label, run in fleet.runs if run.last_update is None]
    runs = [one for one in fleet.runs if one[0] not in empty]
    if len(runs) > 1:
        for label in empty:
            say(f"esper-analyze: warning: {label} has no complete update and is left out")
        return runs
    told = f"{runs[0][0]} is the only run given" if runs else "no run given has a complete update"
    if runs and empty:
        told = f"only {runs[0][0]} has a complete update"
    raise UsageError(told, hint="compare needs two runs or more; a directory stands for all the runs below it")


def _show(found: SideBySide) -> None:
    from esper_analyze.comparison.words import caveats, headline, partings, sentences

    put(cleaned(headline(found), 1_000) + "\n")
    for told in (*sentences(found), *caveats(found)):
        put(cleaned(told, 1_000) + "\n")
    titles, rows = partings(found)
    if rows:
        put("\n")
        show_table(titles, [[escaped(cell) for cell in row] for row in rows], right=_NUMBERS)
    _show_settings(found)


def _show_settings(found: SideBySide) -> None:
    listed = [one for one in found.settings if not one[0].startswith("thresholds.")]
    if listed:
        put("\nsettings that differ:\n")
    for name, values in listed[:MOST_SETTINGS]:
        told = " | ".join(dict.fromkeys(cleaned(value, 40) for value in values))
        put(f"  {cleaned(name)}: {cleaned(told, 160)}\n")
    more = len(found.settings) - len(listed[:MOST_SETTINGS])
    if more:
        put(f"  and {more:,} more, thresholds of the detector among them: the page lists all\n")
