"""``esper-analyze report``: one page about what happened in a run, or one over many with a page of each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from esper_analyze.commands.options import FailOn, Json, Open, absolute, show_file, takes_options
from esper_analyze.commands.run_options import RunOptions, UpdateRange
from esper_analyze.errors import DAMAGED, FINDINGS, EsperError, UsageError
from esper_analyze.storage.output_path import refuse_folder
from esper_analyze.terminal import path_words, progress, put, tell

if TYPE_CHECKING:
    from esper_analyze.replay.evidence import Evidence
    from esper_analyze.runs.run import RecordedRun

IndexOnly = Annotated[
    bool, typer.Option("--index-only", help="Of a directory of runs: write the index over them, not the page of each.")
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", metavar="DIR", help="Output directory; default: reports/<name of RUN>.", callback=absolute
    ),
]


NoForm = Annotated[str | None, typer.Option("--format", hidden=True)]


@dataclass(frozen=True, kw_only=True)
class ReportOptions(RunOptions, UpdateRange):
    """The run of a report, how it is judged, and the updates that its figures and rows show."""


@takes_options(
    "path", "out", "first", "last", "latest", "assignments", "thresholds", "rules_files", "rank", "fail_on",
    "skip_broken", "as_json", "form",
    "index_only", "opens",
)  # fmt: skip
def report(
    options: ReportOptions,
    out: Out = None,
    as_json: Json = False,
    form: NoForm = None,
    index_only: IndexOnly = False,
    opens: Open = False,
) -> None:
    """Write a page about the run: what went wrong first, when, and what to check.

    The ranks of a distributed training are joined: gradients of the first, samples of all.

    One self-contained index.html, report.md, the figures as PNG and SVG, and report.json with everything. The page's
    path goes to stdout; with --json what report.json holds goes there, and nothing is drawn or written without --out.

    Of a directory with runs below it: a page of each, and an index.html over all of them, with how each stands, its
    returns, and the settings that differ.

    --from, --to and --last limit figures and rows to these updates; the verdict is on the whole run.

    Example: esper-analyze report sample_runs/runs/one_update_collapse --out page

    Example: esper-analyze report runs --index-only

    Example: esper-analyze report runs/mine --last 100
    """
    options.refuse_contradiction()
    if form is not None:
        raise UsageError(
            "report takes no --format: it always writes HTML, Markdown, JSON, PNG and SVG",
            hint="--json prints JSON; a single question, such as `esper-analyze timeline`, takes --format",
        )
    target = out or Path("reports") / options.path.resolve().name
    writes = out is not None or not as_json
    if writes:
        refuse_folder(target)
    elif opens:
        raise UsageError("--json writes no page to open", hint="give --out as well")
    below = _runs_below(options.path)
    if below:
        _report_all(
            options, below, target if writes else None, as_json=as_json, pages=writes and not index_only, opens=opens
        )
    elif index_only:
        raise UsageError(f"{options.path} is one run", hint="--index-only is for a directory with runs below it")
    else:
        _report_one(options, target, as_json=as_json, draws=writes, opens=opens)


def _runs_below(path: Path) -> list[Path]:
    from esper_analyze.storage.run_info import find_runs

    runs = find_runs(path) if path.is_dir() else []
    return [] if runs == [path] else runs


def _report_one(options: ReportOptions, target: Path, *, as_json: bool, draws: bool, opens: bool) -> None:
    from esper_analyze.reports.write import report_json
    from esper_analyze.runs.damaged_shard import naming_damaged_shard

    run = options.open()
    span, _ = options.shown(run)
    evidence = options.evidence(run)
    page = _drawn(run, evidence, target, span) if draws else None
    with naming_damaged_shard(run):
        put(report_json(evidence, span) if as_json else f"{path_words(page)}\n")
    show_file(page, wanted=opens)
    options.exit_if_found(run, evidence.replay.findings)


def _drawn(
    run: RecordedRun, evidence: Evidence, target: Path, span: tuple[int, int] | None, what: str = "drawing"
) -> Path:
    from esper_analyze.reports.section_list import SECTIONS
    from esper_analyze.reports.write import write_report
    from esper_analyze.runs.damaged_shard import naming_damaged_shard

    with naming_damaged_shard(run), progress(what, len(SECTIONS)) as step:
        return write_report(evidence, target, span=span, progress=step)


def _report_all(
    options: ReportOptions, paths: list[Path], target: Path | None, *, as_json: bool, pages: bool, opens: bool
) -> None:
    """Write the pages of several runs and the index over them into ``target``, if there is one.

    A run that cannot be read hides no other.
    """
    from esper_analyze.comparison.index_page import index_json, run_index, write_index
    from esper_analyze.detector.custom import with_custom
    from esper_analyze.detector.thresholds import Thresholds
    from esper_analyze.runs.fleet import labels

    if not pages and not (options.first is options.last is options.latest is None):
        raise UsageError("the index alone shows no updates", hint="--from, --to and --last need pages")
    if not pages and (options.assignments or options.thresholds or options.rules_files or options.rank is not None):
        raise UsageError(
            "the index alone says what the live detector said",
            hint="--set, --thresholds, --rules and --rank need pages",
        )
    options.changed(Thresholds.defaults(with_custom(options.custom)))  # what is wrong is said once, not by each run
    named = list(zip(labels(paths), paths, strict=True))
    broken, found = _pages(options, named, target) if target is not None and pages else ([], False)
    there = [
        label
        for label, _ in named
        if target is not None and label not in broken and (target / label / "index.html").is_file()
    ]
    index = run_index(named, {label: quote(f"{label}/index.html") for label in there})
    page = None if target is None else write_index(index, str(options.path), target)
    put(index_json(index) if as_json else f"{path_words(page)}\n")
    show_file(page, wanted=opens)
    if broken or any(run.summary.fault is not None for run in index.runs):
        raise typer.Exit(DAMAGED)
    bad = {None: (), FailOn.WARNING: ("warning", "critical"), FailOn.CRITICAL: ("critical",)}[options.fail_on]
    if found or (not pages and any(run.verdict in bad for run in index.runs)):
        raise typer.Exit(FINDINGS)


def _pages(options: ReportOptions, named: list[tuple[str, Path]], target: Path) -> tuple[list[str], bool]:
    """Write the page of each run; return those of which none can be written, and whether --fail-on found something."""
    broken, found = [], False
    for label, _ in named:
        refuse_folder(target / label)
    for count, (label, path) in enumerate(named, start=1):
        one = replace(options, path=path)
        try:
            run = one.open()
            span, _ = one.shown(run)
            evidence = one.evidence(run)
            _drawn(run, evidence, target / label, span, f"{count} of {len(named)}: {label}")
            one.exit_if_found(run, evidence.replay.findings)
        except EsperError as error:
            tell(error)
            broken.append(label)
        except typer.Exit:
            found = True
    return broken, found
