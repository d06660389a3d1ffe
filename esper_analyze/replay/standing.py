"""The overall verdict of a run, which every page, list and command shows.

The first that fits: the training died of an exception, a fatal signal or a lack of memory, or an incident was critical:
**critical**. An incident was a warning, the training was killed, or it has stalled: **warning**. Some applicable rule
could not judge a single update: **no_data** ("partly judged", "not judged"). The user or the scheduler stopped it:
**info**. Else **ok**.

Applicable are all rules except those that were mostly not applicable, and those over tables that only some trainings
have (``OPTIONAL``) where the run has none.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from esper_analyze.detector.rules import RULES
from esper_analyze.replay.recorded_rules import known_thresholds
from esper_analyze.replay.replay import replay
from esper_analyze.runs.ending import TrainingEnd, end_of_run
from esper_analyze.runs.log_source import is_log
from esper_analyze.schema.history import was_added_after
from esper_analyze.schema.tables import BY_NAME
from esper_analyze.storage.attempt_end import End
from esper_analyze.wording import many

if TYPE_CHECKING:
    from esper_analyze.detector.rule import Rule
    from esper_analyze.replay.replay import Replay
    from esper_analyze.runs.run import RecordedRun

OPTIONAL = ("lstm", "slots", "ranks")
"""Tables of recurrent, growing and distributed trainings only."""
_MISSING = " is missing"
_MOST_CAUSES = 3
_OF_END = {
    End.DIED: "critical",
    End.OUT_OF_MEMORY: "critical",
    End.FATAL_SIGNAL: "critical",
    End.UNCLOSED: "warning",
    End.STOPPED: "info",
    End.PREEMPTED: "info",
}
_JUDGED = ("ok", "info", "warning", "critical")


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many of the applicable rules could judge at least one update, and why the others could not."""

    judged: int
    applicable: int
    lacking: Mapping[str, str]
    """Rule that could not judge → the reason."""
    why: str
    """The reasons in one sentence; empty when every rule could judge."""

    @property
    def words(self) -> str:
        """Return "n of m rules could judge", with the reasons."""
        counted = f"{self.judged} of {self.applicable} rules could judge"
        return f"{counted}: {self.why}" if self.why else counted


@dataclass(frozen=True, slots=True)
class Standing:
    """The overall verdict (ok, info, no_data, warning, critical), its label, and the facts behind it."""

    verdict: str
    label: str
    end: TrainingEnd
    coverage: Coverage


def standing(end: TrainingEnd, worst: str | None, coverage: Coverage) -> Standing:
    """Return the overall verdict of a run that ended as ``end``; ``worst``: the worst verdict of its incidents."""
    partly = "partly judged" if coverage.judged else "not judged"
    ended = verdict_of_end(end)
    if worst == "critical":
        verdict, label = worst, worst
    elif ended == "critical":
        verdict, label = ended, "died"
    elif worst == "warning":
        verdict, label = worst, worst
    elif ended == "warning":
        verdict, label = ended, "not closed" if end.stalled_s is None else "stalled"
    elif end.update is None:
        verdict, label = "no_data", "not judged"
    elif coverage.lacking:
        verdict, label = "no_data", partly
    else:
        verdict, label = ended, "stopped" if ended == "info" else ended
    return Standing(verdict, label, end, coverage)


def verdict_of_end(end: TrainingEnd) -> str:
    """Return the verdict of a training's end alone.

    An error, a fatal signal and a lack of memory are critical, a kill and a stall a warning, a stop information.
    """
    return "warning" if end.stalled_s is not None else _OF_END.get(end.end, "ok")


def of_replay(run: RecordedRun, replay: Replay) -> Standing:
    """Return the overall verdict of ``run`` from a replay of it."""
    verdicts = {incident.peak_verdict for incident in replay.incidents}
    worst = next((word for word in ("critical", "warning") if word in verdicts), None)
    return standing(end_of_run(run), worst, replay_coverage(run, replay))


def replay_coverage(run: RecordedRun, replay: Replay) -> Coverage:
    """Return which rules judged at least one update in a replay.

    A rule that needs a column which no recorder had when the run was recorded does not count, nor does an optional one.
    """
    by_name = {rule.name: rule for rule in replay.rules}
    lacking = {
        name: reason
        for name, reason in without_data(replay).items()
        if not by_name[name].optional
        and (
            run.older_schema is None
            or (column := missing_column(by_name[name], reason)) is None
            or not was_added_after(run.older_schema, *column)
        )
    }
    lacking |= {
        rule.name: _no_rows(rule)
        for rule in replay.rules
        if not replay.verdict_counts.get(rule.name) and _expected(rule, run)
    }
    return _coverage(sum(_has_judged(replay, rule.name) for rule in replay.rules), lacking, replay.rules)


def without_data(replay: Replay) -> dict[str, str]:
    """Return the rules that judged nothing because data was missing, each with the reason.

    Data counts as missing if, for some subject, it was missing in more updates than the rule was not applicable in: a
    rule that needs forty updates and had thirty does not lack data because no episode finished in the first.
    """
    updates: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    reasons: dict[tuple[str, str, str], str] = {}
    for unjudged in replay.unjudged:
        subject = (unjudged.rule, unjudged.subject, unjudged.metric)
        updates[subject][unjudged.verdict] += unjudged.count
        if unjudged.verdict == "no_data":
            reasons.setdefault(subject, unjudged.reason)
    lacking: dict[str, str] = {}
    early = early_rules(replay)
    for subject, counts in updates.items():
        name = subject[0]
        if counts["no_data"] > counts["not_applicable"] and name not in early and not _has_judged(replay, name):
            lacking.setdefault(name, reasons[subject])
    return lacking


def early_rules(replay: Replay) -> set[str]:
    """Return the rules that judged nothing, but will judge some metric after more updates of the same kind.

    A metric that was missing in more updates than the rule was warming up in is missing, not early.
    """
    reasons = {rule.name: rule.warm_up.reason for rule in replay.rules if rule.warm_up is not None}
    excess: Counter[tuple[str, str, str]] = Counter()
    warming: set[tuple[str, str, str]] = set()
    for unjudged in replay.unjudged:
        subject = (unjudged.rule, unjudged.subject, unjudged.metric)
        if unjudged.verdict == "no_data":
            excess[subject] -= unjudged.count
        elif unjudged.reason == reasons.get(unjudged.rule):
            excess[subject] += unjudged.count
            warming.add(subject)
    return {subject[0] for subject in warming if excess[subject] >= 0 and not _has_judged(replay, subject[0])}


def too_early(run: RecordedRun, replay: Replay) -> dict[str, str]:
    """Return the rules that judged nothing because it was too early, each with what it needs."""
    early, planned = early_rules(replay), bool(run.info.get("total_updates") or run.info.get("total_env_steps"))
    needs, logged = dict[str, str](), is_log(run.info)
    for rule in replay.rules:
        if rule.name in early and rule.warm_up is not None:
            limits = replay.thresholds[rule.name]
            least = rule.warm_up.least(limits, planned=planned, logged=logged)
            more = " that it can judge" if replay.updates >= least else ""  # some say nothing to it
            needs[rule.name] = rule.warm_up.needs(limits, planned=planned, logged=logged) + more
    return needs


def _has_judged(replay: Replay, rule: str) -> bool:
    verdicts = replay.verdict_counts.get(rule, {})
    return any(verdicts.get(word) for word in _JUDGED)


def live_coverage(run: RecordedRun) -> Coverage:
    """Return which rules could judge, by the live findings; ``run`` is replayed only if data was missing.

    A rule without findings counts as judging. Only built-in rules are counted.
    """
    optional = {rule.name for rule in RULES if rule.optional}
    noted = run.frame("findings", ["rule", "verdict"])
    missing = set(noted.filter(noted["verdict"] == "no_data")["rule"]) - optional
    present = run.rows
    if missing or any(not present[rule.table] and _expected(rule, run) for rule in RULES):
        return replay_coverage(run, replay(run, known_thresholds(run)))
    judged = sum(bool(present[rule.table]) for rule in RULES)
    return Coverage(judged, judged, {}, "")


def _expected(rule: Rule, run: RecordedRun) -> bool:
    """Whether a run with updates must have rows in the rule's table."""
    return rule.table not in OPTIONAL and rule.table != "losses_of_data" and run.last_update is not None


def _no_rows(rule: Rule) -> str:
    return f"table {rule.table} has no rows"


def missing_column(rule: Rule, reason: str) -> tuple[str, str] | None:
    """Return the table and column that ``reason`` names as missing; None if it names none."""
    name = reason.removesuffix(_MISSING)
    table, _, column = name.rpartition(".")
    table = table or rule.table
    declared = reason.endswith(_MISSING) and table in BY_NAME and column in BY_NAME[table].names
    return (table, column) if declared else None


def _coverage(judged: int, lacking: Mapping[str, str], rules: Iterable[Rule]) -> Coverage:
    by_name = {rule.name: rule for rule in rules}
    return Coverage(judged, judged + len(lacking), dict(lacking), reasons_in_words(by_name, lacking))


def reasons_in_words(rules: Mapping[str, Rule], lacking: Mapping[str, str]) -> str:
    """Return the reasons why rules could not judge (rule → reason) as one sentence, the most frequent first."""
    causes = Counter(_cause(rules.get(name), reason) for name, reason in lacking.items())
    ordered = [cause for cause, _ in causes.most_common()]
    more = len(ordered) - _MOST_CAUSES
    return "; ".join(ordered[:_MOST_CAUSES]) + (f" (and {many(more, 'more reason')})" if more > 0 else "")


def _cause(rule: Rule | None, reason: str) -> str:
    """Return why a column is missing, as its declaration states; of several reasons the last, most general one."""
    if reason == "table groups has no rows":
        return "no gradients were recorded"
    source = None if rule is None else missing_column(rule, reason)
    empty = "" if source is None else BY_NAME[source[0]].column(source[1]).empty
    return reason if empty in ("", "not measured") else empty.rpartition("; or ")[2].removeprefix("undefined: ")
