"""What the detector says of the trainings, against what was done to them and how they went."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from esper_analyze.detector.incidents import Incident
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.replay.replay import replay
from esper_analyze.runs.run import open_run
from tests.faultbench.faults import FAULTS
from tests.faultbench.outcome import Made, read

ALARMS = ("warning", "critical")


@dataclass(frozen=True)
class Judged:
    """One training and its incidents of verdict warning or critical, in time. ``twin``: the same without the change."""

    made: Made
    incidents: tuple[Incident, ...]
    leading: tuple[Incident, ...]
    """Those that are not shown under another."""
    twin: Judged | None = None

    @property
    def kind(self) -> str:
        """Return the fault or change that was put in, empty without."""
        return self.made.setup.kind

    @property
    def is_fault(self) -> bool:
        """Return whether a fault was put in."""
        return self.kind in FAULTS

    @cached_property
    def harmed(self) -> bool:
        """Return whether the fault did harm."""
        assert self.twin is not None
        return self.made.did_harm(self.twin.made)

    @property
    def is_hard_negative(self) -> bool:
        """Return whether a change was put in that did no harm to a sound training."""
        return bool(self.kind) and not self.is_fault and self.made.sound and not self.harmed

    def after_onset(self, *, net: bool) -> list[Incident]:
        """Return the incidents that began with the fault or later; ``net``: without rules that the twin raises too."""
        onset = self.made.setup.onset
        of_twin = {one.rule for one in self.twin.incidents if one.end >= onset} if net and self.twin else set()
        return [one for one in self.incidents if one.start >= onset and one.rule not in of_twin]

    @property
    def found(self) -> Incident | None:
        """Return the first incident after the onset that the twin does not have."""
        return next(iter(self.after_onset(net=True)), None)

    @property
    def delay(self) -> int | None:
        """Return the updates from the onset to that, None without."""
        return None if self.found is None else self.found.start - self.made.setup.onset

    @property
    def named(self) -> bool:
        """Return whether the first leading incident after the onset is of a rule that names the fault."""
        onset = self.made.setup.onset
        first = next((one for one in self.leading if one.start >= onset), None)
        return first is not None and first.rule in FAULTS[self.kind].rules


def judge(out: Path, split: str) -> list[Judged]:
    """Replay every whole training of a split through the detector as it is now."""
    found: dict[int, dict[str, Judged]] = defaultdict(dict)
    for file in sorted(out.glob(f"{split}-*/outcome.json")):
        made = read(file.parent)
        found[made.setup.number][made.setup.kind] = _judged(file.parent, made, found[made.setup.number].get(""))
        if not made.setup.kind:
            sound = found[made.setup.number][""]
            for kind, one in found[made.setup.number].items():
                if kind:
                    found[made.setup.number][kind] = Judged(one.made, one.incidents, one.leading, sound)
    return [kinds[kind] for _, kinds in sorted(found.items()) for kind in sorted(kinds) if not kind or kinds[kind].twin]


def _judged(run_dir: Path, made: Made, twin: Judged | None) -> Judged:
    everything = replay(open_run(run_dir), Thresholds.defaults(RULES)).incidents
    alarms = tuple(sorted((one for one in everything if one.peak_verdict in ALARMS), key=lambda one: one.start))
    return Judged(made, alarms, tuple(one for one in alarms if one.cause is None), twin)


def wilson(hits: int, of: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927); (0, 1) of nothing."""
    if not of:
        return 0.0, 1.0
    z, p = 1.959964, hits / of
    middle, half = p + z * z / (2 * of), z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return (middle - half) / (1 + z * z / of), (middle + half) / (1 + z * z / of)


def summary(judged: Sequence[Judged]) -> dict[str, Any]:
    """Return the figures of the bench."""
    sound = [one for one in judged if not one.kind and one.made.sound]
    faulty = [one for one in judged if one.is_fault]
    harmed = [one for one in faulty if one.harmed]
    hard = [one for one in faulty if FAULTS[one.kind].hard]
    negatives = [one for one in judged if one.is_hard_negative]
    updates = sum(one.made.setup.updates for one in sound)
    late = [one.delay for one in faulty if one.delay is not None and not FAULTS[one.kind].hard]
    incidents = sum(len(one.leading) for one in sound)
    return {
        "trainings": len(judged),
        "neither sound nor changed": sum(not one.kind and not one.made.sound for one in judged),
        "recall": _share(one.after_onset(net=False) for one in faulty),
        "recall, net of the twin": _share(one.found for one in faulty),
        "recall, net, of faults that did harm": _share(one.found for one in harmed),
        "recall, net, macro over kinds": _macro(faulty),
        "recall, net, of harm, macro over kinds": _macro(harmed),
        "cause named first": _share(one.named for one in faulty if one.found),
        "hard faults in the very update": _share(one.delay == 0 for one in hard),
        "delay of the others, median": statistics.median(late) if late else None,
        "delay of the others, 90 %": statistics.quantiles(late, n=10)[-1] if len(late) > 1 else None,
        "sound updates": updates,
        "false incidents": incidents,
        "false incidents per 1,000 sound updates": 1000 * incidents / updates if updates else None,
        "sound trainings with an alarm": _share(bool(one.incidents) for one in sound),
        "sound trainings with a critical": _share(map(_critical, sound)),
        "hard negatives with a critical": _share(map(_critical, negatives)),
    }


def _critical(one: Judged) -> bool:
    return any(incident.peak_verdict == "critical" for incident in one.incidents)


def _share(outcomes: Iterable[object]) -> dict[str, Any]:
    found = [bool(one) for one in outcomes]
    low, high = wilson(sum(found), len(found))
    return {"hits": sum(found), "of": len(found), "low": low, "high": high}


def _macro(faulty: Sequence[Judged]) -> float | None:
    kinds: dict[str, list[bool]] = defaultdict(list)
    for one in faulty:
        kinds[one.kind].append(one.found is not None)
    return statistics.fmean(statistics.fmean(found) for found in kinds.values()) if kinds else None
