"""The detector at work inside the recorder: rows in, the same rows with findings, levels and drift out."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from esper_analyze.detector.custom import custom_rules, unjudged
from esper_analyze.detector.detector import Detector, Outcome
from esper_analyze.detector.escalation import DEBUG, MINIMAL, OFF
from esper_analyze.detector.findings import Finding
from esper_analyze.detector.rule import Memory, Rule
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.signals import Frame, batch_from_rows
from esper_analyze.detector.stop_policy import StopPolicy
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.detector.verdict import Judgement
from esper_analyze.errors import did_you_mean
from esper_analyze.schema.printable import LOG
from esper_analyze.schema.tables import BY_NAME, LEVELS
from esper_analyze.storage.block import Block, Rows
from recorder.rows import AT_MINIMAL

OnFindings = Callable[[Sequence[Finding], Mapping[str, Rows]], None]
"""Called with the findings of each update and its rows by table; must not raise."""


class OnlineDetector:
    """Judges each ended update on exactly the rows that will be stored."""

    def __init__(
        self,
        thresholds: Thresholds | Mapping[str, Mapping[str, Any]] | None,
        level: str,
        rules: Path | str | Sequence[Rule] | None = None,
        *,
        quiet: bool = False,
        stop_on: str | Sequence[str] = (),
    ) -> None:
        if level not in LEVELS:
            raise ValueError(f"there is no level {level!r}{did_you_mean(str(level).upper(), LEVELS)}")
        self.custom = custom_rules(rules)
        every = (*RULES, *(replace(rule, judge=_GuardedJudge(rule)) for rule in self.custom.rules))
        if isinstance(thresholds, Thresholds):
            chosen = thresholds.completed(every)
        else:
            chosen = Thresholds.defaults(every).merged(thresholds or {})
        self.detector = Detector(chosen, level=level, rules=every, defer=True)
        self._wanted = self.detector.wanted
        self._quiet = quiet
        self._warned: set[tuple[str, str]] = set()
        self.on_findings: OnFindings | None = None
        self.policy = StopPolicy.parsed(stop_on, [rule.name for rule in every])

    def level(self, update: int) -> str:
        """Return the telemetry level in effect for ``update``."""
        return self.detector.escalation.level_at(update)

    def judge(self, update: int, rows: Mapping[str, Rows], level: str | None = None) -> OnlineVerdicts:
        """Return the rows to store for ``update``: those of its level, findings, level changes and drift.

        ``level``: at which the update was captured; None: that of the findings before it.
        """
        level = self.level(update) if level is None else level
        if level == OFF:
            return OnlineVerdicts({}, None)
        stored = {name: cells for name, cells in rows.items() if level != MINIMAL or name in AT_MINIMAL}
        judged = {
            name: cells.as_rows() if isinstance(cells, Block) else cells
            for name, cells in stored.items()
            if name in self._wanted
        }
        outcome = self.detector.process(batch_from_rows(update, judged, self._wanted))
        _fill(judged, outcome)
        stored["findings"] = [finding.as_row() for finding in outcome.findings]
        stored["levels"] = [
            {name: getattr(change, name) for name in _LEVEL_COLUMNS if hasattr(change, name)}
            for change in outcome.levels
        ]
        if not self._quiet:
            log_alarms(outcome.findings, self.detector.rules, stored, self._warned)
        self._check_policy(update, outcome)
        if self.on_findings is not None:
            self.on_findings(outcome.findings, stored)
        return OnlineVerdicts(stored, outcome, level != DEBUG and self.level(update + 1) == DEBUG)

    @property
    def stop_reason(self) -> str | None:
        """Why the training is to stop; None: it is not."""
        return None if self.policy.decision is None else self.policy.decision.reason

    def _check_policy(self, update: int, outcome: Outcome) -> None:
        stopped = self.policy.decision is not None
        if self.policy.take(update, outcome.findings) is not None and not stopped:
            LOG.warning("recorder: stop_on is met, should_stop() says True from now on: %s", self.stop_reason)


class _GuardedJudge:
    """A user's judge inside a training: an error costs only its own verdict of that update."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.logged = False

    def __call__(self, frame: Frame, memory: Memory, limits: Any) -> list[Judgement]:
        before = {name: array.copy() for name, array in memory.items()}
        try:
            return self.rule.judge(frame, memory, limits)
        except Exception as error:
            if not self.logged:
                LOG.error("%s (logged once; the rule says no_data where it cannot judge)", error)
            self.logged = True
            memory.update(before)
            return [unjudged(self.rule.columns[0], frame.present.shape, str(error))]


_LEVEL_COLUMNS = BY_NAME["levels"].names


@dataclass(frozen=True, slots=True)
class OnlineVerdicts:
    """The rows to store for one update, and the detector's outcome (None at level OFF)."""

    rows: dict[str, Rows]
    outcome: Outcome | None
    escalates: bool = False
    """Whether the next update is at DEBUG and this one was not."""


def _fill(rows: Mapping[str, Sequence[Any]], outcome: Outcome) -> None:
    """Write the columns computed by the detector into their rows."""
    for (table, column), (subjects, values) in outcome.filled.items():
        subject = BY_NAME[table].subject
        by_subject = dict(zip(subjects, values[0], strict=True))
        for row in rows.get(table, ()):
            value = float(by_subject.get(row[str(subject)], math.nan))
            row[column] = None if math.isnan(value) else value


def log_alarms(
    findings: Sequence[Finding], rules: Sequence[Rule], rows: Mapping[str, Rows], warned: set[tuple[str, str]]
) -> None:
    """Log alarms: critical ones as warnings, warnings as information and once a rule and subject (``warned``).

    Of the critical ones of an update, else of its warnings, only root causes, with the number of their consequences.
    """
    alarms = [finding for finding in findings if finding.alarm]
    critical = [finding for finding in alarms if finding.verdict == "critical"]
    _log_roots(logging.WARNING, critical, rules, rows)
    others = [finding for finding in alarms if (finding.rule, finding.subject) not in warned]
    if not critical:
        _log_roots(logging.INFO, others, rules, rows)
    warned |= {(finding.rule, finding.subject) for finding in alarms}


def _log_roots(level: int, alarms: Sequence[Finding], rules: Sequence[Rule], rows: Mapping[str, Rows]) -> None:
    rung, causes = {finding.rule for finding in alarms}, {rule.name: set(rule.causes) for rule in rules}
    roots = [finding for finding in alarms if not causes[finding.rule] & rung]
    count = len(alarms) - len(roots)
    follow = f" (and {count} consequence{'s' if count > 1 else ''})" if count else ""
    by_name = {rule.name: rule for rule in rules}
    for finding in roots:
        rule = by_name[finding.rule]
        word = judged_word(finding, rule.table, rows)
        judged = rule.statistic(finding.metric).name if word is None else finding.metric
        shown = word or (None if finding.value is None else f"{finding.value:.4g}")
        LOG.log(
            level,
            "update %d: %s: %s on %s: %s%s%s",
            finding.update,
            finding.verdict,
            finding.rule,
            finding.subject,
            judged,
            "" if shown is None else f" = {shown}",
            follow,
        )


def judged_word(finding: Finding, table: str, rows: Mapping[str, Rows]) -> str | None:
    """Return the word that was judged; None if a number was judged."""
    named = BY_NAME[table].subject
    listed = rows.get(table, ())
    for row in () if isinstance(listed, Block) else listed:
        word = row.get(finding.metric)
        if isinstance(word, str) and (named is None or row[named] == finding.subject):
            return word
    return None
