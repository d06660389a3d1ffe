"""What stopping policies would have done on labelled runs: updates saved after faults, sound trainings stopped."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from esper_analyze.detector.detector import Detector
from esper_analyze.detector.findings import Finding
from esper_analyze.detector.rule import Rule
from esper_analyze.detector.stop_policy import StopPolicy
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.replay.batches import read_batches
from esper_analyze.replay.labels import Labels, read_labels, read_labels_of_many
from esper_analyze.replay.replay import between, fresh_starts, merged_run
from esper_analyze.runs.run import RecordedRun, open_run

POLICY_COLUMNS = (
    *("policy", "faulty_runs", "stopped", "too_early", "updates_after_fault", "updates_saved", "share_saved"),
    *("median_delay", "sound_runs", "sound_stopped"),
)


@dataclass(frozen=True, slots=True)
class PolicyScore:
    """What one policy would have done.

    ``stopped``: faulty runs stopped at or after the onset of their first fault, of ``faulty_runs``; ``too_early``:
    before it. ``updates_saved``: updates that were recorded after these stops, of ``updates_after_fault`` from the
    onsets on. ``median_delay``: updates from onset to stop, None if nothing was stopped. ``sound_stopped``: runs
    without a fault that went well and would have been stopped, of ``sound_runs``.
    """

    policy: str
    faulty_runs: int
    stopped: int
    too_early: int
    updates_after_fault: int
    updates_saved: int
    median_delay: float | None
    sound_runs: int
    sound_stopped: int

    @property
    def share_saved(self) -> float | None:
        """``updates_saved`` as a share of ``updates_after_fault``; None without any."""
        return self.updates_saved / self.updates_after_fault if self.updates_after_fault else None

    def cells(self) -> dict[str, object]:
        """Return the score as ``POLICY_COLUMNS``."""
        return {name: getattr(self, name) for name in POLICY_COLUMNS}


@dataclass(slots=True)
class PolicyTrials:
    """The update after which each policy would have stopped each labelled run (None: never), run by run."""

    policies: Sequence[str]
    labels: list[Labels] = field(default_factory=list)
    last_updates: list[int] = field(default_factory=list)
    stops: list[list[int | None]] = field(default_factory=list)
    unlabelled: list[Path] = field(default_factory=list)

    def scores(self) -> list[PolicyScore]:
        """Return the score of each policy."""
        return [self._score(index) for index in range(len(self.policies))]

    def _score(self, index: int) -> PolicyScore:
        stops = [stops[index] for stops in self.stops]
        runs = list(zip(self.labels, self.last_updates, stops, strict=True))
        faulty = [(onset, last, stop) for labels, last, stop in runs if (onset := labels.first_onset) is not None]
        caught = [(onset, last, stop) for onset, last, stop in faulty if stop is not None and stop >= onset]
        sound = [stop for labels, _, stop in runs if labels.first_onset is None and labels.healthy]
        return PolicyScore(
            self.policies[index],
            faulty_runs=len(faulty),
            stopped=len(caught),
            too_early=sum(stop is not None and stop < onset for onset, _, stop in faulty),
            updates_after_fault=sum(last - onset + 1 for onset, last, _ in faulty),
            updates_saved=sum(last - stop for _, last, stop in caught),
            median_delay=statistics.median(stop - onset for onset, _, stop in caught) if caught else None,
            sound_runs=len(sound),
            sound_stopped=sum(stop is not None for stop in sound),
        )


def try_policies(
    paths: Sequence[Path],
    policies: Sequence[str],
    rules: Sequence[Rule],
    base: Callable[[RecordedRun], Thresholds],
    *,
    labels_file: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> PolicyTrials:
    """Replay the labelled runs in ``paths``, each once for all policies; ``base`` returns a run's thresholds.

    Raises ``UsageError`` for a policy, ``LabelsError`` for labels.
    """
    names = [rule.name for rule in rules]
    trials = PolicyTrials([str(StopPolicy.parsed(policy, names)) for policy in policies])
    by_run = None if labels_file is None else read_labels_of_many(labels_file, names)
    for number, path in enumerate(paths, 1):
        labels = read_labels(path, names) if by_run is None else by_run.get(path.resolve())
        if labels is None:
            trials.unlabelled.append(path)
        else:
            run = open_run(path)
            trials.labels.append(labels)
            trials.last_updates.append(-1 if run.last_update is None else run.last_update)
            trials.stops.append(stops_of(run, [StopPolicy.parsed(each, names) for each in policies], rules, base(run)))
        if progress is not None:
            progress(number)
    return trials


def stops_of(
    run: RecordedRun, policies: Sequence[StopPolicy], rules: Sequence[Rule], thresholds: Thresholds
) -> list[int | None]:
    """Return the update after which each policy stops ``run``; None where it does not."""
    run, detector = merged_run(run), Detector(thresholds, rules=rules)
    fresh = fresh_starts(run)
    for batch in between(read_batches(run, detector.wanted), fresh):
        if len(batch.update) and int(batch.update[0]) in fresh:
            detector = Detector(thresholds, rules=rules)
        findings: dict[int, list[Finding]] = {}
        for finding in detector.process(batch).findings:
            findings.setdefault(finding.update, []).append(finding)
        for update in batch.update.tolist():
            for policy in policies:
                policy.take(update, findings.get(update, ()))
        if all(policy.decision is not None for policy in policies):
            break
    return [None if policy.decision is None else policy.decision.update for policy in policies]
