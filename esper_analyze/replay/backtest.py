"""Measure how well rules detect labelled faults and how often they alarm on healthy updates, for many settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa

from esper_analyze.detector.custom import CustomRulesError
from esper_analyze.detector.detector import Detector
from esper_analyze.detector.findings import Finding
from esper_analyze.detector.incidents import Incident, IncidentTracker, joined_incidents
from esper_analyze.detector.rule import Rule
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.detector.verdict import BY_WORD, Verdict
from esper_analyze.errors import EsperError
from esper_analyze.replay.batches import read_batches
from esper_analyze.replay.labels import LabelledFault, Labels, LabelsError, read_labels, read_labels_of_many
from esper_analyze.replay.recall import AlarmSpan, LabelledAlarms
from esper_analyze.replay.replay import between, fresh_starts, merged_run
from esper_analyze.replay.sweep import Sweep, Variant
from esper_analyze.runs.run import RecordedRun, open_run
from esper_analyze.storage.layout import LABELS_FILE

STEPS = 1_000
"""Progress steps per run."""


@dataclass(slots=True)
class Tested:
    """Results for one labelled run: false alarms on healthy updates and detections, per variant of a rule.

    ``found`` maps (variant, index of the fault) to the update in which the variant found it, ``alarms`` has the
    alarms of all rules for each setting.
    """

    path: Path
    labels: Labels
    updates: int = 0
    healthy_updates: int = 0
    false_alarms: Counter[Variant] = field(default_factory=Counter)
    found: dict[tuple[Variant, int], int] = field(default_factory=dict)
    alarms: list[tuple[AlarmSpan, ...]] = field(default_factory=list)

    def take(self, variant: Variant, finding: Finding) -> None:
        """Count one finding of a rule: a false alarm, a detection, or neither."""
        if self.labels.healthy_at(finding.update) and _begins(finding):
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
    """Results for all labelled runs; ``unlabelled`` runs were skipped, ``broken`` ones (with reason) failed.

    ``labels_file`` is the file with the labels of all runs, None where each has its own.
    """

    rules: tuple[str, ...]
    sweep: Sweep
    tested: list[Tested] = field(default_factory=list)
    unlabelled: list[Path] = field(default_factory=list)
    broken: list[tuple[Path, str]] = field(default_factory=list)
    labels_file: Path | None = None


def backtest(
    paths: Sequence[Path],
    rules: Sequence[Rule],
    sweep: Sweep,
    base: Callable[[RecordedRun], Thresholds],
    *,
    labels_file: Path | None = None,
    skip_broken: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Backtest:
    """Judge the runs in ``paths``, each read once for all settings of ``sweep``.

    ``base`` returns a run's thresholds that are not swept. Labels are those of each run's own file, or of
    ``labels_file`` alone. A run that cannot be judged, or whose twin was not, is listed with the reason; the others are
    judged all the same. ``progress`` is called with the number of thousandths of runs done.

    Raises ``LabelsError`` for ``labels_file``.
    """
    result = Backtest(tuple(rule.name for rule in rules), sweep, labels_file=labels_file)
    by_run = None if labels_file is None else read_labels_of_many(labels_file, result.rules)
    for index, path in enumerate(paths):
        advance = _Progress(progress, index * STEPS)
        try:
            labels = read_labels(path, result.rules) if by_run is None else by_run.get(path.resolve())
            if labels is None:
                result.unlabelled.append(path)
                continue
            run = open_run(path, skip_broken=skip_broken)
            _check_onsets(run, labels, labels_file or path / LABELS_FILE)
            result.tested.append(_test_run(run, labels, rules, sweep, base(run), advance))
        except CustomRulesError:
            raise
        except EsperError as error:
            result.broken.append((path, error.message))
        except (OSError, ValueError, pa.ArrowException) as error:
            result.broken.append((path, f"{path} cannot be read: {type(error).__name__}: {error}"))
        finally:
            advance.done()
    _leave_out_without_twin(result)
    return result


def _leave_out_without_twin(result: Backtest) -> None:
    """Move runs whose twin was not judged to the broken ones: net of nothing they would score too well."""
    while True:
        judged = {run.path.resolve() for run in result.tested}
        alone = {run.path: run.labels.twin for run in result.tested if run.labels.twin not in {None, *judged}}
        if not alone:
            return
        result.tested = [run for run in result.tested if run.path not in alone]
        result.broken += [(path, f"{path}: its twin {twin} was not judged") for path, twin in alone.items()]


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
    run: RecordedRun,
    labels: Labels,
    rules: Sequence[Rule],
    sweep: Sweep,
    thresholds: Thresholds,
    advance: _Progress,
) -> Tested:
    result, run = Tested(run.path, labels), merged_run(run)
    judges = list(_detectors(rules, sweep, thresholds))
    trackers = [IncidentTracker(detector.thresholds) for _, detector in judges]
    fresh = fresh_starts(run)
    for batch in between(read_batches(run, Detector(thresholds, rules=rules).wanted), fresh):
        if len(batch.update) and int(batch.update[0]) in fresh:
            judges = list(_detectors(rules, sweep, thresholds))
        result.updates += len(batch.update)
        result.healthy_updates += sum(map(labels.healthy_at, batch.update.tolist()))
        for (variants, detector), tracker in zip(judges, trackers, strict=True):
            outcome = detector.process(batch)
            tracker.take(outcome)
            for finding in outcome.findings:
                result.take(variants[finding.rule], finding)
        advance.at(int(batch.update[-1]), run.last_update)
    result.alarms = [*_alarms([variants for variants, _ in judges], trackers, rules, sweep)]
    return result


def _alarms(
    variants: Sequence[Mapping[str, Variant]],
    trackers: Sequence[IncidentTracker],
    rules: Sequence[Rule],
    sweep: Sweep,
) -> Iterator[tuple[AlarmSpan, ...]]:
    """Yield the alarms of all rules for each setting: those of rules that are not swept, and of its variants."""
    order = {rule.name: index for index, rule in enumerate(rules)}
    fixed, *swept = zip(variants, trackers, strict=True)
    tracker_of = {variant: tracker for of_rule, tracker in swept for variant in of_rule.values()}
    for setting in sweep.settings:
        used = [fixed[1], *(tracker_of[variant] for variant in setting)]
        yield alarm_spans(joined_incidents(used, order))


def alarm_spans(incidents: Iterable[Incident]) -> tuple[AlarmSpan, ...]:
    """Return the incidents that became a warning or critical, by start."""
    spans = [
        AlarmSpan(each.rule, each.start, each.end, each.peak_verdict, each.cause is None)
        for each in incidents
        if BY_WORD[each.peak_verdict] >= Verdict.WARNING
    ]
    return tuple(sorted(spans, key=lambda span: span.start))


def _check_onsets(run: RecordedRun, labels: Labels, file: Path) -> None:
    last = -1 if run.last_update is None else run.last_update
    for fault in labels.faults:
        if fault.onset > last:
            ends = f"ends at update {last}" if last >= 0 else "has no update"
            raise LabelsError(f"{file}: fault {fault.name!r} begins at update {fault.onset}, the run {ends}")


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


def labelled_alarms(result: Backtest, setting: int) -> list[LabelledAlarms]:
    """Return the runs with their alarms under one setting, each with its twin."""
    by_path = {
        run.path.resolve(): LabelledAlarms(str(run.path), run.labels, run.updates, run.alarms[setting])
        for run in result.tested
    }
    twins = {path: by_path[each.labels.twin] for path, each in by_path.items() if each.labels.twin is not None}
    return [replace(each, twin=twins.get(path)) for path, each in by_path.items()]
