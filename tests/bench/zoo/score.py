"""What the detector says of one run of the zoo, against what is known about it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from esper_analyze.detector.findings import Finding
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.detector.verdict import BY_WORD, Verdict
from esper_analyze.replay.replay import Replay, replay
from esper_analyze.runs.run import RecordedRun, open_run
from tests.bench.zoo.label import ZooFault, read_label


@dataclass(frozen=True)
class ScoredIncident:
    """One incident; ``under`` is the rule of the incident it is shown under."""

    rule: str
    subject: str
    metric: str
    start: int
    end: int
    verdict: str
    peak: float
    under: str | None


@dataclass(frozen=True)
class Hit:
    """Whether one fault was found: by which rule first, at which update, and how many updates after its onset."""

    fault: ZooFault
    rule: str | None = None
    update: int | None = None

    @property
    def delay(self) -> int | None:
        """Updates from the onset to the finding, None when there is none."""
        return None if self.update is None else self.update - self.fault.onset

    @property
    def late(self) -> bool:
        """Whether a hard fault was not found in the very update."""
        return self.fault.hard and self.delay != 0


@dataclass(frozen=True)
class RunScore:
    """One run: its alarms, and its faults found or not. A healthy run has no faults.

    ``learnt``: mean return of the first and of the last tenth of its episodes.
    """

    family: str
    seed: int
    updates: int
    learnt: tuple[float, float]
    alarms: tuple[ScoredIncident, ...]
    hits: tuple[Hit, ...]

    @property
    def sound_updates(self) -> int:
        """Updates before the first fault, all of them in a healthy run."""
        return min((hit.fault.onset for hit in self.hits), default=self.updates)

    @property
    def false_alarms(self) -> tuple[ScoredIncident, ...]:
        """Alarms that began before the first fault."""
        return tuple(alarm for alarm in self.alarms if alarm.start < self.sound_updates)


def score(run_dir: Path) -> RunScore:
    """Replay the run through the detector as it is now, whatever thresholds were stored, and compare."""
    family, _, seed = run_dir.name.rpartition("-")
    run = open_run(run_dir)
    found = replay(run, Thresholds.defaults(RULES))
    hits = tuple(hit(fault, found.findings) for fault in read_label(run_dir))
    return RunScore(family, int(seed), found.updates, _learnt(run), _alarms(found), hits)


def _learnt(run: RecordedRun) -> tuple[float, float]:
    returns = run.frame("episodes", ["episode_return"])["episode_return"].to_numpy()
    tenth = max(len(returns) // 10, 1)
    return (float(returns[:tenth].mean()), float(returns[-tenth:].mean())) if len(returns) else (math.nan, math.nan)


def _alarms(found: Replay) -> tuple[ScoredIncident, ...]:
    causes = [None if one.cause is None else found.incidents[one.cause].rule for one in found.incidents]
    return tuple(
        ScoredIncident(one.rule, one.subject, one.metric, one.start, one.end, one.peak_verdict, one.peak, cause)
        for one, cause in zip(found.incidents, causes, strict=True)
    )


def hit(fault: ZooFault, findings: list[Finding]) -> Hit:
    """Return the first finding of a rule that counts, from the onset on, that made things worse."""
    for finding in sorted(findings, key=lambda one: one.update):
        if finding.update >= fault.onset and finding.rule in fault.rules and _worse(finding):
            return Hit(fault, finding.rule, finding.update)
    return Hit(fault)


def _worse(finding: Finding) -> bool:
    before = Verdict.OK if finding.previous is None else BY_WORD[finding.previous]
    return BY_WORD[finding.verdict] >= Verdict.WARNING and BY_WORD[finding.verdict] > before
