"""What detectors say of the trainings, against what was done to them and how they went."""

from __future__ import annotations

import math
import statistics
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
from esper_analyze.replay.replay import replay
from esper_analyze.runs.run import RecordedRun, open_run
from esper_analyze.terminal import counted
from tests.faultbench.alarms import VERDICTS, Alarm
from tests.faultbench.faults import FAULTS
from tests.faultbench.held_faults import HELD_FAULTS
from tests.faultbench.outcome import FILE, Made, mean, read
from tests.faultbench.peers import PEERS, alarms_of
from tests.faultbench.recording import recording
from tests.faultbench.tasks import TASKS

OURS = "ours"
LENGTHS = (120, 240)
"""Updates up to which a training is short, and medium."""

Answers = dict[str, tuple[Alarm, ...] | None]
"""Alarms on one training by detector; None where a detector is not installed."""


@dataclass(frozen=True)
class Judged:
    """One training and the alarms of one detector, in time. ``twin``: the same training without the change."""

    made: Made
    alarms: tuple[Alarm, ...]
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

    @property
    def leading(self) -> tuple[Alarm, ...]:
        """Return the alarms that are not shown under another."""
        return tuple(alarm for alarm in self.alarms if alarm.leading)

    @property
    def has_critical(self) -> bool:
        """Return whether any alarm is critical."""
        return any(alarm.verdict == "critical" for alarm in self.alarms)

    def after_onset(self, *, net: bool) -> list[Alarm]:
        """Return the alarms that began with the fault or later; ``net``: without rules that the twin raises too."""
        onset = self.made.setup.onset
        of_twin = {alarm.rule for alarm in self.twin.alarms if alarm.lasts_until(onset)} if net and self.twin else set()
        return [alarm for alarm in self.alarms if alarm.start >= onset and alarm.rule not in of_twin]

    @property
    def found(self) -> Alarm | None:
        """Return the first alarm after the onset that the twin does not have."""
        return next(iter(self.after_onset(net=True)), None)

    @property
    def delay(self) -> int | None:
        """Return the updates from the onset to that, None without."""
        return None if self.found is None else self.found.start - self.made.setup.onset

    @property
    def named(self) -> bool:
        """Return whether the first leading alarm after the onset is of a rule that names the fault."""
        onset = self.made.setup.onset
        first = next((alarm for alarm in self.leading if alarm.start >= onset), None)
        if first is None:
            return False
        means = (first.rule,) if self.detector == OURS else PEERS[self.detector].means.get(first.rule, ())
        return not {*means}.isdisjoint(FAULTS[self.kind].rules)


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
            judged[detector] = _with_twins(single)
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


def _ours(run: RecordedRun) -> tuple[Alarm, ...]:
    incidents = replay(run, Thresholds.defaults(RULES)).incidents
    alarms = [
        Alarm(each.rule, each.start, each.end, each.peak_verdict, each.cause is None)
        for each in incidents
        if each.peak_verdict in VERDICTS
    ]
    return tuple(sorted(alarms, key=lambda alarm: alarm.start))


def _with_twins(judged: Iterable[Judged]) -> list[Judged]:
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


def wilson(hits: int, of: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927); (0, 1) of nothing."""
    if not of:
        return 0.0, 1.0
    z, p = 1.959964, hits / of
    middle, half = p + z * z / (2 * of), z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return max(middle - half, 0.0) / (1 + z * z / of), min((middle + half) / (1 + z * z / of), 1.0)


def summary(judged: Sequence[Judged]) -> dict[str, Any]:
    """Return the figures of one detector."""
    faulty = [training for training in judged if training.is_fault]
    harmed = [training for training in faulty if training.harmed]
    hard = [training for training in faulty if FAULTS[training.kind].hard]
    late = [each.delay for each in faulty if each.delay is not None and not FAULTS[each.kind].hard]
    return {
        "trainings": len(judged),
        "neither sound nor changed": sum(not each.kind and not each.made.sound for each in judged),
        "recall": _share(each.after_onset(net=False) for each in faulty),
        "recall, net of the twin": _share(each.found for each in faulty),
        "recall, net, of faults that did harm": _share(each.found for each in harmed),
        "recall, net, macro over kinds": _macro(faulty),
        "recall, net, of harm, macro over kinds": _macro(harmed),
        "recall, net, weighted by harm": _weighted(faulty),
        "cause named first": _share(each.named for each in faulty if each.found),
        "hard faults in the very update": _share(each.delay == 0 for each in hard),
        **_delays("delay of the others", late),
        **_delays("delay of all found", [each.delay for each in faulty if each.delay is not None]),
        **_false_alarms(judged),
        "hard negatives with a critical": _share(each.has_critical for each in judged if each.is_hard_negative),
    }


def _delays(name: str, delays: Sequence[int]) -> dict[str, Any]:
    return {
        f"{name}, median": statistics.median(delays) if delays else None,
        f"{name}, 90 %": statistics.quantiles(delays, n=10)[-1] if len(delays) > 1 else None,
    }


def _false_alarms(judged: Sequence[Judged]) -> dict[str, Any]:
    sound = [training for training in judged if training.is_sound]
    updates = sum(training.made.setup.updates for training in sound)
    counts = {
        "": sum(len(each.leading) for each in sound),
        ", with consequences": sum(len(each.alarms) for each in sound),
        ", each rule once a training": sum(len({alarm.rule for alarm in each.leading}) for each in sound),
    }
    rates = {
        f"false incidents per 1,000 sound updates{how}": 1000 * count / updates if updates else None
        for how, count in counts.items()
    }
    return {
        "sound updates": updates,
        "false incidents": counts[""],
        **rates,
        "sound trainings with an alarm": _share(bool(each.alarms) for each in sound),
        "sound trainings with a critical": _share(each.has_critical for each in sound),
    }


def breakdown(judged: Sequence[Judged]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the recall net of the twin and the false incidents by each of ``GROUPINGS``."""
    return {name: _groups(judged, of) for name, of in GROUPINGS.items()}


def _groups(judged: Sequence[Judged], group: Callable[[Judged], str]) -> dict[str, dict[str, Any]]:
    members: dict[str, list[Judged]] = defaultdict(list)
    for training in judged:
        members[group(training)].append(training)
    return {
        name: {"recall": _share(each.found for each in trainings if each.is_fault), **_false_alarms(trainings)}
        for name, trainings in sorted(members.items())
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


def _share(outcomes: Iterable[object]) -> dict[str, Any]:
    hits = [bool(outcome) for outcome in outcomes]
    low, high = wilson(sum(hits), len(hits))
    return {"hits": sum(hits), "of": len(hits), "low": low, "high": high}


def _macro(faulty: Sequence[Judged]) -> float | None:
    kinds: dict[str, list[bool]] = defaultdict(list)
    for training in faulty:
        kinds[training.kind].append(training.found is not None)
    return statistics.fmean(statistics.fmean(hits) for hits in kinds.values()) if kinds else None


def _weighted(faulty: Sequence[Judged]) -> float | None:
    harm = sum(training.harm for training in faulty)
    return sum(training.harm for training in faulty if training.found) / harm if harm else None
