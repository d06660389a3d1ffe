"""``esper-analyze backtest``: recall and false alarms of rules on labelled runs, for many settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esper_analyze.commands.backtest_output import (
    backtest_facts,
    print_policies,
    print_words,
    tell_left_out,
    tell_unlabelled,
)
from esper_analyze.commands.options import SkipBroken, absolute, takes_options
from esper_analyze.commands.output import Form, RowOutput
from esper_analyze.commands.run_options import EVERY_THRESHOLD, DetectorOptions
from esper_analyze.errors import DAMAGED, UsageError
from esper_analyze.storage.output_path import refuse_file, writing
from esper_analyze.terminal import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from esper_analyze.detector.rule import Rule
    from esper_analyze.detector.thresholds import Thresholds
    from esper_analyze.replay.backtest import Backtest
    from esper_analyze.replay.policy_scores import PolicyTrials
    from esper_analyze.replay.scores import Score
    from esper_analyze.runs.run import RecordedRun

LabelledRuns = Annotated[
    list[Path], typer.Argument(metavar="RUNS...", help="Labelled runs, or directories with runs below.")
]
Sweeps = Annotated[
    list[str] | None,
    typer.Option(
        "--sweep", metavar="RULE.FIELD=A,B,C", help="Try these values; given again, every combination is tried."
    ),
]
Figure = Annotated[
    Path | None,
    typer.Option(
        "--figure", metavar="FILE", help="Draw recall and delay against false alarms (PNG).", callback=absolute
    ),
]
LabelsFile = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="FILE",
        help="Labels of all runs in one file (TOML or, if its name ends in .json, JSON), not labels.toml in each.",
    ),
]
_LABELS = "write labels.toml beside its run.json: healthy = true, or [[fault]]"
Policies = Annotated[
    list[str] | None,
    typer.Option(
        "--policy",
        metavar="CONDITION;…",
        help='What stop_on would have stopped: "RULE:VERDICT for N; …". Given again, policies are compared.',
    ),
]
Defaults = Annotated[
    bool,
    typer.Option("--defaults", help="Start from the default thresholds, not from those each run was recorded with."),
]


@dataclass(frozen=True, kw_only=True)
class BacktestOptions(DetectorOptions, RowOutput):
    """The options of ``backtest``: how the runs are judged, and how the scores are written."""

    suffix_hint = "; --figure FILE.png draws the scores"


@takes_options(
    *("run_paths", "sweeps", "assignments", "thresholds", "defaults", "rules_files"),
    *("labels", "figure", "policies", "form", "as_json", "out", "skip_broken", "safe"),
)
def backtest(
    options: BacktestOptions,
    run_paths: LabelledRuns,
    sweeps: Sweeps = None,
    defaults: Defaults = False,
    labels: LabelsFile = None,
    figure: Figure = None,
    policies: Policies = None,
    skip_broken: SkipBroken = False,
) -> None:
    """Judge labelled RUNS and count, for each rule and setting: recall, false alarms, and delay in updates.

    A run's labels.toml says `healthy = true`, or has [[fault]] tables with name, onset and rules (and until, hard,
    harm). Of a rule, a fault is found when it lists the rule and the rule begins to alarm at or after its onset; an
    incident that begins in a healthy run or before the first onset is a false alarm, counted per 1,000 healthy
    updates. Of all rules together, the figures are those of the fault bench: recall net of the twin that a label names,
    cause, delay and false incidents, with 95 % intervals. Each run is read once for all settings.

    With --policy instead: which runs `Recorder(stop_on=…)` would have stopped, and how many updates after the first
    onset that would have saved; runs without a fault that it stops are trainings lost.

    Example: esper-analyze backtest sample_runs/runs --sweep kl_spike.critical=0.2,0.5,1,2 --figure tradeoff.png
    """
    from esper_analyze.detector.custom import with_custom
    from esper_analyze.detector.thresholds import ThresholdError, Thresholds
    from esper_analyze.replay.backtest import STEPS
    from esper_analyze.replay.backtest import backtest as run_backtest
    from esper_analyze.replay.recorded_rules import stored_thresholds
    from esper_analyze.replay.sweep import parse_sweep

    _ = options.resolved
    rules = with_custom(options.custom)
    try:
        sweep = parse_sweep(sweeps or (), rules)
    except ThresholdError as error:
        raise UsageError(f"--sweep: {error}", hint=EVERY_THRESHOLD) from error
    _check_figure(figure)
    if labels is not None and not labels.is_file():
        raise UsageError(f"--labels: {labels} is not a file", hint="a table for each run, with the keys of labels.toml")
    options.changed(Thresholds.defaults(rules))  # refused before long work

    def base(run: RecordedRun) -> Thresholds:
        rules = options.rules(run)
        return options.changed(Thresholds.defaults(rules) if defaults else stored_thresholds(run, rules))

    paths = _run_folders(run_paths)
    if policies:
        if sweeps or figure:
            raise UsageError("--policy does not go with --sweep and --figure", hint="-s sets thresholds for --policy")
        _write_policies(options, _tried(paths, policies, rules, base, labels))
        return
    with progress("judging", len(paths) * STEPS) as step:
        result = run_backtest(paths, rules, sweep, base, labels_file=labels, skip_broken=skip_broken, progress=step)
    _report(options, result, figure)


def _report(options: BacktestOptions, result: Backtest, figure: Path | None) -> None:
    from esper_analyze.replay.scores import scores

    tell_left_out(result)
    if result.tested:
        scored = scores(result)
        _write(options, result, scored)
        _write_figure(figure, scored)
    if result.broken:
        raise typer.Exit(DAMAGED)
    if not result.tested:
        labels = result.labels_file
        raise UsageError("no run has labels" if labels is None else f"{labels} names none of the runs", hint=_LABELS)


def _tried(
    paths: Sequence[Path],
    policies: Sequence[str],
    rules: Sequence[Rule],
    base: Callable[[RecordedRun], Thresholds],
    labels: Path | None,
) -> PolicyTrials:
    from esper_analyze.replay.policy_scores import try_policies

    with progress("judging", len(paths)) as step:
        trials = try_policies(paths, policies, rules, base, labels_file=labels, progress=step)
    tell_unlabelled(trials.unlabelled)
    if not trials.labels:
        raise UsageError(
            "no run has labels", hint="write labels.toml beside its run.json: healthy = true, or [[fault]]"
        )
    return trials


def _write_policies(options: BacktestOptions, trials: PolicyTrials) -> None:
    from esper_analyze.csv_text import records_csv
    from esper_analyze.replay.policy_scores import POLICY_COLUMNS
    from esper_analyze.strict_json import strict_json

    cells = [score.cells() for score in trials.scores()]
    if options.resolved is Form.JSON:
        options.write(strict_json({"policies": cells}))
    elif options.resolved is Form.CSV:
        options.write(records_csv(POLICY_COLUMNS, cells, safe=options.safe))
    else:
        options.write(lambda: print_policies(trials))


def _write(options: BacktestOptions, result: Backtest, scored: Sequence[Score]) -> None:
    from esper_analyze.csv_text import records_csv
    from esper_analyze.replay.scores import SCORE_COLUMNS
    from esper_analyze.strict_json import strict_json

    if options.resolved is Form.JSON:
        options.write(strict_json(backtest_facts(result, scored)))
    elif options.resolved is Form.CSV:
        options.write(records_csv(SCORE_COLUMNS, map(asdict, scored), safe=options.safe))
    else:
        options.write(lambda: print_words(result, scored))


def _run_folders(run_paths: Sequence[Path]) -> list[Path]:
    """Return the runs at or below each path, each once. Raises ``UsageError`` for a path without runs."""
    from esper_analyze.storage.run_info import find_runs

    by_folder: dict[Path, Path] = {}
    for path in run_paths:
        if not path.is_dir():
            raise UsageError(f"{path} is not a directory", hint="give runs, or directories with runs below them")
        below = find_runs(path)
        if not below:
            raise UsageError(f"no recorded run at or below {path}", hint="`esper-analyze ls DIR` lists runs")
        for run in below:
            by_folder.setdefault(run.resolve(), run)
    return list(by_folder.values())


def _check_figure(figure: Path | None) -> None:
    if figure is None:
        return
    if figure.suffix.lower() != ".png" or not figure.absolute().parent.is_dir():
        raise UsageError(f"--figure: {figure} is not a file name ending in .png in a directory that exists")
    refuse_file(figure)


def _write_figure(figure: Path | None, scored: Sequence[Score]) -> None:
    if figure is None:
        return
    from esper_analyze.reports.tradeoff import tradeoff_png
    from esper_analyze.storage.atomic import write_whole

    picture = tradeoff_png(scored)
    with writing(figure, hint="choose another --figure"):
        write_whole(figure, picture)
