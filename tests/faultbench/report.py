"""The tables of the bench, this project's detector and its peers side by side, for a terminal, Markdown and JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from esper_analyze.replay.recall import FalseAlarms, false_alarms, fault_kinds
from esper_analyze.strict_json import plain
from tests.faultbench.draw import RELEASE
from tests.faultbench.held_faults import HELD_FAULTS
from tests.faultbench.peers import PEERS
from tests.faultbench.score import OURS, Judged, breakdown, summary

ByDetector = Mapping[str, Sequence[Judged]]
"""The trainings as each detector sees them; without the detectors that are not installed."""

DETECTORS = (OURS, *PEERS)
RATE = "false incidents per 1,000 sound updates"


@dataclass(frozen=True)
class TextTable:
    """A table of text: its title, the names of its columns, and its rows."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def as_markdown(self) -> str:
        """Return it with its title as Markdown."""
        lines = [self.columns, ("---",) * len(self.columns), *self.rows]
        cells = [[cell.replace("|", "\\|").replace("_", "\\_") for cell in line] for line in lines]
        return f"**{self.title}**\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in cells)


def tables(judged: ByDetector, detectors: Sequence[str], split: str) -> list[TextTable]:
    """Return the tables of a split; a detector without trainings in ``judged`` has a cell that says why."""
    return [
        TextTable(f"Figures, {split}", ("figure", *detectors), _figures(judged, detectors)),
        TextTable(
            f"Faults found, net of the twin, and {RATE}, {split}",
            ("by", "group", "faulty trainings", *detectors),
            _groups(judged, detectors),
        ),
        TextTable(
            f"Faults found, net of the twin, by kind, {split}",
            ("fault", "kind", "runs", "harmed", *detectors, "named by ours", "found first by ours"),
            _kinds(judged, detectors),
        ),
        TextTable(
            f"Changes that did no harm, and those with an alarm that the twin lacks, {split}",
            ("change", "trainings", *detectors),
            _harmless(judged, detectors),
        ),
        TextTable(
            f"False alarms of sound trainings, {split}", ("detector", "rule", "verdict", "times"), _false(judged)
        ),
    ]


def _figures(judged: ByDetector, detectors: Sequence[str]) -> list[tuple[str, ...]]:
    figures = {name: summary(trainings) for name, trainings in judged.items()}
    names = list(next(iter(figures.values())))
    rows: list[tuple[str, ...]] = []
    for name in names:
        texts = {detector: shown(of[name]) for detector, of in figures.items()}
        rows.append((name, *_cells(texts, detectors, first=not rows)))
    return rows


def _cells(texts: Mapping[str, str], detectors: Sequence[str], *, first: bool) -> list[str]:
    """Return a cell for each detector; in the ``first`` row one that is not installed says how it would be."""
    return [texts[name] if name in texts else _absent(name) if first else "" for name in detectors]


def _absent(detector: str) -> str:
    return f"not installed: pip install {PEERS[detector].package}"


def shown(figure: Any) -> str:
    """Return a figure as text: a share with its interval, a number, or a dash."""
    if isinstance(figure, dict):
        low, high = 100 * figure["low"], 100 * figure["high"]
        share = 100 * figure["hits"] / figure["of"] if figure["of"] else 0.0
        return f"{figure['hits']} of {figure['of']}: {share:.0f} % ({low:.0f}–{high:.0f})"
    return "–" if figure is None else f"{figure:.3g}" if isinstance(figure, float) else str(figure)


def _groups(judged: ByDetector, detectors: Sequence[str]) -> list[tuple[str, ...]]:
    groups = {name: breakdown(trainings) for name, trainings in judged.items()}
    rows: list[tuple[str, ...]] = []
    for grouping, members in next(iter(groups.values())).items():
        for member, figures in members.items():
            of_each = {name: of[grouping][member] for name, of in groups.items()}
            texts = {name: f"{shown(of['recall'])}; {shown(of[RATE])}" for name, of in of_each.items()}
            rows.append((grouping, member, str(figures["recall"]["of"]), *_cells(texts, detectors, first=not rows)))
    return rows


def _kinds(judged: ByDetector, detectors: Sequence[str]) -> list[tuple[str, ...]]:
    kinds = {name: by_kind(trainings) for name, trainings in judged.items()}
    rows: list[tuple[str, ...]] = []
    for kind, ours in kinds[OURS].items():
        cells = _cells({name: str(of[kind]["found"]) for name, of in kinds.items()}, detectors, first=not rows)
        first = ", ".join(f"{rule} {count}" for rule, count in ours["found first by"].items())
        novelty = "new" if kind in HELD_FAULTS else "known"
        rows.append((kind, novelty, str(ours["runs"]), str(ours["harmed"]), *cells, str(ours["named"]), first))
    return rows


def by_kind(judged: Sequence[Judged]) -> dict[str, dict[str, Any]]:
    """Return for every kind of fault how many were found and named, by which rule first, and which were missed."""
    kinds: dict[str, list[Judged]] = defaultdict(list)
    for training in judged:
        if training.is_fault:
            kinds[training.kind].append(training)
    return {kind: _kind(trainings) for kind, trainings in sorted(kinds.items())}


def _kind(trainings: Sequence[Judged]) -> dict[str, Any]:
    (of,) = fault_kinds([training.labelled for training in trainings])
    delays = {each.made.setup.name: each.after_change.delay for each in trainings}
    return {
        "runs": of.faults,
        "harmed": of.harmful,
        "found": of.found,
        "named": of.named,
        "found first by": of.found_first_by,
        "missed": list(of.missed),
        "missed though it did harm": [
            name for each in trainings if each.harmed and (name := each.made.setup.name) in of.missed
        ],
        "delays": {name: delay for name, delay in delays.items() if delay is not None},
    }


def _harmless(judged: ByDetector, detectors: Sequence[str]) -> list[tuple[str, ...]]:
    changes: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for name, trainings in judged.items():
        for training in trainings:
            if training.is_hard_negative:
                changes[training.kind][name].append(training.after_change.found is not None)
    rows: list[tuple[str, ...]] = []
    for change, alarms in sorted(changes.items()):
        texts = {name: str(sum(of)) for name, of in alarms.items()}
        rows.append((change, str(len(alarms[OURS])), *_cells(texts, detectors, first=not rows)))
    return rows


def of_sound(judged: Sequence[Judged]) -> list[FalseAlarms]:
    """Return which rules alarmed sound trainings, the most frequent first, with the names of the runs."""
    return false_alarms([training.labelled for training in judged])


def _false(judged: ByDetector) -> list[tuple[str, ...]]:
    return [
        (name, entry.rule, entry.verdict, str(entry.times))
        for name, trainings in judged.items()
        for entry in of_sound(trainings)
    ]


def everything(judged: ByDetector, split: str) -> dict[str, Any]:
    """Return all figures, with the names of runs, as JSON can hold them."""
    return {
        "release": RELEASE,
        "split": split,
        "detectors": {
            name: {
                "version": PEERS[name].version if name in PEERS else None,
                "figures": summary(trainings),
                "groups": breakdown(trainings),
                "kinds": by_kind(trainings),
                "false alarms": plain(of_sound(trainings)),
                "criticals of hard negatives": [
                    each.made.setup.name for each in trainings if each.is_hard_negative and each.labelled.has_critical
                ],
            }
            for name, trainings in judged.items()
        },
    }
