"""Print the findings of other thresholds or rules next to the live ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esper_analyze.terminal import escaped, put, say, show_table

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from esper_analyze.replay.whatif import Alarm, AlarmChange, WhatIf

MOST_LINES = 20
"""Findings and levels listed on a terminal; --json has all."""
_TITLES = ("change", "verdict", "incident", "alarm live", "alarm now")


def print_comparison(whatif: WhatIf) -> None:
    """Write to stdout which thresholds differ, what became of every alarm, and findings of one side only."""
    for name, live, now in whatif.thresholds:
        put(f"{name}: recorded with {live}, now {now}\n")
    if not whatif.thresholds:
        put("no threshold differs from those recorded\n")
    if whatif.not_live:
        put(f"did not judge live: {', '.join(whatif.not_live)}\n")
    kinds = [change.what for change in whatif.alarms]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    put(f"against the recording: {counts or 'no incident then, none now'}\n")
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
