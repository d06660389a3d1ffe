"""The rules that a run was recorded with: built-in ones, and custom rules of the user's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esper_analyze.detector.custom import CustomRules
from esper_analyze.detector.rule import Rule
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.thresholds import ThresholdError, Thresholds
from esper_analyze.errors import DamagedError, UsageError
from esper_analyze.runs.run import RecordedRun


@dataclass(frozen=True, slots=True)
class RecordedRules:
    """Names of the custom rules that judged the run live, and the file they came from (None: no file)."""

    names: tuple[str, ...] = ()
    file: str | None = None
    sha256: str | None = None


def recorded_rules(run: RecordedRun) -> RecordedRules:
    """Return the custom rules in run.json. Raises ``DamagedError`` when the entry is malformed."""
    stored = run.info.get("custom_rules")
    if stored is None:
        return RecordedRules()
    if isinstance(stored, Mapping):
        names, file, digest = stored.get("rules"), stored.get("file"), stored.get("sha256")
        texts = all(text is None or isinstance(text, str) for text in (file, digest))
        if texts and isinstance(names, list) and all(isinstance(name, str) for name in names):
            return RecordedRules(tuple(names), file, digest)
    raise DamagedError(f"{run.path}: custom_rules in run.json cannot be used: {stored!r:.80}")


def foreign_rules(run: RecordedRun) -> frozenset[str]:
    """Return the rule names under which an imported run has the alarms of its source's own detector."""
    names = run.info.get("foreign_rules")
    return frozenset(map(str, names)) if isinstance(names, list) else frozenset()


def stored_thresholds(run: RecordedRun, rules: Sequence[Rule] = RULES) -> Thresholds:
    """Return the thresholds that the run was recorded with, and defaults for ``rules`` newer than the run.

    Raises ``UsageError`` when custom rules that it was recorded with are not among ``rules``, ``DamagedError`` when
    the thresholds cannot be read.
    """
    missing = [name for name in recorded_rules(run).names if name not in {rule.name for rule in rules}]
    if missing:
        raise UsageError(f"{run.path} was recorded with custom rules: {', '.join(missing)}", hint=_advice(run))
    return _merged(run, run.info.get("thresholds", {}), rules)


def known_thresholds(run: RecordedRun) -> Thresholds:
    """Return the recorded thresholds of the built-in rules, ignoring custom rules.

    Raises ``DamagedError`` when they cannot be read.
    """
    stored, others = run.info.get("thresholds", {}), recorded_rules(run).names
    built_in = (
        {name: limits for name, limits in stored.items() if name not in others} if isinstance(stored, dict) else stored
    )
    return _merged(run, built_in, RULES)


def _merged(run: RecordedRun, stored: Any, rules: Sequence[Rule]) -> Thresholds:
    try:
        return Thresholds.defaults(rules).merged(stored, recorded=True)
    except ThresholdError as error:
        raise DamagedError(f"{run.path}: the thresholds in run.json cannot be used: {error}") from error


def _advice(run: RecordedRun) -> str:
    recorded = recorded_rules(run)
    if recorded.file is None:
        return "pass a file that defines them in a list RULES: --rules FILE (in Python rules=FILE)"
    digest = f", SHA-256 {recorded.sha256[:12]}…" if recorded.sha256 else ""
    return f"pass the file they came from: --rules {recorded.file}{digest} (in Python rules=)"


def other_file(run: RecordedRun, loaded: Iterable[CustomRules]) -> str | None:
    """Return a warning if the run's custom rules were loaded from another file than at recording, else None."""
    recorded = recorded_rules(run)
    files = [source for source in loaded if {rule.name for rule in source.rules} & set(recorded.names)]
    if recorded.sha256 is None or not files or any(source.sha256 == recorded.sha256 for source in files):
        return None
    current = files[0]
    recorded_name = "" if recorded.file is None else f" ({Path(recorded.file).name})"
    return (
        f"{current.file} is not the file that {run.path} was recorded with{recorded_name}: "
        f"SHA-256 was {recorded.sha256[:12]}…, is {str(current.sha256)[:12]}…; its rules may judge differently"
    )


def judged_live(run: RecordedRun, rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """Return those of ``rules`` that judged the run live; all of them if run.json does not say."""
    thresholds = run.info.get("thresholds")
    if not isinstance(thresholds, Mapping) or not thresholds:
        return tuple(rules)
    return tuple(rule for rule in rules if rule.name in thresholds)


def restated_since(info: Mapping[str, object], rules: Iterable[Rule]) -> dict[str, tuple[str, ...]]:
    """Return the ``rules`` whose revision has changed since the run of ``info``, and the fields that differ."""
    recorded = info.get("rule_revisions")
    revisions = recorded if isinstance(recorded, Mapping) else {}
    return {rule.name: rule.restated for rule in rules if revisions.get(rule.name, 1) != rule.revision}


def grown_since(run: RecordedRun) -> str | None:
    """Return a note if schema or rules have been extended since ``run`` was recorded, else None."""
    older, judging = run.older_schema, len(judged_live(run, RULES))
    if judging == len(RULES) and older is None:
        return None
    schema = "" if older is None else f"schema {older} and "
    return (
        f"{run.path} was recorded with {schema}{judging} of today's {len(RULES)} rules; rules may have changed since, "
        "so a difference is not damage"
    )
