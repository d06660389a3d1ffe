"""The rules a run was recorded with: the built-in ones, and a user's own that are not in this program."""

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
    """Return what run.json says of custom rules. Raises ``DamagedError`` when that makes no sense."""
    said = run.info.get("custom_rules")
    if said is None:
        return RecordedRules()
    if isinstance(said, Mapping):
        names, file, digest = said.get("rules"), said.get("file"), said.get("sha256")
        texts = all(one is None or isinstance(one, str) for one in (file, digest))
        if texts and isinstance(names, list) and all(isinstance(name, str) for name in names):
            return RecordedRules(tuple(names), file, digest)
    raise DamagedError(f"{run.path}: custom_rules in run.json cannot be used: {said!r:.80}")


def foreign_rules(run: RecordedRun) -> frozenset[str]:
    """Return the names under which an imported run holds the alarms of its source's own detector."""
    said = run.info.get("foreign_rules")
    return frozenset(map(str, said)) if isinstance(said, list) else frozenset()


def stored_thresholds(run: RecordedRun, rules: Sequence[Rule] = RULES) -> Thresholds:
    """Return the thresholds the run was recorded with, and defaults of those ``rules`` it did not know.

    Raises ``UsageError`` when custom rules it was recorded with are not among ``rules``, ``DamagedError`` when the
    thresholds cannot be read.
    """
    missing = [name for name in recorded_rules(run).names if name not in {rule.name for rule in rules}]
    if missing:
        raise UsageError(f"{run.path} was recorded with rules of its own: {', '.join(missing)}", hint=_advice(run))
    return _merged(run, run.info.get("thresholds", {}), rules)


def known_thresholds(run: RecordedRun) -> Thresholds:
    """Return the thresholds of the program's own rules that the run was recorded with, whatever other rules it had.

    Raises ``DamagedError`` when they cannot be read.
    """
    stored, others = run.info.get("thresholds", {}), recorded_rules(run).names
    own = (
        {name: limits for name, limits in stored.items() if name not in others} if isinstance(stored, dict) else stored
    )
    return _merged(run, own, RULES)


def _merged(run: RecordedRun, stored: Any, rules: Sequence[Rule]) -> Thresholds:
    try:
        return Thresholds.defaults(rules).merged(stored)
    except ThresholdError as error:
        raise DamagedError(f"{run.path}: the thresholds in run.json cannot be used: {error}") from error


def _advice(run: RecordedRun) -> str:
    recorded = recorded_rules(run)
    if recorded.file is None:
        return "pass a file that defines them in a list RULES: --rules FILE (in Python rules=FILE)"
    digest = f", SHA-256 {recorded.sha256[:12]}…" if recorded.sha256 else ""
    return f"pass the file they came from: --rules {recorded.file}{digest} (in Python rules=)"


def other_file(run: RecordedRun, given: Iterable[CustomRules]) -> str | None:
    """Return a sentence when the run's custom rules come from another file than it was recorded with, else None."""
    recorded = recorded_rules(run)
    files = [one for one in given if {rule.name for rule in one.rules} & set(recorded.names)]
    if recorded.sha256 is None or not files or any(one.sha256 == recorded.sha256 for one in files):
        return None
    now = files[0]
    was = "" if recorded.file is None else f" ({Path(recorded.file).name})"
    return (
        f"{now.file} is not the file that {run.path} was recorded with{was}: SHA-256 was {recorded.sha256[:12]}…, "
        f"is {str(now.sha256)[:12]}…; its rules may judge differently"
    )


def judged_live(run: RecordedRun, rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """Return those of ``rules`` that judged the run live; all of them where run.json does not say."""
    thresholds = run.info.get("thresholds")
    if not isinstance(thresholds, Mapping) or not thresholds:
        return tuple(rules)
    return tuple(rule for rule in rules if rule.name in thresholds)


def restated_since(info: Mapping[str, object], rules: Iterable[Rule]) -> dict[str, tuple[str, ...]]:
    """Return those ``rules`` whose findings held other numbers when the run of ``info`` was recorded, and which."""
    recorded = info.get("rule_revisions")
    known = recorded if isinstance(recorded, Mapping) else {}
    return {rule.name: rule.restated for rule in rules if known.get(rule.name, 1) != rule.revision}


def grown_since(run: RecordedRun) -> str | None:
    """Return a sentence when the schema or the rules have grown since ``run`` was recorded, else None."""
    older, known = run.older_schema, len(judged_live(run, RULES))
    if known == len(RULES) and older is None:
        return None
    schema = "" if older is None else f"schema {older} and "
    return (
        f"{run.path} was recorded with {schema}{known} of today's {len(RULES)} rules; they may judge otherwise since, "
        "so a difference is no damage"
    )
