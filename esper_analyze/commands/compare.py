"""``esper-analyze compare``: where two runs diverge, or which runs of a group leave the others, and when."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esper_analyze.commands.options import Json, Open, RunPaths, SkipBroken, show_file
from esper_analyze.commands.run_options import open_runs
from esper_analyze.errors import FINDINGS, UsageError
from esper_analyze.storage.output_path import refuse_folder
from esper_analyze.terminal import cleaned, escaped, path_words, progress, put, say, show_table

if TYPE_CHECKING:
    from esper_analyze.comparison.groups import ComparedGroup
    from esper_analyze.comparison.side_by_side import SideBySide
    from esper_analyze.runs.fleet import RecordedFleet
    from esper_analyze.runs.run import RecordedRun

MOST_SETTINGS = 12
"""Differing settings listed in the terminal; page and JSON list all."""
MOST_LABELS = 2
"""Runs named beside a value of a setting in the terminal."""
_NUMBERS = (
    "update",
    "value",
    "other's value",
    "beyond band",
    "updates",
    "diverges at",
    "median of others",
    "metrics diverged",
)


def compare(
    paths: RunPaths,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Directory for the page, its figures and compare.json.")
    ] = Path("reports/compare"),
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by",
            metavar="SETTING",
            help="Means by group of runs with the same value of this setting, such as learning_rate. Repeat for more.",
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            "--group",
            metavar="REGEX",
            help="Means by group of runs in whose labels this matches the same text; (…) picks the part that counts.",
        ),
    ] = None,
    as_json: Json = False,
    fail_on_parting: Annotated[
        bool,
        typer.Option(
            "--fail-on-parting", help="Exit 1 if a run diverges from the others or its returns end differently."
        ),
    ] = False,
    no_page: Annotated[
        bool, typer.Option("--no-page", help="Print the table or JSON only; write no page and no figures.")
    ] = False,
    skip_broken: SkipBroken = False,
    opens: Open = False,
) -> None:
    """Compare runs: how each began and ended, where they diverge, in which metric, and how their settings differ.

    First a table: the mean over the first and the last tenth of each run, their ratio, and its worst incident. With
    --by or --group also the means over the runs of a group, with 95 % confidence intervals.

    Two runs: the update up to which they are equal in all compared columns, then the first at which one leaves the
    other's range around that update by more than their early noise, and stays outside. Two healthy runs with different
    random seeds eventually diverge, mostly late; the page says how often.

    Three or more runs: the first update at which each run leaves the range of the others. With five healthy runs or
    more, a faulty one stands out within a few updates.

    Runs whose last tenths do not overlap are reported as different at the end, even if no update of divergence can be
    named. Settings, including schedules, are listed but not judged.

    Writes a page with the overlaid metrics, its figures as PNG, and compare.json; the table goes to stdout.

    Example: esper-analyze compare runs/before runs/after

    Example: esper-analyze compare runs/seeds --out reports/seeds --fail-on-parting

    Example: esper-analyze compare 'runs/lr-*' --by learning_rate

    Example: esper-analyze compare runs --group '^(.*)-seed' --json
    """
    from esper_analyze.comparison.groups import groups_of
    from esper_analyze.comparison.metrics import TOPICS
    from esper_analyze.comparison.side_by_side import side_by_side
    from esper_analyze.comparison.write import facts, write_comparison
    from esper_analyze.strict_json import strict_json

    if not no_page:
        refuse_folder(out)
    runs = _usable(open_runs(paths, skip_broken=skip_broken))
    with progress("reading", len(runs)) as step:
        compared = side_by_side(runs, progress=step)
    if not compared.metrics:
        raise UsageError("these runs have no metric in common", hint="`esper-analyze sql RUN` shows what was recorded")
    groups = groups_of(compared, by or (), group)
    page = None
    if not no_page:
        with progress("drawing", len(TOPICS)) as step:
            page = write_comparison(compared, out, groups=groups, progress=step)
    if as_json:
        put(strict_json(facts(compared, groups)))
    else:
        _show(compared, groups)
        put("" if page is None else f"\n{path_words(page)}\n")
    show_file(page, wanted=opens)
    if fail_on_parting and (compared.divergences or compared.returns_end_apart):
        raise typer.Exit(FINDINGS)


def _usable(fleet: RecordedFleet) -> list[tuple[str, RecordedRun]]:
    """Return the runs that have an update and report the others. Raises ``UsageError`` when fewer than two have one."""
    empty = [label for label, run in fleet.runs if run.last_update is None]
    runs = [entry for entry in fleet.runs if entry[0] not in empty]
    if len(runs) > 1:
        for label in empty:
            say(f"esper-analyze: warning: {label} has no complete update and is left out")
        return runs
    reason = f"{runs[0][0]} is the only run given" if runs else "no run given has a complete update"
    if runs and empty:
        reason = f"only {runs[0][0]} has a complete update"
    raise UsageError(reason, hint="compare needs two runs or more; a directory stands for all the runs below it")


def _show(comparison: SideBySide, groups: Sequence[ComparedGroup]) -> None:
    from esper_analyze.comparison.summary_tables import group_table, tenths_table
    from esper_analyze.comparison.words import caveats, divergence_table, headline, sentences

    _show_table(*tenths_table(comparison))
    if groups:
        put("last tenth, mean over the runs of a group (95 % confidence interval):\n")
        _show_table(*group_table(comparison, groups))
    put(cleaned(headline(comparison), 1_000) + "\n")
    for sentence in (*sentences(comparison), *caveats(comparison)):
        put(cleaned(sentence, 1_000) + "\n")
    titles, rows = divergence_table(comparison)
    if rows:
        put("\n")
        show_table(titles, [[escaped(cell) for cell in row] for row in rows], right=_NUMBERS)
    _show_settings(comparison)


def _show_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    show_table(titles, [[escaped(cell) for cell in row] for row in rows], right=("runs",))
    put("\n")


def _show_settings(comparison: SideBySide) -> None:
    listed = [setting for setting in comparison.settings if not setting[0].startswith("thresholds.")]
    if listed:
        put("\nsettings that differ:\n")
    for name, values in listed[:MOST_SETTINGS]:
        put(f"  {cleaned(name)}: {cleaned(_who_has_what(comparison, values), 240)}\n")
    more = len(comparison.settings) - len(listed[:MOST_SETTINGS])
    if more:
        put(f"  and {more:,} more, including thresholds of the detector: the page lists all\n")


def _who_has_what(comparison: SideBySide, values: Sequence[str]) -> str:
    """Return each value with the runs that have it; of two runs the values alone, in their order."""
    if len(values) == 2:
        return " | ".join(cleaned(value, 60) for value in values)
    parts = []
    for value in dict.fromkeys(values):
        labels = [label for label, of_run in zip(comparison.labels, values, strict=True) if of_run == value]
        more = f" and {len(labels) - MOST_LABELS} more" if len(labels) > MOST_LABELS else ""
        parts.append(f"{cleaned(value, 40)} ({', '.join(labels[:MOST_LABELS])}{more})")
    return " | ".join(parts)
