"""What a report is computed from: the run, its replay, and the baselines that the drift rule used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from esper_analyze.detector.detector import Outcome
from esper_analyze.detector.incidents import Incident
from esper_analyze.detector.rule import Rule
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.signals import RUN
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.detector.verdict import Verdict
from esper_analyze.replay.replay import Replay, merged_run, replay
from esper_analyze.runs.excerpt import excerpt
from esper_analyze.runs.moments import Moments, moments_of
from esper_analyze.runs.run import RecordedRun
from esper_analyze.runs.series import Series, rows_of
from esper_analyze.schema import BY_NAME, Kind
from esper_analyze.terminal import cleaned

_WATCHED = "gradient_drift"
_WORDS = (Kind.TEXT, Kind.CHOICE)


@dataclass(frozen=True, slots=True)
class DriftTrace:
    """One metric of one subject over updates: the value that the drift rule judged, and its baseline."""

    value: Series
    baseline: Series

    def between(self, first: int, last: int) -> DriftTrace:
        """Return the updates from ``first`` to ``last`` alone."""
        return DriftTrace(self.value.between(first, last), self.baseline.between(first, last))


@dataclass(frozen=True, slots=True)
class Evidence:
    """A run and its replay. ``drift`` maps metric → subject → the drift rule's values and baselines.

    ``texts`` maps rule → (subject, update) → the recorded text, for rules that judge a text column. ``moments``: how
    far the training was at an update. ``excerpt_of``: what this is some updates of, see ``between``.
    """

    run: RecordedRun
    replay: Replay
    drift: Mapping[str, Mapping[str, DriftTrace]]
    texts: Mapping[str, Mapping[tuple[str, int], str]]
    moments: Moments
    excerpt_of: Excerpted | None = None

    def between(self, first: int, last: int) -> Evidence:
        """Return what the run has of updates ``first`` to ``last``: rows of these alone, judged over the whole run.

        Findings are those in effect then, incidents those open then, whole as they are.
        """
        run = excerpt(self.run, first, last)
        drift = {
            metric: {name: trace for name, of in traces.items() if len((trace := of.between(first, last)).value.update)}
            for metric, traces in self.drift.items()
        }
        updates = len(run.frame("updates", ["update"]))
        judged = self.replay.between(first, last, updates)
        return replace(self, run=run, replay=judged, drift=drift, excerpt_of=Excerpted(first, last, self))

    @property
    def rules(self) -> dict[str, Rule]:
        """The rules that judged, by name."""
        return {rule.name: rule for rule in self.replay.rules}

    def title(self, rule: str) -> str:
        """Return a rule's title."""
        return cleaned(self.rules[rule].title)

    def bound(self, rule: str, name: str) -> float | None:
        """Return one threshold of the replay; None without such a rule or field."""
        limits = self.replay.thresholds.by_rule.get(rule)
        value = getattr(limits, name, None)
        return float(value) if isinstance(value, (int, float)) else None

    def cell_text(self, incident: Incident) -> str | None:
        """Return the recorded text at the incident's peak if its metric is a text column, else None."""
        if not _is_word(self.replay, incident):
            return None
        return self.texts.get(incident.rule, {}).get((incident.subject, incident.peak_update))

    def bounds(self, rule: str) -> tuple[float | None, float | None]:
        """Return the warning and critical bound of ``rule``."""
        return self.bound(rule, "warning"), self.bound(rule, "critical")


@dataclass(frozen=True, slots=True)
class Excerpted:
    """The updates of an excerpt, and the whole that it was taken from."""

    first: int
    last: int
    whole: Evidence


def gather(
    run: RecordedRun,
    thresholds: Thresholds | None = None,
    *,
    rules: Sequence[Rule] = RULES,
    progress: Callable[[int], None] | None = None,
) -> Evidence:
    """Replay ``run`` once (thresholds default to the recorded ones) and collect what reports need."""
    watch, run = _DriftWatch(), merged_run(run)
    result = replay(run, thresholds, rules=rules, progress=progress, observe=watch.take)
    return Evidence(run, result, watch.traces(), texts_of(run, result), moments_of(run))


def texts_of(run: RecordedRun, result: Replay) -> dict[str, dict[tuple[str, int], str]]:
    """Read the text columns behind incidents: rule → (subject, update) → text."""
    texts = {}
    rules = {rule.name: rule for rule in result.rules}
    for name in {incident.rule for incident in result.incidents if _is_word(result, incident)}:
        table = BY_NAME[rules[name].table]
        words = [column for column in rules[name].columns if table.column(column).kind in _WORDS]
        rows = rows_of(run, table.name, words)
        subjects = rows[table.subject].to_list() if table.subject else [RUN] * rows.height
        cells = [", ".join(cell for cell in row if cell) for row in rows.select(words).iter_rows()]
        keys = zip(subjects, rows["update"].to_list(), strict=True)
        texts[name] = {key: cell for key, cell in zip(keys, cells, strict=True) if cell}
    return texts


def _is_word(result: Replay, incident: Incident) -> bool:
    table = BY_NAME[next(rule.table for rule in result.rules if rule.name == incident.rule)]
    return incident.metric in table.names and table.column(incident.metric).kind in _WORDS


@dataclass(slots=True)
class _DriftWatch:
    """Collects the drift rule's judgements batch by batch; float32 is enough for a drawing."""

    parts: dict[tuple[str, str], list[tuple[np.ndarray, ...]]] = field(default_factory=dict)

    def take(self, outcome: Outcome) -> None:
        for judged in outcome.judged:
            if judged.rule.name != _WATCHED:
                continue
            for judgement in judged.judgements:
                for k, subject in enumerate(judged.subjects):
                    silent = judgement.code[:, k] < Verdict.OK
                    part = (outcome.update, _small(judgement.value[:, k]), _small(judgement.baseline[:, k]), silent)
                    self.parts.setdefault((judgement.metric, subject), []).append(part)

    def traces(self) -> dict[str, dict[str, DriftTrace]]:
        traces: dict[str, dict[str, DriftTrace]] = {}
        for (metric, subject), parts in self.parts.items():
            update, value, baseline, silent = (np.concatenate(column) for column in zip(*parts, strict=True))
            judged = DriftTrace(Series(update, value, silent), Series(update, baseline, np.isnan(baseline)))
            traces.setdefault(metric, {})[subject] = judged
        return traces


def _small(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return values.astype(np.float32)
