"""Measure how well rules detect labelled faults and how often they alarm on healthy updates, for many settings."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa

from esper_analyze.detector.custom import CustomRulesError
from esper_analyze.detector.detector import Detector
from esper_analyze.detector.findings import Finding
from esper_analyze.detector.rule import Rule
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.detector.verdict import BY_WORD, Verdict
from esper_analyze.errors import EsperError
from esper_analyze.replay.batches import read_batches
from esper_analyze.replay.labels import LabelledFault, Labels, LabelsError, read_labels
from esper_analyze.replay.sweep import Sweep, Variant
from esper_analyze.runs.run import RecordedRun, open_run
from esper_analyze.storage.layout import LABELS_FILE

STEPS = 1_000
"""Progress steps per run."""


@dataclass(slots=True)
class Tested:
    """Results for one labelled run: false alarms on healthy updates and detections, per variant of a rule.

    ``found`` maps (variant, index of the fault) to the update in which the variant found it.
    """

    path: Path
    labels: Labels
    updates: int = 0
    healthy_updates: int = 0
    false_alarms: Counter[Variant] = field(default_factory=Counter)
    found: dict[tuple[Variant, int], int] = field(default_factory=dict)

    def take(self, variant: Variant, finding: Finding) -> None:
        """Count one finding of a rule: a false alarm, a detection, or neither."""
        onset = self.labels.first_onset
        if (onset is None or finding.update < onset) and _begins(finding):
            self.false_alarms[variant] += 1
        for index, fault in enumerate(self.labels.faults):
            if finding.alarm and finding.rule in fault.rules and fault.covers(finding.update):
                self.found.setdefault((variant, index), finding.update)


def _begins(finding: Finding) -> bool:
    """Return whether an incident begins with ``finding``: alarm now, and no alarm before."""
    before = Verdict.ABSENT if finding.previous is None else BY_WORD[finding.previous]
    return BY_WORD[finding.verdict] >= Verdict.WARNING > before


@dataclass(slots=True)
class Backtest:
    """Results for all labelled runs; ``unlabelled`` runs were skipped, ``broken`` ones (with reason) failed."""

    rules: tuple[str, ...]
    sweep: Sweep
    tested: list[Tested] = field(default_factory=list)
    unlabelled: list[Path] = field(default_factory=list)
    broken: list[tuple[Path, str]] = field(default_factory=list)


def backtest(
    paths: Sequence[Path],
    rules: Sequence[Rule],
    sweep: Sweep,
    base: Callable[[RecordedRun], Thresholds],
    *,
    skip_broken: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Backtest:
    """Judge the runs in ``paths``, each read once for all settings of ``sweep``.

    ``base`` returns a run's thresholds that are not swept. A run that cannot be judged is listed with the reason; the
    others are judged all the same. ``progress`` is called with the number of thousandths of runs done.
    """
    result = Backtest(tuple(rule.name for rule in rules), sweep)
    for index, path in enumerate(paths):
        advance = _Progress(progress, index * STEPS)
        try:
            if not os.path.lexists(path / LABELS_FILE):
                result.unlabelled.append(path)
                continue
            run = open_run(path, skip_broken=skip_broken)
            result.tested.append(_test_run(run, rules, sweep, base(run), advance))
        except CustomRulesError:
            raise
        except EsperError as error:
            result.broken.append((path, error.message))
        except (OSError, ValueError, pa.ArrowException) as error:
            result.broken.append((path, f"{path} cannot be read: {type(error).__name__}: {error}"))
        finally:
            advance.done()
    return result


@dataclass(frozen=True, slots=True)
class _Progress:
    progress: Callable[[int], None] | None
    start: int

    def at(self, update: int, last: int | None) -> None:
        if self.progress is not None:
            self.progress(self.start + STEPS * (update + 1) // ((last or update) + 1))

    def done(self) -> None:
        if self.progress is not None:
            self.progress(self.start + STEPS)


def _test_run(
    run: RecordedRun, rules: Sequence[Rule], sweep: Sweep, thresholds: Thresholds, advance: _Progress
) -> Tested:
    labels = read_labels(run.path, [rule.name for rule in rules])
    if labels is None:
        raise LabelsError(f"{run.path / LABELS_FILE} was removed during the backtest")
    result = Tested(run.path, labels)
    _check_onsets(run, labels)
    judges = list(_detectors(rules, sweep, thresholds))
    for batch in read_batches(run, Detector(thresholds, rules=rules).wanted):
        result.updates += len(batch.update)
        onset = labels.first_onset
        result.healthy_updates += len(batch.update) if onset is None else int((batch.update < onset).sum())
        for variants, detector in judges:
            for finding in detector.process(batch).findings:
                result.take(variants[finding.rule], finding)
        advance.at(int(batch.update[-1]), run.last_update)
    return result


def _check_onsets(run: RecordedRun, labels: Labels) -> None:
    last = -1 if run.last_update is None else run.last_update
    for fault in labels.faults:
        if fault.onset > last:
            ends = f"ends at update {last}" if last >= 0 else "has no update"
            raise LabelsError(
                f"{run.path / LABELS_FILE}: fault {fault.name!r} begins at update {fault.onset}, the run {ends}"
            )


def _detectors(
    rules: Sequence[Rule], sweep: Sweep, thresholds: Thresholds
) -> Iterator[tuple[Mapping[str, Variant], Detector]]:
    """Yield one detector for all rules that are not swept, and one for each variant of a swept rule.

    Rules are independent of each other, so a setting costs only the evaluation of its own rule.
    """
    fixed = [rule for rule in rules if rule.name not in sweep.variants]
    yield {rule.name: Variant(rule.name) for rule in fixed}, Detector(thresholds, rules=fixed)
    for rule in rules:
        for variant in sweep.variants.get(rule.name, ()):
            limits = MappingProxyType({rule.name: variant.limits(thresholds)})
            yield {rule.name: variant}, Detector(Thresholds(limits), rules=[rule])


def labelled_faults(result: Backtest) -> list[tuple[Tested, int, LabelledFault]]:
    """Return every labelled fault with its run and its index among the run's faults."""
    return [(run, index, fault) for run in result.tested for index, fault in enumerate(run.labels.faults)]
