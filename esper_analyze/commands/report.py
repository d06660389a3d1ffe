"""``esper-analyze report``: one page about what happened in a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from esper_analyze.commands.options import (
    Assignments,
    Fail,
    Json,
    Rank,
    RulesFiles,
    RunPath,
    SkipBroken,
    ThresholdsFile,
    absolute,
    changed_thresholds,
    chosen_rules,
    fail_if,
    given_rules,
    tell_left_out,
)
from esper_analyze.storage.output_path import refuse_folder
from esper_analyze.terminal import path_words, progress, put

Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Output directory; default: reports/<name of RUN>.", callback=absolute),
]


def report(
    run_path: RunPath,
    out: Out = None,
    assignments: Assignments = None,
    thresholds: ThresholdsFile = None,
    rules_files: RulesFiles = None,
    rank: Rank = None,
    fail_on: Fail = None,
    skip_broken: SkipBroken = False,
    as_json: Json = False,
) -> None:
    """Write a page about the run: what went wrong first, when, and what to check.

    The ranks of a distributed training are joined: gradients of the first, samples of all.

    One self-contained index.html, report.md, the figures as PNG and SVG, and report.json with everything. The page's
    path goes to stdout; with --json what report.json holds goes there, and nothing is drawn or written without --out.

    Example: esper-analyze report sample_runs/runs/one_update_collapse --out page
    """
    from esper_analyze.replay.evidence import gather
    from esper_analyze.replay.recorded_rules import stored_thresholds
    from esper_analyze.reports.page import QUESTIONS
    from esper_analyze.reports.write import report_json, write_report
    from esper_analyze.runs.damaged_shard import naming_damaged_shard
    from esper_analyze.runs.run import open_run

    custom = given_rules(rules_files)
    target = out or Path("reports") / run_path.resolve().name
    if out is not None or not as_json:
        refuse_folder(target)
    run = open_run(run_path, skip_broken=skip_broken)
    tell_left_out(run)
    run = run if rank is None else run.only(rank)
    rules = chosen_rules(run, custom)
    chosen = changed_thresholds(stored_thresholds(run, rules), thresholds, assignments)
    with naming_damaged_shard(run), progress("judging", run.last_update) as step:
        evidence = gather(run, chosen, rules=rules, progress=step)
    page = None
    if out is not None or not as_json:
        with naming_damaged_shard(run), progress("drawing", len(QUESTIONS)) as step:
            page = write_report(evidence, target, progress=step)
    with naming_damaged_shard(run):
        put(report_json(evidence) if as_json else f"{path_words(page)}\n")
    fail_if(run, evidence.replay.findings, fail_on)
