"""How well rules find labelled faults, and how often they alarm where all was well, for many settings at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from esper_analyze.api.arguments import Changes, Paths, as_paths, changed, run_paths_in
from esper_analyze.api.frames import Schema, frame
from esper_analyze.detector.custom import load_rule_files, with_custom
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.errors import UsageError
from esper_analyze.replay.backtest import backtest as judge_labelled
from esper_analyze.replay.backtest import labelled_alarms
from esper_analyze.replay.recall import FalseAlarms, FaultKind, RecallFigure, RunGroup, Share, fault_kinds
from esper_analyze.replay.recall import false_alarms as false_alarms_of
from esper_analyze.replay.recall import recall as recall_of
from esper_analyze.replay.recall import run_groups as run_groups_of
from esper_analyze.replay.recorded_rules import stored_thresholds
from esper_analyze.replay.scores import Score, detections, scores, setting_labels
from esper_analyze.replay.sweep import parse_sweep
from esper_analyze.runs.fleet import run_paths
from esper_analyze.wording import many

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from esper_analyze.replay.backtest import Backtest
    from esper_analyze.replay.recall import LabelledAlarms
    from esper_analyze.runs.run import RecordedRun

SCORES: Schema = {
    "rule": pl.String,
    "setting": pl.String,
    "recall": pl.Float64,
    "found": pl.Int64,
    "faults": pl.Int64,
    "at_once": pl.Int64,
    "median_delay": pl.Float64,
    "longest_delay": pl.Int64,
    "false_alarms": pl.Int64,
    "healthy_updates": pl.Int64,
    "per_1000": pl.Float64,
}
DETECTIONS: Schema = {
    "run": pl.String,
    "fault": pl.String,
    "onset": pl.Int64,
    "hard": pl.Boolean,
    "setting": pl.String,
    "rule": pl.String,
    "update": pl.Int64,
    "delay": pl.Int64,
}
FIGURES: Schema = {
    "setting": pl.String,
    "figure": pl.String,
    "value": pl.Float64,
    "hits": pl.Int64,
    "of": pl.Int64,
    "low": pl.Float64,
    "high": pl.Float64,
}
FAULTS: Schema = {
    "setting": pl.String,
    "name": pl.String,
    "faults": pl.Int64,
    "harmful": pl.Int64,
    "found": pl.Int64,
    "named": pl.Int64,
    "found_first_by": pl.String,
    "missed": pl.String,
}
GROUPS: Schema = {
    "setting": pl.String,
    "group": pl.String,
    "value": pl.String,
    "found": pl.Int64,
    "faults": pl.Int64,
    "sound_updates": pl.Int64,
    "false_incidents": pl.Int64,
    "false_per_1000": pl.Float64,
}
FALSE_ALARMS: Schema = {
    "setting": pl.String,
    "rule": pl.String,
    "verdict": pl.String,
    "times": pl.Int64,
    "runs": pl.String,
}


class BacktestResult:
    """Labelled runs judged, from ``ea.backtest``; in a notebook it shows its scores."""

    def __init__(self, result: Backtest) -> None:
        self.result = result

    @property
    def unlabelled(self) -> list[Path]:
        """Runs that were left out because they have no labels."""
        return self.result.unlabelled

    @property
    def broken(self) -> list[tuple[Path, str]]:
        """Runs that could not be judged, each with the reason."""
        return self.result.broken

    @cached_property
    def _scores(self) -> list[Score]:
        return scores(self.result)

    @property
    def scores(self) -> pl.DataFrame:
        """One row per rule and setting, then all rules together.

        ``recall`` is the share of labelled faults that were found, ``median_delay`` is in updates after the onset,
        ``per_1000`` counts false alarms per 1,000 healthy updates. Null: there is nothing to take it of.
        """
        return frame(([asdict(score)[name] for name in SCORES] for score in self._scores), SCORES)

    @property
    def detections(self) -> pl.DataFrame:
        """One row per setting and labelled fault: by which rule and when it was found, null when it was not."""
        rows = ([asdict(detection)[name] for name in DETECTIONS] for detection in detections(self.result))
        return frame(rows, DETECTIONS)

    @cached_property
    def _by_setting(self) -> list[tuple[str, list[LabelledAlarms]]]:
        return [(label, labelled_alarms(self.result, i)) for i, label in enumerate(setting_labels(self.result))]

    @property
    def figures(self) -> pl.DataFrame:
        """One row per setting and figure of all rules together, as the fault bench reports them.

        A share has ``hits`` of so many and a 95 % interval ``low`` to ``high``; ``value`` is the share, or the number.
        """
        rows = [
            (label, name, *_figure_cells(figure))
            for label, runs in self._by_setting
            for name, figure in recall_of(runs).items()
        ]
        return frame(rows, FIGURES)

    @property
    def faults(self) -> pl.DataFrame:
        """One row per setting and name of a fault: how many were found and named, and by which rules first."""
        rows = [(label, *_fault_cells(kind)) for label, runs in self._by_setting for kind in fault_kinds(runs)]
        return frame(rows, FAULTS)

    @property
    def groups(self) -> pl.DataFrame:
        """One row per setting and group of the labels: faults found net of twins, and false alarms of sound runs."""
        rows = [(label, *_group_cells(group)) for label, runs in self._by_setting for group in run_groups_of(runs)]
        return frame(rows, GROUPS)

    @property
    def false_alarms(self) -> pl.DataFrame:
        """One row per setting, rule and verdict that alarmed sound runs, shown under no other alarm."""
        rows = [(label, *_false_cells(alarm)) for label, runs in self._by_setting for alarm in false_alarms_of(runs)]
        return frame(rows, FALSE_ALARMS)

    def plot(self) -> Figure:
        """Return recall and delay against false alarms, a point for each setting."""
        from esper_analyze.reports.tradeoff import tradeoff

        return tradeoff(self._scores)

    def __repr__(self) -> str:
        left = len(self.broken) + len(self.unlabelled)
        faults = sum(len(run.labels.faults) for run in self.result.tested)
        judged = f"{many(len(self.result.tested), 'labelled run')}, {many(faults, 'fault')}"
        return f"<BacktestResult of {judged}{f', {left} left out' if left else ''}>"

    def _repr_html_(self) -> str:
        return self.scores._repr_html_()


def backtest(
    paths: Paths,
    *,
    sweep: Mapping[str, Sequence[float]] | None = None,
    thresholds: Thresholds | None = None,
    changes: Changes | None = None,
    rules: Paths = (),
    labels: str | Path | None = None,
    skip_broken: bool = False,
) -> BacktestResult:
    """Judge the labelled runs among ``paths``: how many faults each rule finds, how late, and its false alarms.

    ``sweep`` names thresholds with the values to try, ``{"kl_spike.critical": [0.2, 0.5]}``; of several every
    combination is tried. What is not swept is as each run was recorded, or ``thresholds``, with ``changes``
    ``{"kl_spike": {"warning": 0.05}}`` applied. ``rules`` are Python files with rules of your own; they are executed.

    ``labels`` is a TOML or JSON file with a table for each run; without it each run has its labels.toml.

    Raises ``EsperError`` when no run has labels (labels.toml beside run.json), or a threshold does not exist.
    """
    run_dirs = run_paths(run_paths_in(paths))
    chosen_rules = with_custom(load_rule_files(as_paths(rules)))
    combinations = parse_sweep([_swept(name, values) for name, values in (sweep or {}).items()], chosen_rules)
    defaults = Thresholds.defaults(chosen_rules)
    changed(defaults if thresholds is None else thresholds, changes or {})  # refused before long work

    def base(run: RecordedRun) -> Thresholds:
        start = stored_thresholds(run, chosen_rules) if thresholds is None else thresholds.completed(chosen_rules)
        return start.merged(changes or {})

    labels_file = None if labels is None else Path(labels)
    judged = judge_labelled(
        run_dirs, chosen_rules, combinations, base, labels_file=labels_file, skip_broken=skip_broken
    )
    result = BacktestResult(judged)
    if not result.result.tested and not result.broken:
        raise UsageError(
            "no run has labels", hint="write labels.toml beside its run.json: healthy = true, or [[fault]] tables"
        )
    return result


def _figure_cells(figure: RecallFigure) -> tuple[object, ...]:
    if isinstance(figure, Share):
        value = figure.hits / figure.of if figure.of else None
        return value, figure.hits, figure.of, figure.low, figure.high
    return (None if figure is None else float(figure), None, None, None, None)


def _fault_cells(kind: FaultKind) -> tuple[object, ...]:
    return (
        kind.name,
        kind.faults,
        kind.harmful,
        kind.found,
        kind.named,
        ", ".join(kind.found_first_by),
        ", ".join(kind.missed),
    )


def _group_cells(group: RunGroup) -> tuple[object, ...]:
    share = group.recall_net
    false = group.sound_updates, group.false_incidents, group.false_per_1000
    return group.group, group.value, share.hits, share.of, *false


def _false_cells(alarm: FalseAlarms) -> tuple[object, ...]:
    return alarm.rule, alarm.verdict, alarm.times, ", ".join(alarm.runs)


def _swept(name: str, values: object) -> str:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise UsageError(f"sweep[{name!r}] must be a list of values to try, not {values!r:.80}")
    return f"{name}={','.join(map(str, values))}"
