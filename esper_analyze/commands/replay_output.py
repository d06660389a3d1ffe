"""What ``replay`` prints: incidents, and how they differ from the recording or under other thresholds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esper_analyze.terminal import escaped, path_words, put, say, show_table

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from esper_analyze.replay.replay import Difference, Replay
    from esper_analyze.replay.whatif import Alarm, AlarmChange, WhatIf
    from esper_analyze.runs.run import RecordedRun

MOST_LINES = 20
"""Findings and levels listed on a terminal; --json has all."""
_TITLES = ("change", "verdict", "incident", "alarm live", "alarm now")


def replay_facts(
    run: RecordedRun, result: Replay, different: list[Difference] | None, compared: WhatIf | None
) -> dict[str, object]:
    """Return the replay as data, with its differences from the recording or what other thresholds change."""
    facts: dict[str, object] = {
        "run": str(run.path),
        "updates": result.updates,
        "left_out": [{"file": str(one.file), "reason": one.reason} for one in run.broken],
        "incidents": result.incidents,
        "findings": result.findings,
        "levels": result.levels,
        "verdicts": result.verdict_counts,
        "unjudged": result.unjudged,
        "thresholds": result.thresholds.as_dict(),
    }
    if different is not None:
        facts["differences"] = different
    if compared is not None:
        facts["what_if"] = compared
    return facts


def print_words(run: RecordedRun, result: Replay, different: list[Difference] | None, compared: WhatIf | None) -> None:
    """Write the replay in words, with its differences from the recording or what other thresholds change."""
    from esper_analyze.wording import many

    alarms = many(sum(finding.alarm for finding in result.findings), "alarm")
    incidents = many(len(result.incidents), "incident")
    put(f"{path_words(run.path)}: {many(result.updates, 'update')}, {alarms}, {incidents}\n")
    if result.incidents:
        _print_incidents(run, result)
    for rule in sorted({entry.rule for entry in result.unjudged if entry.verdict == "no_data"}):
        reasons = {entry.reason for entry in result.unjudged if entry.rule == rule and entry.verdict == "no_data"}
        put(f"not judged for lack of data: {rule} ({', '.join(sorted(reasons))})\n")
    if compared is not None:
        _print_comparison(run, result, compared)
    if different is not None:
        _print_verified(run, result, different)


def _print_incidents(run: RecordedRun, result: Replay) -> None:
    from esper_analyze.replay.evidence import texts_of
    from esper_analyze.replay.replay import merged_run
    from esper_analyze.wording import number

    texts = texts_of(merged_run(run), result)
    rows = [
        [
            i.peak_verdict,
            escaped(i.rule),
            escaped(i.subject),
            escaped(i.metric),
            f"{i.start} – {i.end}" + (" (open)" if i.ended == "open" else ""),
            f"{escaped(texts.get(i.rule, {}).get((i.subject, i.peak_update)) or number(i.peak))} at {i.peak_update}",
            "–" if i.cause is None else escaped(result.incidents[i.cause].rule),
        ]
        for i in result.incidents
    ]
    show_table(("verdict", "rule", "on", "metric", "updates", "worst", "consequence of"), rows)


def _print_verified(run: RecordedRun, result: Replay, different: list[Difference]) -> None:
    from esper_analyze.detector.rule import VERDICT
    from esper_analyze.replay.recorded_rules import restated_since
    from esper_analyze.replay.replay import recorded

    if different:
        put("what replay and the live recording do not share:\n")
    for difference in different:
        put(f"only {difference.only}: update {difference.update}, {difference.text}\n")
    if not different and len(run.ranks) > 1:
        put(f"replay says what was recorded on each of {len(run.ranks)} ranks\n")
    elif not different:
        put(f"replay says what was recorded: {len(result.findings)} findings, {len(result.levels)} levels\n")
    fired = {finding.rule for finding in (*result.findings, *recorded(run)[0])}
    restated = {name: what for name, what in restated_since(run.info, result.rules).items() if name in fired}
    for name, what in restated.items():
        if VERDICT not in what:
            put(f"not compared: {' and '.join(what)} of {escaped(name)}, changed since it was recorded\n")
    apart = [escaped(name) for name, what in restated.items() if VERDICT in what]
    if apart:
        put(f"not compared: levels, and all that {', '.join(apart)} found: judged otherwise since it was recorded\n")


def _print_comparison(run: RecordedRun, result: Replay, whatif: WhatIf) -> None:
    """Write to stdout which thresholds differ, what became of every alarm, and findings of one side only."""
    from esper_analyze.detector.rule import VERDICT
    from esper_analyze.replay.recorded_rules import restated_since

    changed_rules = {change.about.rule for change in whatif.alarms if change.what != "same"}
    otherwise = [
        escaped(name)
        for name, what in restated_since(run.info, result.rules).items()
        if VERDICT in what and name in changed_rules
    ]
    for name, live, now in whatif.thresholds:
        origin = "default" if name.partition(".")[0] in whatif.not_live else "recorded with"
        put(f"{name}: {origin} {live}, now {now}\n")
    if not whatif.thresholds:
        put("no threshold differs from those recorded\n")
    if whatif.not_live:
        put(f"did not judge live: {', '.join(whatif.not_live)}\n")
    kinds = [change.what for change in whatif.alarms]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    put(f"against the recording: {counts or 'no incident then, none now'}\n")
    if otherwise:
        put(f"judged otherwise since it was recorded, whatever the thresholds: {', '.join(otherwise)}\n")
    changed = [change for change in whatif.alarms if change.what != "same"]
    if changed:
        several = {rule for rule in {entry.about.rule for entry in changed} if _metrics(changed, rule) > 1}
        show_table(_TITLES, [_row(change, several) for change in changed], right=_TITLES[-2:])
    _print_lines(whatif)


def _metrics(changes: Sequence[AlarmChange], rule: str) -> int:
    return len({change.about.metric for change in changes if change.about.rule == rule})


def _row(change: AlarmChange, several: Container[str]) -> list[str]:
    """Return one row; the metric is named where a rule in ``several`` judges more than one."""
    about = change.about
    subject = "" if about.subject == "run" else f" on {about.subject}"
    metric = f" ({about.metric})" if about.rule in several else ""
    return [change.what, about.verdict, escaped(about.rule + subject + metric), _span(change.live), _span(change.now)]


def _span(alarm: Alarm | None) -> str:
    if alarm is None:
        return "–"
    if alarm.end is None:
        return f"{alarm.start} – open"
    return f"{alarm.start}" if alarm.end == alarm.start else f"{alarm.start} – {alarm.end}"


def _print_lines(whatif: WhatIf) -> None:
    """Write a line for each finding and level change of one side: + now, - recorded live."""
    from esper_analyze.replay.replay import finding_text, level_text

    sides: Sequence[tuple[str, Sequence[tuple[int, str]]]] = (
        ("-", [(entry.update, finding_text(entry)) for entry in whatif.findings_live]),
        ("-", [(entry.update, level_text(entry)) for entry in whatif.levels_live]),
        ("+", [(entry.update, finding_text(entry)) for entry in whatif.findings_now]),
        ("+", [(entry.update, level_text(entry)) for entry in whatif.levels_now]),
    )
    lines = [(update, sign, text) for sign, side in sides for update, text in side]
    lines.sort(key=lambda line: line[0])
    if lines:
        put("findings and levels, + now, - live:\n")
    for update, sign, text in lines[:MOST_LINES]:
        put(f"{sign} update {update}: {text}\n")
    if len(lines) > MOST_LINES:
        say(f"{len(lines) - MOST_LINES} of {len(lines)} lines are not shown: --json has all")
