"""Findings: changes of verdict, each with what was seen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from esper_analyze.detector.signals import Ints
from esper_analyze.detector.verdict import BY_WORD, NONFINITE, WORDS, Judgement, Verdict, is_all_ok


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

    def as_row(self) -> dict[str, object]:
        """Return the finding as a row of the table ``findings``, without rank and seq."""
        return asdict(self)

    @property
    def alarm(self) -> bool:
        """Whether the finding is a warning or critical that is worse than what came before."""
        before = Verdict.ABSENT if self.previous is None else BY_WORD[self.previous]
        return BY_WORD[self.verdict] >= Verdict.WARNING and BY_WORD[self.verdict] > before

    def same_as(self, other: Finding) -> bool:
        """Whether both say the same of the same thing; numbers are compared bit by bit, NaN equals NaN."""
        mine, theirs = asdict(self), asdict(other)
        return all(_same(mine[name], theirs[name]) for name in mine)


def _same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    return one == other


_ABSENT, _OK = int(Verdict.ABSENT), int(Verdict.OK)


class Announcer:
    """Turns verdicts into findings for one rule and metric; remembers what was last said of each subject.

    Bounds (ok … critical) that stand are compared with the last ones that stood: a stretch that could not be judged
    does not clear an alarm. Each reason why something could not be judged is announced once per subject.
    """

    def __init__(self) -> None:
        self.said: dict[str, int] = {}
        self.told: dict[str, set[str]] = {}
        self._last: tuple[tuple[str, ...], bytes, bytes] | None = None
        """Reasons, verdicts and reasons by number of the last update."""

    def findings(
        self, rule: str, update: Ints, subjects: tuple[str, ...], judgement: Judgement
    ) -> list[tuple[int, int, Finding]]:
        """Return (position in the batch, position of the subject, finding) for every change."""
        found = []
        for i, k in self._moments(judgement):
            finding = self._announce(rule, int(update[i]), subjects[k], judgement, i, k)
            if finding is not None:
                found.append((i, k, finding))
        return found

    def _moments(self, judgement: Judgement) -> list[tuple[int, int]]:
        """Where verdict or reason is not that of the update before: only there does Python look at single cells."""
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
        previous = self.said.get(subject)
        reason = judgement.reasons[judgement.reason[i, k]]
        if code < _OK:
            told = self.told.setdefault(subject, set())
            if reason in told or int(judgement.reason[i, k]) in judgement.quiet:
                return None
            told.add(reason)
        else:
            self.said[subject] = code
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
        """Return what was said as plain data."""
        return {"said": dict(self.said), "told": {name: sorted(told) for name, told in self.told.items()}}

    def load_state_dict(self, state: Mapping[str, Mapping[str, object]]) -> None:
        """Take up the state that ``state_dict`` gave."""
        self._last = None
        self.said = {str(name): int(str(code)) for name, code in state["said"].items()}
        self.told = {str(name): set(told) for name, told in state["told"].items()}  # type: ignore[call-overload]


def known_value(judgement: Judgement, i: int, k: int) -> float | None:
    """Return what was judged; None where the statistic is not known yet, NaN where NaN was measured."""
    value = float(judgement.value[i, k])
    unknown = math.isnan(value) and judgement.reasons[judgement.reason[i, k]] != NONFINITE
    return None if unknown else value


def _or_none(number: float) -> float | None:
    return None if math.isnan(number) else float(number)
