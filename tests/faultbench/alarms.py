"""Alarms of any detector, counted alike for all: one for each stretch of updates in which a rule is in alarm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from esper_analyze.replay.recall import AlarmSpan

CLEAR_AFTER = 5
"""An alarm that returns before so many quiet updates is the same one, as with this project's own rules."""
VERDICTS = ("warning", "critical")

Check = tuple[int, Mapping[str, str]]
"""An update at which a detector was asked, and the rules that were in alarm then with their verdict."""


def stretches(checks: Iterable[Check]) -> tuple[AlarmSpan, ...]:
    """Return the alarms of ``checks``, which are in the order of their updates; of those that begin together a critical
    first, the others in the order in which the detector named them.
    """
    active: dict[str, tuple[int, int, str]] = {}
    ended: list[AlarmSpan] = []
    firing: Mapping[str, str] = {}
    for update, firing in checks:
        for rule, verdict in firing.items():
            start, _, worst = active.get(rule, (update, update, verdict))
            active[rule] = start, update, max(worst, verdict, key=VERDICTS.index)
        for rule, (start, last, verdict) in list(active.items()):
            if update - last >= CLEAR_AFTER:
                ended.append(AlarmSpan(rule, start, last, verdict))
                del active[rule]
    ended += [
        AlarmSpan(rule, start, None if rule in firing else last, verdict)
        for rule, (start, last, verdict) in active.items()
    ]
    return tuple(sorted(ended, key=lambda alarm: (alarm.start, alarm.verdict != "critical")))
