"""What ``backtest`` prints: scores by rule and setting, and the faults that were missed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esper_analyze.terminal import cleaned, escaped, put, say, show_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esper_analyze.replay.backtest import Backtest
    from esper_analyze.replay.scores import Detection, Score

_TITLES = ("recall", "found", "false\nalarms", "per\n1,000", "delay")
_MOST_MISSED = 20


def tell_left_out(result: Backtest) -> None:
    """Report on stderr the runs that were not judged."""
    for path, why in result.broken:
        say(f"left out, cannot be judged: {why if str(path) in why else f'{path}: {why}'}")
    for path in result.unlabelled:
        say(f"left out, no labels.toml: {path}")
    left = len(result.broken) + len(result.unlabelled)
    if left:
        say(f"{left} of {left + len(result.tested)} runs are left out")


def print_json(result: Backtest, scored: Sequence[Score], when: Sequence[Detection]) -> None:
    """Write runs, scores and detections as JSON."""
    from esper_analyze.strict_json import strict_json

    runs = [
        {
            "run": str(run.path),
            "healthy": not run.labels.faults,
            "faults": run.labels.faults,
            "updates": run.updates,
            "healthy_updates": run.healthy_updates,
        }
        for run in result.tested
    ]
    broken = [{"run": str(path), "reason": why} for path, why in result.broken]
    facts = {
        "runs": runs,
        "unlabelled": [str(path) for path in result.unlabelled],
        "broken": broken,
        "scores": scored,
        "detections": when,
    }
    put(strict_json(facts))


def print_words(result: Backtest, scored: Sequence[Score], when: Sequence[Detection]) -> None:
    """Write a table of scores for each rule, and the faults that nothing finds."""
    from esper_analyze.wording import many

    healthy = sum(not run.labels.faults for run in result.tested)
    faults = sum(len(run.labels.faults) for run in result.tested)
    updates = sum(run.healthy_updates for run in result.tested)
    put(
        f"{many(len(result.tested), 'labelled run')} ({healthy} healthy), {many(faults, 'fault')}, "
        f"{many(updates, 'healthy update')}\n"
    )
    swept = bool(scored and scored[0].values)
    for rule in dict.fromkeys(score.rule for score in scored) if swept else ():
        put(f"\n{rule}:\n")
        _show("setting", [score for score in scored if score.rule == rule])
    if not swept:
        _show("rule", scored)
    _print_missed(when)


def _show(first: str, scored: Sequence[Score]) -> None:
    show_table((first, *_TITLES), [_cells(score) for score in scored], right=_TITLES)


def _cells(score: Score) -> list[str]:
    """Return the cells of one row; the thresholds of a setting stand one below the other."""
    return [
        "\n".join(escaped(part) for part in score.setting.split(", ")) or escaped(score.rule),
        "–" if score.recall is None else f"{score.recall:.2f}",
        f"{score.found}/{score.faults}" if score.faults else "–",
        f"{score.false_alarms:,}",
        "–" if score.per_1000 is None else f"{score.per_1000:.3g}",
        "–" if score.median_delay is None else f"{score.median_delay:g}",
    ]


def _print_missed(when: Sequence[Detection]) -> None:
    """Name the faults that no setting finds, and hard ones that no setting finds at once."""
    best: dict[tuple[str, str], Detection] = {}
    for detection in when:
        earlier = best.get((detection.run, detection.fault))
        if earlier is None or (
            detection.delay is not None and (earlier.delay is None or detection.delay < earlier.delay)
        ):
            best[detection.run, detection.fault] = detection
    lines = []
    for detection in best.values():
        if detection.delay is None:
            lines.append(f"missed: {detection.run}, {detection.fault!r} from update {detection.onset}")
        elif detection.hard and detection.delay > 0:
            late = f"{detection.fault!r} is hard, from update {detection.onset}, found at {detection.update}"
            lines.append(f"late: {detection.run}, {late}")
    for line in lines[:_MOST_MISSED]:
        put(cleaned(line, longest=500) + "\n")
    if len(lines) > _MOST_MISSED:
        say(f"{len(lines) - _MOST_MISSED} more faults are missed or late: --json has all")
