"""The message about the incidents that change in one update: a plain dictionary, and the same as text for people."""

from __future__ import annotations

import math
import platform
import shlex
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from esper_analyze.detector.rule import Rule
from esper_analyze.detector.verdict import NONFINITE
from esper_analyze.schema.printable import printable
from esper_analyze.storage.block import Block, Rows
from recorder.act.changes import CRITICAL, ENDED, IncidentChange
from recorder.online_detector import judged_word

Message = dict[str, Any]
MOST_LINES = 8
"""Further incidents that the text names; the dictionary has all."""
_MARK = {"critical": "CRITICAL", "warning": "WARNING"}


@dataclass(frozen=True, slots=True)
class MessageWriter:
    """Writes the messages of one attempt of a run. ``rules`` by name."""

    run_dir: Path
    attempt: str
    rank: int
    rules: Mapping[str, Rule]
    host: str = field(default_factory=platform.node)

    def message(self, changes: Sequence[IncidentChange], rows: Mapping[str, Rows]) -> Message:
        """Return one message for the changes of one update, of which there is at least one.

        The fields are those of the leading change: critical before warning before ended, causes before what they
        cause. ``also`` lists the others. Numbers that are not finite are text ("NaN", "Infinity"), as JSON has none.
        """
        lead, *others = self._ordered(changes)
        facts = self._facts(lead, rows)
        return {
            "id": self._id(lead),
            "run": self.run_dir.name,
            "run_dir": str(self.run_dir),
            "host": self.host,
            "rank": self.rank,
            "env_steps": _env_steps(rows),
            **facts,
            "also": [self._facts(other, rows) for other in others],
            "report": f"esper-analyze report {shlex.quote(str(self.run_dir))}",
            "dropped_before": 0,
        }

    def _id(self, lead: IncidentChange) -> str:
        """Return what is the same if another process tells of the same change again."""
        parts = (self.host, self.run_dir, self.attempt, lead.event, lead.finding.update, *lead.finding.key)
        return uuid.uuid5(uuid.NAMESPACE_URL, "\n".join(map(str, parts))).hex

    def _ordered(self, changes: Sequence[IncidentChange]) -> list[IncidentChange]:
        begun = {change.finding.rule for change in changes if change.event != ENDED}

        def order(change: IncidentChange) -> tuple[bool, bool, bool]:
            rule = self.rules.get(change.finding.rule)
            follows = rule is not None and not begun.isdisjoint(rule.causes)
            return change.event == ENDED, change.finding.verdict != "critical", follows

        return sorted(changes, key=order)

    def _facts(self, change: IncidentChange, rows: Mapping[str, Rows]) -> dict[str, object]:
        finding, rule = change.finding, self.rules[change.finding.rule]
        word = judged_word(finding, rule.table, rows)
        return {
            "event": change.event,
            "update": finding.update,
            "rule": finding.rule,
            "title": rule.title,
            "verdict": finding.verdict,
            "worst": change.worst,
            "subject": finding.subject,
            "metric": finding.metric,
            "value": word if word is not None else _plain(finding.value),
            "threshold": None if word is not None else _plain(finding.threshold),
            "began": change.start,
            "sentence": self._sentence(change, rule, word),
        }

    @staticmethod
    def _sentence(change: IncidentChange, rule: Rule, word: str | None) -> str:
        finding = change.finding
        where = "" if finding.subject == "run" else f" on {finding.subject}"
        since = "since earlier" if change.start is None else f"since update {change.start:,}"
        if change.event == ENDED:
            moment = f"over at update {finding.update:,}, an incident {since} ({change.worst})"
        elif change.event == CRITICAL:
            moment = f"critical since update {finding.update:,}, an incident {since}"
        else:
            moment = f"{finding.verdict} {since}"
        return printable(f"{_title(change, rule)}{where}, {moment}{_judged(change, rule, word)}.")


def _title(change: IncidentChange, rule: Rule) -> str:
    """Return the rule's title; for a number that is not finite that fact, unless the rule is about NaN itself."""
    finding = change.finding
    if finding.reason != NONFINITE or finding.value is None or rule.finiteness:
        return rule.title
    return f"{finding.metric} is {_number(finding.value)}"


def _judged(change: IncidentChange, rule: Rule, word: str | None) -> str:
    """Return the end of a sentence with the judged number and its bound; empty where it is not known."""
    finding = change.finding
    if word is not None:
        return f": {finding.metric} said {word}"
    if finding.value is None:
        return ""
    name = rule.statistic(finding.metric).name
    text = f": {name} = {_number(finding.value)}"
    if finding.threshold is None or finding.reason == NONFINITE or change.event == ENDED:
        return text
    return f"{text}, bound {_number(finding.threshold)}"


def as_text(message: Mapping[str, Any]) -> str:
    """Return a message as a few lines of plain text, for a chat."""
    ended = message["event"] == ENDED
    head = "ENDED" if ended else _MARK[message["verdict"]]
    lines = [f"{head} · {message['run']}: {message['sentence']}"]
    lines += [f"also: {other['sentence']}" for other in message["also"][:MOST_LINES]]
    left = len(message["also"]) - MOST_LINES
    lines += [f"and {left} more"] if left > 0 else []
    steps = "" if message["env_steps"] is None else f"{message['env_steps']:,} env steps, "
    lines.append(f"{steps}host {message['host']}, look with: {message['report']}")
    if message["dropped_before"]:
        lines.append(f"{message['dropped_before']} alerts before this one were dropped: too many at a time")
    return "\n".join(printable(line) for line in lines)


def _env_steps(rows: Mapping[str, Rows]) -> int | None:
    updates = rows.get("updates", ())
    for row in () if isinstance(updates, Block) else updates:
        steps = row.get("env_steps")
        return int(steps) if isinstance(steps, int) else None
    return None


def _plain(value: float | None) -> float | str | None:
    """Return a number as strict JSON has it."""
    if value is None or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else str(_plain(value))
