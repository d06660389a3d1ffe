"""The zoo's tables: false alarms by family of sound trainings, faults found and how late by family of faulty ones."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from esper_analyze.storage.run_info import find_runs
from esper_analyze.strict_json import strict_json
from esper_analyze.terminal import say, show_table
from tests.bench.zoo.families import FAMILIES
from tests.bench.zoo.faulty import FAULTY
from tests.bench.zoo.healthy import HEALTHY
from tests.bench.zoo.label import has_label
from tests.bench.zoo.score import RunScore, ScoredIncident, score

HEALTHY_TITLES = (
    "healthy family",
    "runs",
    "updates",
    "return",
    "critical",
    "warnings",
    "per 1,000",
    "causes",
    "by rule",
)
ALL = "all of these"
FAULTY_TITLES = (
    "faulty family",
    "runs",
    "found",
    "by rule, delay",
    "median delay",
    "in the very update",
    "false before",
)


def report(out: Path, only: Sequence[str] | None, json: Path | None) -> None:
    """Replay the runs in ``out``, print the tables, and write everything to ``json``."""
    scores = scored(out, only or list(FAMILIES))
    healthy, faulty = summaries(scores, faulty=False), summaries(scores, faulty=True)
    show_table(HEALTHY_TITLES, [_healthy_row(one) for one in healthy], right=HEALTHY_TITLES[1:8])
    show_table(FAULTY_TITLES, [_faulty_row(one) for one in faulty], right=FAULTY_TITLES[1:3])
    if json is not None:
        runs = [_run(one) for one in scores]
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(strict_json({"healthy": healthy, "faulty": faulty, "runs": runs}))


def scored(out: Path, families: Sequence[str]) -> list[RunScore]:
    """Return the scores of the runs that are made, in the order of the families."""
    found = []
    for run_dir in find_runs(out):
        if run_dir.name.rpartition("-")[0] not in families:
            continue
        if has_label(run_dir):
            found.append(score(run_dir))
        else:
            say(f"{run_dir.name} has no label yet and is left out")
    return sorted(found, key=lambda one: (list(FAMILIES).index(one.family), one.seed))


def summaries(scores: Sequence[RunScore], *, faulty: bool) -> list[dict[str, Any]]:
    """Return what the tables and the JSON say, by family; the sound families end with their sum."""
    chosen = [one for one in scores if (one.family in FAULTY) == faulty]
    names = dict.fromkeys(one.family for one in chosen)
    found = {name: [one for one in chosen if one.family == name] for name in names}
    if faulty:
        return [_faulty(name, runs) for name, runs in found.items()]
    known = [one for one in chosen if one.family in HEALTHY]
    listed = [_healthy(name, runs) for name, runs in found.items() if name in HEALTHY]
    listed += [_healthy(ALL, known)] if known else []
    return listed + [_healthy(f"{name} (apart)", runs) for name, runs in found.items() if name not in HEALTHY]


def _healthy(name: str, runs: Sequence[RunScore]) -> dict[str, Any]:
    alarms = [alarm for one in runs for alarm in one.alarms]
    updates = sum(one.updates for one in runs)
    learnt = [one.learnt for one in runs]
    return {"family": name, "runs": len(runs), "updates": updates, "learnt": learnt, **_counts(alarms, updates)}


def _counts(alarms: Sequence[ScoredIncident], updates: int) -> dict[str, Any]:
    """Count alarms; those without a cause are the troubles, the others are shown under theirs."""
    critical = [alarm for alarm in alarms if alarm.verdict == "critical"]
    warnings = [alarm for alarm in alarms if alarm.verdict == "warning"]
    return {
        "critical": len(critical),
        "warnings": len(warnings),
        "warnings_per_1000": 1000 * len(warnings) / max(updates, 1),
        "warnings_without_cause": sum(alarm.under is None for alarm in warnings),
        "critical_by_rule": _by_rule(critical),
        "warnings_by_rule": _by_rule(warnings),
    }


def _by_rule(alarms: Iterable[ScoredIncident]) -> dict[str, int]:
    return dict(Counter(alarm.rule for alarm in alarms).most_common())


def _faulty(name: str, runs: Sequence[RunScore]) -> dict[str, Any]:
    hits = [hit for one in runs for hit in one.hits]
    delays = [hit.delay for hit in hits if hit.delay is not None]
    return {
        "family": name,
        "fault": hits[0].fault.name,
        "rules": list(hits[0].fault.rules),
        "runs": len(runs),
        "faults": len(hits),
        "found": len(delays),
        "delays": {f"seed {one.seed}": [[hit.rule, hit.delay] for hit in one.hits] for one in runs},
        "median_delay": statistics.median(delays) if delays else None,
        "hard": hits[0].fault.hard,
        "late": sum(hit.late for hit in hits),
        "before_onset": _counts(
            [alarm for one in runs for alarm in one.false_alarms], sum(one.sound_updates for one in runs)
        )
        | {"updates": sum(one.sound_updates for one in runs)},
    }


def _healthy_row(one: dict[str, Any]) -> tuple[str, ...]:
    rules = [f"{rule} {count} critical" for rule, count in one["critical_by_rule"].items()]
    rules += [f"{rule} {count}" for rule, count in one["warnings_by_rule"].items()]
    first, last = (statistics.fmean(ends) for ends in zip(*one["learnt"], strict=True))
    learnt = "" if one["family"] == ALL else f"{first:.1f} → {last:.1f}"
    counts = (str(one["runs"]), str(one["updates"]), learnt, str(one["critical"]), str(one["warnings"]))
    causes = str(one["warnings_without_cause"])
    return (one["family"], *counts, f"{one['warnings_per_1000']:.2f}", causes, ", ".join(rules))


def _faulty_row(one: dict[str, Any]) -> tuple[str, ...]:
    delays = [f"{rule} {delay}" if rule else "–" for hits in one["delays"].values() for rule, delay in hits]
    very = "" if not one["hard"] else "all" if one["late"] == 0 else f"{one['late']} LATE"
    before = one["before_onset"]
    false = Counter(before["critical_by_rule"]) + Counter(before["warnings_by_rule"])
    return (
        one["family"],
        str(one["runs"]),
        f"{one['found']}/{one['faults']}",
        ", ".join(delays),
        "" if one["median_delay"] is None else f"{one['median_delay']:g}",
        very,
        ", ".join(f"{rule} {count}" for rule, count in false.items()),
    )


def _run(one: RunScore) -> dict[str, Any]:
    hits = [
        {"fault": hit.fault.name, "onset": hit.fault.onset, "rule": hit.rule, "delay": hit.delay} for hit in one.hits
    ]
    run = {"run": f"{one.family}-{one.seed}", "updates": one.updates, "learnt": one.learnt}
    return {**run, "hits": hits, "alarms": [_line(alarm) for alarm in one.alarms]}


def _line(alarm: ScoredIncident) -> str:
    under = "" if alarm.under is None else f", under {alarm.under}"
    what = f"{alarm.rule} on {alarm.subject} ({alarm.metric})"
    return f"{alarm.start}-{alarm.end} {alarm.verdict} {what} {alarm.peak:.4g}{under}"
