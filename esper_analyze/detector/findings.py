"""Findings: changes of verdict, each with value, threshold and baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from esper_analyze.detector.signals import Ints
from esper_analyze.detector.verdict import BY_WORD, NONFINITE, WORDS, Judgement, Verdict, is_all_ok

FindingKey = tuple[str, str, str]
"""Rule, subject and metric."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One change of verdict of one rule on one metric of one subject.

    ``value`` is the statistic that was compared with ``threshold`` (``Rule.statistic`` names it): None where the
    metric was missing, did not apply, or is not known yet, NaN where it was measured as NaN.
    """

    update: int
    rule: str
    subject: str
    metric: str
    verdict: str
    previous: str | None
    value: float | None
    threshold: float | None
    baseline: float | None
    reason: str | None

    @property
    def key(self) -> FindingKey:
        """Rule, subject and metric."""
        return self.rule, self.subject, self.metric

    def as_row(self) -> dict[str, object]:
        """Return the finding as a row of the table ``findings``, without rank and seq."""
        return asdict(self)

    @property
    def alarm(self) -> bool:
        """Whether the finding is a warning or critical that is worse than what came before."""
        before = Verdict.ABSENT if self.previous is None else BY_WORD[self.previous]
        return BY_WORD[self.verdict] >= Verdict.WARNING and BY_WORD[self.verdict] > before

    def same_as(self, other: Finding) -> bool:
        """Whether all fields are equal; NaN equals NaN."""
        mine, theirs = asdict(self), asdict(other)
        return all(_same(mine[name], theirs[name]) for name in mine)


def in_effect(findings: Sequence[Finding], first: int, last: int) -> list[Finding]:
    """Return the findings, of ``findings`` in order, that hold at some update from ``first`` to ``last``.

    A verdict holds until the next one on the same key. What could not be judged holds in its update, and ends none.
    """
    next_judged: dict[FindingKey, float] = {}
    holding = []
    for finding in reversed(findings):
        judged = BY_WORD[finding.verdict] >= Verdict.OK
        until = next_judged.get(finding.key, math.inf) if judged else finding.update + 1
        if finding.update <= last and until > first:
            holding.append(finding)
        if judged:
            next_judged[finding.key] = finding.update
    return holding[::-1]


def _same(first: object, second: object) -> bool:
    if isinstance(first, float) and isinstance(second, float):
        return first == second or (math.isnan(first) and math.isnan(second))
    return first == second


_ABSENT, _OK = int(Verdict.ABSENT), int(Verdict.OK)


class Announcer:
    """Turns verdicts into findings for one rule and metric; remembers the last verdict on each subject.

    Verdicts by bounds (ok … critical), after hysteresis, are compared with the last such verdict: updates that could
    not be judged do not clear an alarm. Each reason why something could not be judged is announced once per subject.
    """

    def __init__(self) -> None:
        self.last_verdict: dict[str, int] = {}
        self.announced: dict[str, set[str]] = {}
        self._last: tuple[tuple[str, ...], bytes, bytes] | None = None
        """Reasons, verdicts and reasons by number of the last update."""

    def findings(
        self, rule: str, update: Ints, subjects: tuple[str, ...], judgement: Judgement
    ) -> list[tuple[int, int, Finding]]:
        """Return (position in the batch, position of the subject, finding) for every change."""
        numbered = []
        for i, k in self._moments(judgement):
            finding = self._announce(rule, int(update[i]), subjects[k], judgement, i, k)
            if finding is not None:
                numbered.append((i, k, finding))
        return numbered

    def _moments(self, judgement: Judgement) -> list[tuple[int, int]]:
        """Return where verdict or reason differs from the update before: only these cells are handled in Python."""
        code, reason, reasons = judgement.standing, judgement.reason, judgement.reasons
        if not len(code):
            return []
        before, self._last = self._last, (reasons, code[-1].tobytes(), reason[-1].tobytes())
        first = (reasons, code[0].tobytes(), reason[0].tobytes()) if len(code) > 1 else self._last
        moments = [] if first == before else [(0, k) for k in range(code.shape[1])]
        if len(code) == 1 or is_all_ok(code):
            return moments
        state = code.astype(np.int16) * 128 + reason
        for quiet in judgement.quiet:
            state[reason == quiet] = 0
        rows, subjects = np.nonzero(state[1:] != state[:-1])
        return moments + list(zip((rows + 1).tolist(), subjects.tolist(), strict=True))

    def _announce(self, rule: str, update: int, subject: str, judgement: Judgement, i: int, k: int) -> Finding | None:
        code = int(judgement.standing[i, k])
        if code == _ABSENT:
            return None
        previous = self.last_verdict.get(subject)
        reason = judgement.reasons[judgement.reason[i, k]]
        if code < _OK:
            announced = self.announced.setdefault(subject, set())
            if reason in announced or int(judgement.reason[i, k]) in judgement.quiet:
                return None
            announced.add(reason)
        else:
            self.last_verdict[subject] = code
            if code == (_OK if previous is None else previous):
                return None
        return Finding(
            update,
            rule,
            subject,
            judgement.metric,
            WORDS[code],
            None if previous is None else WORDS[previous],
            known_value(judgement, i, k) if code >= _OK else None,
            _or_none(judgement.threshold[i, k]),
            _or_none(judgement.baseline[i, k]),
            reason or None,
        )

    def state_dict(self) -> dict[str, object]:
        """Return the last verdicts and announced reasons as plain data."""
        return {
            "said": dict(self.last_verdict),
            "told": {name: sorted(announced) for name, announced in self.announced.items()},
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, object]]) -> None:
        """Restore the state from ``state_dict``."""
        self._last = None
        self.last_verdict = {str(name): int(str(code)) for name, code in state["said"].items()}
        self.announced = {str(name): set(reasons) for name, reasons in state["told"].items()}  # type: ignore[call-overload]


def known_value(judgement: Judgement, i: int, k: int) -> float | None:
    """Return the value judged; None if the statistic is not known yet, NaN if NaN was measured."""
    value = float(judgement.value[i, k])
    unknown = math.isnan(value) and judgement.reasons[judgement.reason[i, k]] != NONFINITE
    return None if unknown else value


def _or_none(number: float) -> float | None:
    return None if math.isnan(number) else float(number)
