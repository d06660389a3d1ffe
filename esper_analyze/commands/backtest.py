"""``esper-analyze backtest``: recall and false alarms of rules on labelled runs, for many settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esper_analyze.commands.options import Json, SkipBroken, absolute, takes_options
from esper_analyze.commands.run_options import EVERY_THRESHOLD, DetectorOptions
from esper_analyze.errors import DAMAGED, UsageError
from esper_analyze.storage.output_path import refuse_file, writing
from esper_analyze.terminal import cleaned, escaped, progress, put, say, show_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esper_analyze.detector.thresholds import Thresholds
    from esper_analyze.replay.backtest import Backtest
    from esper_analyze.replay.scores import Detection, Score
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
        "--figure", "-o", metavar="FILE", help="Draw recall and delay against false alarms (PNG).", callback=absolute
    ),
]
Defaults = Annotated[
    bool,
    typer.Option("--defaults", help="Start from the default thresholds, not from those each run was recorded with."),
]
_TITLES = ("recall", "found", "false\nalarms", "per\n1,000", "delay")
_MOST_MISSED = 20


@takes_options(
    *("run_paths", "sweeps", "assignments", "thresholds", "defaults", "rules_files"),
    *("figure", "as_json", "skip_broken"),
)
def backtest(
    options: DetectorOptions,
    run_paths: LabelledRuns,
    sweeps: Sweeps = None,
    defaults: Defaults = False,
    figure: Figure = None,
    as_json: Json = False,
    skip_broken: SkipBroken = False,
) -> None:
    """Judge labelled RUNS and count, for each rule and setting: recall, false alarms, and delay in updates.

    A run's labels.toml says `healthy = true`, or has [[fault]] tables with name, onset and rules (and until, hard).
    A fault is found when a rule it lists begins to alarm at or after its onset; an incident that begins in a healthy
    run or before the first onset is a false alarm, counted per 1,000 healthy updates. Each run is read once for all
    settings.

    Example: esper-analyze backtest sample_runs/runs --sweep kl_spike.critical=0.2,0.5,1,2 -o tradeoff.png
    """
    from esper_analyze.detector.custom import with_custom
    from esper_analyze.detector.thresholds import ThresholdError, Thresholds
    from esper_analyze.replay.backtest import STEPS
    from esper_analyze.replay.backtest import backtest as run_backtest
    from esper_analyze.replay.recorded_rules import stored_thresholds
    from esper_analyze.replay.scores import detections, scores
    from esper_analyze.replay.sweep import parse_sweep

    rules = with_custom(options.custom)
    try:
        sweep = parse_sweep(sweeps or (), rules)
    except ThresholdError as error:
        raise UsageError(f"--sweep: {error}", hint=EVERY_THRESHOLD) from error
    _check_figure(figure)
    options.changed(Thresholds.defaults(rules))  # refused before long work

    def base(run: RecordedRun) -> Thresholds:
        rules = options.rules(run)
        return options.changed(Thresholds.defaults(rules) if defaults else stored_thresholds(run, rules))

    paths = _run_folders(run_paths)
    with progress("judging", len(paths) * STEPS) as step:
        result = run_backtest(paths, rules, sweep, base, skip_broken=skip_broken, progress=step)
    _tell_left_out(result)
    if result.tested:
        scored, when = scores(result), detections(result)
        (_print_json if as_json else _print_words)(result, scored, when)
        _write_figure(figure, scored)
    if result.broken:
        raise typer.Exit(DAMAGED)
    if not result.tested:
        raise UsageError(
            "no run has labels", hint="write labels.toml beside its run.json: healthy = true, or [[fault]]"
        )


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


def _tell_left_out(result: Backtest) -> None:
    for path, why in result.broken:
        say(f"left out, cannot be judged: {why if str(path) in why else f'{path}: {why}'}")
    for path in result.unlabelled:
        say(f"left out, no labels.toml: {path}")
    left = len(result.broken) + len(result.unlabelled)
    if left:
        say(f"{left} of {left + len(result.tested)} runs are left out")


def _print_json(result: Backtest, scored: Sequence[Score], when: Sequence[Detection]) -> None:
    from esper_analyze.strict_json import strict_json

    runs = [
        {
            "run": str(run.path),
            "healthy": not run.labels.faults,
            "faults": run.labels.faults,
            "updates": run.updates,
            "healthy_updates": run.healthy_updates,
        }
        for run in result.tested
    ]
    broken = [{"run": str(path), "reason": why} for path, why in result.broken]
    facts = {
        "runs": runs,
        "unlabelled": [str(path) for path in result.unlabelled],
        "broken": broken,
        "scores": scored,
        "detections": when,
    }
    put(strict_json(facts))


def _print_words(result: Backtest, scored: Sequence[Score], when: Sequence[Detection]) -> None:
    from esper_analyze.wording import many

    healthy = sum(not run.labels.faults for run in result.tested)
    faults = sum(len(run.labels.faults) for run in result.tested)
    updates = sum(run.healthy_updates for run in result.tested)
    put(
        f"{many(len(result.tested), 'labelled run')} ({healthy} healthy), {many(faults, 'fault')}, "
        f"{many(updates, 'healthy update')}\n"
    )
    swept = bool(scored and scored[0].values)
    for rule in dict.fromkeys(score.rule for score in scored) if swept else ():
        put(f"\n{rule}:\n")
        _show("setting", [score for score in scored if score.rule == rule])
    if not swept:
        _show("rule", scored)
    _print_missed(when)


def _show(first: str, scored: Sequence[Score]) -> None:
    show_table((first, *_TITLES), [_cells(score) for score in scored], right=_TITLES)


def _cells(score: Score) -> list[str]:
    """Return the cells of one row; the thresholds of a setting stand one below the other."""
    return [
        "\n".join(escaped(part) for part in score.setting.split(", ")) or escaped(score.rule),
        "–" if score.recall is None else f"{score.recall:.2f}",
        f"{score.found}/{score.faults}" if score.faults else "–",
        f"{score.false_alarms:,}",
        "–" if score.per_1000 is None else f"{score.per_1000:.3g}",
        "–" if score.median_delay is None else f"{score.median_delay:g}",
    ]


def _print_missed(when: Sequence[Detection]) -> None:
    """Name the faults that no setting finds, and hard ones that no setting finds at once."""
    best: dict[tuple[str, str], Detection] = {}
    for detection in when:
        earlier = best.get((detection.run, detection.fault))
        if earlier is None or (
            detection.delay is not None and (earlier.delay is None or detection.delay < earlier.delay)
        ):
            best[detection.run, detection.fault] = detection
    lines = []
    for detection in best.values():
        if detection.delay is None:
            lines.append(f"missed: {detection.run}, {detection.fault!r} from update {detection.onset}")
        elif detection.hard and detection.delay > 0:
            late = f"{detection.fault!r} is hard, from update {detection.onset}, found at {detection.update}"
            lines.append(f"late: {detection.run}, {late}")
    for line in lines[:_MOST_MISSED]:
        put(cleaned(line, longest=500) + "\n")
    if len(lines) > _MOST_MISSED:
        say(f"{len(lines) - _MOST_MISSED} more faults are missed or late: --json has all")
