"""What ``backtest`` prints: scores by rule and setting, the fault bench's tables, and the faults that were missed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esper_analyze.terminal import cleaned, escaped, put, say, show_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from esper_analyze.replay.backtest import Backtest
    from esper_analyze.replay.policy_scores import PolicyTrials
    from esper_analyze.replay.recall import LabelledAlarms, RecallFigure
    from esper_analyze.replay.scores import Detection, Score

_TITLES = ("recall", "found", "false\nalarms", "per\n1,000", "delay")
_SETTING_TITLES = {
    "recall_net": "recall,\nnet",
    "cause_named_first": "cause\nnamed",
    "delay_median": "delay",
    "false_per_1000": "false per\n1,000",
    "sound_with_an_alarm": "sound with\nan alarm",
    "sound_with_a_critical": "with a\ncritical",
}
_MOST_MISSED = 20


def tell_left_out(result: Backtest) -> None:
    """Report on stderr the runs that were not judged."""
    for path, why in result.broken:
        say(f"left out, cannot be judged: {why if str(path) in why else f'{path}: {why}'}")
    tell_unlabelled(() if result.labels_file else result.unlabelled)
    left = len(result.broken) + len(result.unlabelled)
    if left:
        unnamed = len(result.unlabelled) if result.labels_file else 0
        why = f", {unnamed} of them because {result.labels_file} does not name them" if unnamed else ""
        say(f"{left} of {left + len(result.tested)} runs are left out{why}")


def tell_unlabelled(paths: Iterable[Path]) -> None:
    """Report on stderr the runs without labels."""
    for path in paths:
        say(f"left out, no labels.toml: {path}")


def print_policies(trials: PolicyTrials) -> None:
    """Write what each policy would have stopped and saved."""
    scores = trials.scores()
    put(f"{scores[0].faulty_runs} runs with a fault, {scores[0].sound_runs} sound ones\n")
    titles = ("stopped", "too\nearly", "updates\nsaved", "share", "delay", "sound runs\nstopped")
    rows = [
        [
            "\n".join(escaped(part) for part in score.policy.split("; ")),
            f"{score.stopped}/{score.faulty_runs}",
            f"{score.too_early}",
            f"{score.updates_saved:,}/{score.updates_after_fault:,}",
            "–" if score.share_saved is None else f"{score.share_saved:.0%}",
            "–" if score.median_delay is None else f"{score.median_delay:g}",
            f"{score.sound_stopped}/{score.sound_runs}",
        ]
        for score in scores
    ]
    show_table(("policy", *titles), rows, right=titles)


def backtest_facts(result: Backtest, scored: Sequence[Score]) -> dict[str, object]:
    """Return runs, scores, detections and, for each setting, the fault bench's tables as data."""
    from esper_analyze.replay.scores import detections, setting_labels

    runs = [
        {
            "run": str(run.path),
            "healthy": run.labels.healthy and not run.labels.faults,
            "faults": run.labels.faults,
            "change": run.labels.change or None,
            "twin": None if run.labels.twin is None else str(run.labels.twin),
            "groups": run.labels.groups,
            "updates": run.updates,
            "healthy_updates": run.healthy_updates,
        }
        for run in result.tested
    ]
    broken = [{"run": str(path), "reason": why} for path, why in result.broken]
    return {
        "runs": runs,
        "unlabelled": [str(path) for path in result.unlabelled],
        "broken": broken,
        "scores": scored,
        "detections": detections(result),
        "all_rules": [_all_rules(result, index, label) for index, label in enumerate(setting_labels(result))],
    }


def _all_rules(result: Backtest, setting: int, label: str) -> dict[str, object]:
    """Return the fault bench's tables for one setting."""
    from esper_analyze.replay.backtest import labelled_alarms
    from esper_analyze.replay.recall import false_alarms, fault_kinds, recall, run_groups

    runs = labelled_alarms(result, setting)
    return {
        "setting": label,
        "figures": recall(runs),
        "faults": fault_kinds(runs),
        "groups": run_groups(runs),
        "false_alarms": false_alarms(runs),
    }


def print_words(result: Backtest, scored: Sequence[Score]) -> None:
    """Write a table of scores for each rule, the tables of all rules, and the faults that nothing finds."""
    from esper_analyze.replay.backtest import labelled_alarms
    from esper_analyze.replay.scores import detections
    from esper_analyze.wording import many

    healthy = sum(run.labels.healthy and not run.labels.faults for run in result.tested)
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
    if swept:
        _show_settings(result)
    else:
        _show_all_rules(labelled_alarms(result, 0))
    _print_missed(detections(result))


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


def _show_settings(result: Backtest) -> None:
    """Show the main figures of all rules together, a row for each setting."""
    from esper_analyze.replay.backtest import labelled_alarms
    from esper_analyze.replay.recall import recall
    from esper_analyze.replay.scores import setting_labels

    rows = []
    for index, label in enumerate(setting_labels(result)):
        figures = recall(labelled_alarms(result, index))
        cells = [_share_words(getattr(figures, name)) for name in _SETTING_TITLES]
        rows.append(["\n".join(escaped(part) for part in label.split(", ")), *cells])
    titles = tuple(_SETTING_TITLES.values())
    put("\nall rules, net of twins, incidents that are shown under no other:\n")
    show_table(("setting", *titles), rows, right=titles)


def _show_all_rules(runs: Sequence[LabelledAlarms]) -> None:
    """Show the fault bench's tables: figures, groups of runs, faults by name, false alarms by rule."""
    from esper_analyze.replay.recall import TITLES, false_alarms, fault_kinds, recall, run_groups

    put("\nall rules, net of twins, incidents that are shown under no other:\n")
    show_table(("figure", "all rules"), [(TITLES[name], _words(value)) for name, value in recall(runs).items()])
    groups = [
        (escaped(of.group), escaped(of.value), of.recall_net.words, _words(of.false_per_1000))
        for of in run_groups(runs)
    ]
    if groups:
        put("\nby group:\n")
        show_table(("by", "group", "recall, net", "false per\n1,000"), groups, right=("false per\n1,000",))
    kinds = fault_kinds(runs)
    if kinds:
        put("\nby fault:\n")
        show_table(
            ("fault", "runs", "harmed", "found", "named", "found first by"),
            [
                (
                    escaped(kind.name),
                    *map(str, (kind.faults, kind.harmful, kind.found, kind.named)),
                    ", ".join(f"{rule} {count}" for rule, count in kind.found_first_by.items()),
                )
                for kind in kinds
            ],
            right=("runs", "harmed", "found", "named"),
        )
    false = [(alarm.rule, alarm.verdict, f"{alarm.times:,}") for alarm in false_alarms(runs)]
    if false:
        put("\nfalse alarms of sound runs:\n")
        show_table(("rule", "verdict", "times"), false, right=("times",))


def _words(figure: RecallFigure) -> str:
    """Return a figure in words: a share with its interval, a number, or a dash."""
    from esper_analyze.replay.recall import Share

    if isinstance(figure, Share):
        return figure.words
    return "–" if figure is None else f"{figure:.3g}" if isinstance(figure, float) else f"{figure:,}"


def _share_words(figure: RecallFigure) -> str:
    """Return a figure in few words: of a share its hits."""
    from esper_analyze.replay.recall import Share

    return f"{figure.hits}/{figure.of}" if isinstance(figure, Share) else _words(figure)


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
