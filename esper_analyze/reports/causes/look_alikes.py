"""The causes that can be behind the primary incident and look alike, with what this run's numbers say of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.reports.causes.cause import Cause, Checked, Likelihood, likely, not_recorded
from esper_analyze.reports.causes.cause_list import CAUSES
from esper_analyze.reports.causes.numbers import Numbers
from esper_analyze.reports.narrative.missing_calls import is_own_loop
from esper_analyze.terminal import cleaned

if TYPE_CHECKING:
    from esper_analyze.detector.incidents import Incident
    from esper_analyze.replay.evidence import Evidence

_LONGEST = 400
_PASS = "; pass "
"""Before the call that records what is missing: a loop of one's own makes it, an adapter does by itself."""
_ORDER = tuple(Likelihood)
NONFINITE_RULE = "numerical_instability"
"""Incidents that were merged because values are not finite have the causes of this rule, whichever reports them."""


@dataclass(frozen=True, slots=True)
class PossibleCause:
    """A cause, what the run says of it and by which numbers; ``record`` would record what is missing."""

    name: str
    sentence: str
    answer: Likelihood
    words: str
    record: str = ""

    @property
    def lower_sentence(self) -> str:
        """The sentence as it stands within another."""
        return f"{self.sentence[0].lower()}{self.sentence[1:]}"

    @property
    def line(self) -> str:
        """The cause and what is said of it in one sentence."""
        return f"{self.answer.capitalize()}: {self.lower_sentence}; {self.words}."


def look_alikes(evidence: Evidence, lead: Incident) -> tuple[PossibleCause, ...]:
    """Return the causes that incidents of the rule of ``lead`` can have, the likely ones first.

    Where every other one is ruled out, a possible one is likely.
    """
    rule = NONFINITE_RULE if lead.parts else lead.rule
    causes = [cause for cause in CAUSES if rule in cause.rules]
    if not causes:
        return ()
    numbers = Numbers(evidence, lead)
    with np.errstate(all="ignore"):
        found = [(cause, _checked(cause, numbers)) for cause in causes]
    left = [index for index, (_, finding) in enumerate(found) if finding.answer is not Likelihood.RULED_OUT]
    if len(left) == 1 and len(found) > 1 and found[left[0]][1].answer is Likelihood.POSSIBLE:
        cause, finding = found[left[0]]
        found[left[0]] = cause, likely(f"{finding.words}; all others are ruled out")
    own_loop = is_own_loop(evidence.run)
    found.sort(key=lambda pair: _ORDER.index(pair[1].answer))
    return tuple(
        PossibleCause(
            cause.name,
            cause.sentence,
            finding.answer,
            cleaned(finding.words if own_loop else finding.words.partition(_PASS)[0], _LONGEST),
            cause.record if finding.answer is Likelihood.NOT_RECORDED else "",
        )
        for cause, finding in found
    )


def _checked(cause: Cause, numbers: Numbers) -> Checked:
    missing = [name for name in cause.columns if not numbers.recorded(name)]
    return not_recorded(f"{', '.join(missing)}{_PASS}{cause.record}") if missing else cause.check(numbers)
