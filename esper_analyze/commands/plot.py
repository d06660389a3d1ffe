"""``esper-analyze plot``: metrics of one run or several as a picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esper_analyze.commands.options import Open, SkipBroken, absolute, show_file, takes_options
from esper_analyze.commands.run_options import UpdateRange
from esper_analyze.errors import UsageError
from esper_analyze.storage.atomic import write_files
from esper_analyze.storage.output_path import refuse_file, writing
from esper_analyze.terminal import path_words, put

if TYPE_CHECKING:
    from esper_analyze.reports.metric_plots import Panel

_FORMS = {".png": "png", ".svg": "svg"}


@takes_options(
    *("arguments", "subject", "x", "first", "last", "latest"),
    *("out", "skip_broken", "opens"),
)
def plot(
    updates: UpdateRange,
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN… METRIC…",
            help="Runs (directories, or patterns), then metrics: COLUMN, or TABLE.COLUMN; a panel each.",
        ),
    ],
    subject: Annotated[
        str | None, typer.Option("--subject", metavar="NAME", help="The head, group, layer or slot to draw.")
    ] = None,
    x: Annotated[
        str, typer.Option("--x", metavar="X", help="update, env_steps, time (seconds), or another metric: points.")
    ] = "update",
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="File to write, .png or .svg.", callback=absolute)
    ] = Path("plot.png"),
    skip_broken: SkipBroken = False,
    opens: Open = False,
) -> None:
    """Draw metrics of one run, with its incidents shaded, or of several, a line each.

    Of more than eight lines those that end highest and lowest have a colour and a name.
    NaN and ±Inf are marked on the edge, gaps were not measured. `schema` lists the columns.

    Example: esper-analyze plot sample_runs/runs/kl_too_high kl_k3 entropy

    Example: esper-analyze plot 'runs/lr-*' episode_return_mean --x env_steps --out returns.svg

    Example: esper-analyze plot runs/mine heads.grad_norm --subject op --last 100
    """
    from esper_analyze.reports.metric_plots import plot_file

    updates.refuse_contradiction()
    form = _FORMS.get(out.suffix.lower())
    if form is None:
        raise UsageError(f"{out.name} is neither .png nor .svg", hint="name the file as one of them")
    refuse_file(out)
    panels = _panels(arguments, subject, x, skip_broken=skip_broken)
    begin = updates.first if updates.latest is None else -updates.latest
    picture = plot_file([_between(panel, begin, updates.last) for panel in panels], form)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_files(out.parent, {out.name: picture})
    put(f"{path_words(out)}\n")
    show_file(out, wanted=opens)


def _between(panel: Panel, first: int | None, last: int | None) -> Panel:
    from esper_analyze.reports.metric_plots import between

    return between(panel, first, last)


def _panels(arguments: list[str], subject: str | None, x: str, *, skip_broken: bool) -> list[Panel]:
    from esper_analyze.commands.run_options import open_runs
    from esper_analyze.replay.evidence import gather
    from esper_analyze.replay.recorded_rules import known_thresholds
    from esper_analyze.reports.metric_plots import against, fleet_panel, metric_named, run_panel

    paths, names = _parted(arguments)
    metrics = [metric_named(name) for name in names]
    runs = open_runs(paths, skip_broken=skip_broken).runs
    axis = against(runs if len(runs) > 1 else [("", run) for _, run in runs], x)
    if len(runs) > 1:
        return [replace(fleet_panel(runs, metric, subject), against=axis) for metric in metrics]
    evidence = gather(runs[0][1], known_thresholds(runs[0][1]))
    incidents = evidence.replay.single_incidents
    return [replace(run_panel(evidence.run, metric, subject, incidents), against=axis) for metric in metrics]


def _parted(arguments: list[str]) -> tuple[list[Path], list[str]]:
    """Return the runs, which come first, and the metrics. Raises ``UsageError`` without one or the other."""
    count = 0
    while count < len(arguments) and (Path(arguments[count]).exists() or set(arguments[count]) & set("/*?[")):
        count += 1
    if not count:
        raise UsageError(
            f"there is no run {arguments[0]!r}", hint="runs come first, then metrics: plot runs/mine kl_k3"
        )
    if count == len(arguments):
        raise UsageError("plot needs a metric", hint="such as kl_k3 or episode_return_mean; `schema` lists the columns")
    return [Path(argument) for argument in arguments[:count]], arguments[count:]
