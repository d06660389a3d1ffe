"""``esper-analyze report``: one page about what happened in a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from esper_analyze.commands.options import Json, absolute, takes_options
from esper_analyze.commands.run_options import RunOptions
from esper_analyze.errors import UsageError
from esper_analyze.storage.output_path import refuse_folder
from esper_analyze.terminal import path_words, progress, put

Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Output directory; default: reports/<name of RUN>.", callback=absolute),
]


NoForm = Annotated[str | None, typer.Option("--format", hidden=True)]


@takes_options(
    "path", "out", "assignments", "thresholds", "rules_files", "rank", "fail_on", "skip_broken", "as_json", "form"
)
def report(options: RunOptions, out: Out = None, as_json: Json = False, form: NoForm = None) -> None:
    """Write a page about the run: what went wrong first, when, and what to check.

    The ranks of a distributed training are joined: gradients of the first, samples of all.

    One self-contained index.html, report.md, the figures as PNG and SVG, and report.json with everything. The page's
    path goes to stdout; with --json what report.json holds goes there, and nothing is drawn or written without --out.

    Example: esper-analyze report sample_runs/runs/one_update_collapse --out page
    """
    from esper_analyze.reports.section_list import SECTIONS
    from esper_analyze.reports.write import report_json, write_report
    from esper_analyze.runs.damaged_shard import naming_damaged_shard

    if form is not None:
        raise UsageError(
            "report takes no --format: it always writes HTML, Markdown, JSON, PNG and SVG",
            hint="--json prints JSON; a single question, such as `esper-analyze timeline`, takes --format",
        )
    target = out or Path("reports") / options.path.resolve().name
    if out is not None or not as_json:
        refuse_folder(target)
    run = options.open()
    evidence = options.evidence(run)
    page = None
    if out is not None or not as_json:
        with naming_damaged_shard(run), progress("drawing", len(SECTIONS)) as step:
            page = write_report(evidence, target, progress=step)
    with naming_damaged_shard(run):
        put(report_json(evidence) if as_json else f"{path_words(page)}\n")
    options.exit_if_found(run, evidence.replay.findings)
