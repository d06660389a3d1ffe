"""When to stop a training: verdicts that have lasted long enough, the same live and on recorded runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from esper_analyze.detector.findings import Finding, FindingKey
from esper_analyze.detector.verdict import BY_WORD, Verdict
from esper_analyze.errors import UsageError, did_you_mean

ANY = "any"
"""Stands for every rule."""
VERDICTS = ("warning", "critical")
_FORM = re.compile(r"\s*([a-z_0-9]+)\s*(?::\s*([a-z_]+)\s*)?(?:\bfor\s+([0-9]+)\s*)?", re.IGNORECASE)
_HINT = 'write RULE:VERDICT or RULE:VERDICT for N, such as "kl_spike:critical for 3"'


@dataclass(frozen=True, slots=True)
class StopCondition:
    """A rule, or ``ANY``, whose verdict on one subject is at least ``verdict`` for ``updates`` updates in a row.

    Updates that could not be judged neither end the row nor are left out of it.
    """

    rule: str
    verdict: str
    updates: int

    def __str__(self) -> str:
        lasts = f" for {self.updates}" if self.updates > 1 else ""
        return f"{self.rule}:{self.verdict}{lasts}"


@dataclass(frozen=True, slots=True)
class StopDecision:
    """That a training is to stop after ``update``: the condition met, and the rule and subject that met it."""

    update: int
    condition: StopCondition
    rule: str
    subject: str

    @property
    def reason(self) -> str:
        """The decision in words."""
        on = "" if self.subject == "run" else f" on {self.subject}"
        return f"{self.condition}: {self.rule}{on} at update {self.update}"


class StopPolicy:
    """Conditions, any of which stops a training; takes the findings of each update, in order."""

    def __init__(self, conditions: Sequence[StopCondition]) -> None:
        self.conditions = tuple(conditions)
        self.decision: StopDecision | None = None
        self._since: list[dict[FindingKey, int]] = [{} for _ in self.conditions]  # first update of the row, by key

    @classmethod
    def parsed(cls, policy: str | Iterable[str], rules: Iterable[str]) -> StopPolicy:
        """Return the policy of the conditions in ``policy``; ``rules`` are the names known.

        One text may hold several, separated by ";". Raises ``UsageError``.
        """
        texts = [policy] if isinstance(policy, str) else list(policy)
        names = tuple(rules)
        return cls([_condition(part, names) for text in texts for part in str(text).split(";") if part.strip()])

    def __str__(self) -> str:
        return "; ".join(map(str, self.conditions))

    def take(self, update: int, findings: Iterable[Finding]) -> StopDecision | None:
        """Take the findings of ``update``; return the decision if it is to stop, the same from then on."""
        for finding in findings:
            verdict = BY_WORD[finding.verdict]
            if verdict < Verdict.OK:  # not judged: the verdict before still stands
                continue
            for condition, since in zip(self.conditions, self._since, strict=True):
                if condition.rule in (ANY, finding.rule):
                    if verdict >= BY_WORD[condition.verdict]:
                        since.setdefault(finding.key, finding.update)
                    else:
                        since.pop(finding.key, None)
        if self.decision is None:
            self.decision = self._decided(update)
        return self.decision

    def _decided(self, update: int) -> StopDecision | None:
        for condition, since in zip(self.conditions, self._since, strict=True):
            for (rule, subject, _), start in since.items():
                if update - start + 1 >= condition.updates:
                    return StopDecision(update, condition, rule, subject)
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return what stands so far as plain data; a decision is not part of it."""
        return {"since": [[[*key, start] for key, start in since.items()] for since in self._since]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state; one of another policy is ignored."""
        if len(state["since"]) == len(self._since):
            self._since = [
                {(rule, subject, metric): start for rule, subject, metric, start in listed} for listed in state["since"]
            ]


def _condition(text: str, rules: Sequence[str]) -> StopCondition:
    match = _FORM.fullmatch(text)
    if match is None:
        raise UsageError(f"{text.strip()!r} is not a condition for stopping", hint=_HINT)
    rule, verdict, updates = match[1].lower(), (match[2] or VERDICTS[-1]).lower(), int(match[3] or 1)
    if rule != ANY and rule not in rules:
        raise UsageError(f"{text.strip()!r}: there is no rule {rule!r}{did_you_mean(rule, [ANY, *rules])}", hint=_HINT)
    if verdict not in VERDICTS:
        raise UsageError(f"{text.strip()!r}: {verdict!r} is not warning or critical", hint=_HINT)
    if updates < 1:
        raise UsageError(f"{text.strip()!r}: for how many updates? At least 1", hint=_HINT)
    return StopCondition(rule, verdict, updates)
