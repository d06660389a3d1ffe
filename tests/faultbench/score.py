"""What detectors say of the trainings, against what was done to them and how they went."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from esper_analyze.detector.rules import RULES
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.replay.labels import LabelledFault, Labels
from esper_analyze.replay.recall import TITLES, AlarmSpan, JudgedFault, LabelledAlarms, recall
from esper_analyze.replay.replay import replay
from esper_analyze.runs.run import RecordedRun, open_run
from esper_analyze.strict_json import plain
from esper_analyze.terminal import counted
from tests.faultbench.alarms import VERDICTS
from tests.faultbench.faults import FAULTS
from tests.faultbench.held_faults import HELD_FAULTS
from tests.faultbench.outcome import FILE, Made, mean, read
from tests.faultbench.peers import PEERS, alarms_of
from tests.faultbench.recording import recording
from tests.faultbench.tasks import TASKS

OURS = "ours"
LENGTHS = (120, 240)
"""Updates up to which a training is short, and medium."""

Answers = dict[str, tuple[AlarmSpan, ...] | None]
"""Alarms on one training by detector; None where a detector is not installed."""


@dataclass(frozen=True)
class Judged:
    """One training and the alarms of one detector, in time. ``twin``: the same training without the change."""

    made: Made
    alarms: tuple[AlarmSpan, ...]
    twin: Judged | None = None
    detector: str = OURS

    @property
    def kind(self) -> str:
        """Return the fault or change that was put in, empty without."""
        return self.made.setup.kind

    @property
    def is_fault(self) -> bool:
        """Return whether a fault was put in."""
        return self.kind in FAULTS

    @property
    def is_sound(self) -> bool:
        """Return whether nothing was put in and the training went well."""
        return not self.kind and self.made.sound

    @property
    def is_hard_negative(self) -> bool:
        """Return whether a change was put in that did no harm to a sound training."""
        return bool(self.kind) and not self.is_fault and self.made.sound and not self.harmed

    @cached_property
    def harmed(self) -> bool:
        """Return whether the change did harm."""
        assert self.twin is not None
        return self.made.did_harm(self.twin.made)

    @cached_property
    def harm(self) -> float:
        """Return the share of the way to good returns that was lost from the onset on; 1 where nothing was left."""
        assert self.twin is not None
        onset = self.made.setup.onset
        lost = mean(self.twin.made.share[onset:]) - mean(self.made.share[onset:])
        if (self.made.broken and not self.twin.made.broken) or math.isnan(lost):
            return 1.0
        return min(max(lost, 0.0), 1.0)

    @cached_property
    def labels(self) -> Labels:
        """Return what ``backtest`` is told of the training, but for the path of its twin."""
        groups = {name: of(self) for name, of in GROUPINGS.items()}
        if self.is_fault:
            return Labels((self._change,), groups=groups)
        return Labels(healthy=self.is_sound or self.is_hard_negative, change=self.kind, groups=groups)

    @property
    def _change(self) -> LabelledFault:
        """Return what was put in, a harmless change as well; the rules that name it by their names in the detector."""
        fault, harm = FAULTS.get(self.kind), None if self.twin is None else self.harm
        rules = () if fault is None else fault.rules
        if self.detector != OURS:
            meanings = PEERS[self.detector].means.items()
            rules = tuple(name for name, meant in meanings if not {*meant}.isdisjoint(rules))
        return LabelledFault(self.kind, self.made.setup.onset, rules, hard=fault is not None and fault.hard, harm=harm)

    @cached_property
    def labelled(self) -> LabelledAlarms:
        """Return the alarms with the labels, as ``recall`` takes them."""
        twin = None if self.twin is None else self.twin.labelled
        return LabelledAlarms(self.made.setup.name, self.labels, self.made.setup.updates, self.alarms, twin)

    @cached_property
    def after_change(self) -> JudgedFault:
        """Return the alarms beside what was put in."""
        return JudgedFault(self.labelled, self._change)


def judge(out: Path, split: str, processes: int = 1) -> list[Judged]:
    """Replay every whole training of a split through the detector as it is now."""
    return judge_with((OURS,), out, split, processes)[OURS]


def judge_with(detectors: Sequence[str], out: Path, split: str, processes: int = 1) -> dict[str, list[Judged]]:
    """Return every whole training of a split as each detector sees it; a detector that is not installed is left out."""
    folders = sorted(file.parent for file in out.glob(f"{split}-*/{FILE}"))
    trainings = [read(folder) for folder in folders]
    answers = _each(partial(answer, tuple(detectors)), folders, processes)
    judged = {}
    for detector in detectors:
        alarms = [by_detector[detector] for by_detector in answers]
        known = [cells for cells in alarms if cells is not None]
        if len(known) == len(alarms):
            single = [Judged(made, cells, None, detector) for made, cells in zip(trainings, known, strict=True)]
            judged[detector] = with_twins(single)
    return judged


def _each(function: Callable[[Path], Answers], folders: Sequence[Path], processes: int) -> list[Answers]:
    with counted("judging", len(folders)) as step:
        answers = []
        if processes == 1:
            for folder in folders:
                answers.append(function(folder))
                step()
            return answers
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            for by_detector in pool.map(function, folders):
                answers.append(by_detector)
                step()
    return answers


def answer(detectors: Sequence[str], folder: Path) -> Answers:
    """Return the alarms of each detector on one training; this project's are never taken from a cache."""
    run = open_run(folder)
    scalars = recording(run)
    peers: Answers = {name: alarms_of(PEERS[name], name, folder, scalars) for name in detectors if name in PEERS}
    return peers | {name: _ours(run) for name in detectors if name == OURS}


def _ours(run: RecordedRun) -> tuple[AlarmSpan, ...]:
    incidents = replay(run, Thresholds.defaults(RULES)).incidents
    alarms = [
        AlarmSpan(each.rule, each.start, each.end, each.peak_verdict, each.cause is None)
        for each in incidents
        if each.peak_verdict in VERDICTS
    ]
    return tuple(sorted(alarms, key=lambda alarm: alarm.start))


def with_twins(judged: Iterable[Judged]) -> list[Judged]:
    """Return the trainings by number, the sound one first, the others with it as their twin; none without a twin."""
    numbers: dict[int, dict[str, Judged]] = defaultdict(dict)
    for training in judged:
        numbers[training.made.setup.number][training.kind] = training
    paired = []
    for _, kinds in sorted(numbers.items()):
        twin = kinds.pop("", None)
        if twin is not None:
            paired += [twin, *(replace(kinds[kind], twin=twin) for kind in sorted(kinds))]
    return paired


def summary(judged: Sequence[Judged]) -> dict[str, Any]:
    """Return the figures of one detector by their names, as JSON can hold them."""
    figures = recall([training.labelled for training in judged])
    return {TITLES[name]: plain(figure) for name, figure in figures.items()}


FALSE_ALARMS = (
    "sound updates",
    "false incidents",
    "false incidents per 1,000 sound updates",
    "false incidents per 1,000 sound updates, with consequences",
    "false incidents per 1,000 sound updates, each rule once a training",
    "sound trainings with an alarm",
    "sound trainings with a critical",
)
"""The figures of a group beside its recall."""


def breakdown(judged: Sequence[Judged]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the recall net of the twin and the false incidents by each of ``GROUPINGS``."""
    return {name: _groups(judged, of) for name, of in GROUPINGS.items()}


def _groups(judged: Sequence[Judged], group: Callable[[Judged], str]) -> dict[str, dict[str, Any]]:
    members: dict[str, list[Judged]] = defaultdict(list)
    for training in judged:
        members[group(training)].append(training)
    figures = {name: summary(trainings) for name, trainings in sorted(members.items())}
    return {
        name: {"recall": of["recall, net of the twin"], **{title: of[title] for title in FALSE_ALARMS}}
        for name, of in figures.items()
    }


def _length(training: Judged) -> str:
    updates, (short, medium) = training.made.setup.updates, LENGTHS
    if updates <= short:
        return f"{short} updates or fewer"
    return f"{short + 1}–{medium} updates" if updates <= medium else f"{medium + 1} updates or more"


def _novelty(training: Judged) -> str:
    if not training.is_fault:
        return "no fault"
    return "new kinds" if training.kind in HELD_FAULTS else "known kinds"


GROUPINGS: Mapping[str, Callable[[Judged], str]] = {
    "family": lambda training: TASKS[training.made.setup.task].family,
    "task": lambda training: training.made.setup.task,
    "algorithm": lambda training: training.made.setup.algorithm,
    "memory": lambda training: training.made.setup.recurrent or "none",
    "length": _length,
    "kind": _novelty,
}
