"""The state of a head in one sign, the same on page and terminal: ▲ ▼ ○ ◇ ◐ ●."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.reports.words import many, number

if TYPE_CHECKING:
    from esper_analyze.detector.incidents import Incident
    from esper_analyze.reports.heads import HeadFrame

_ALL = 0.999
"""A learnable fraction below this is a head that is masked at some steps."""


@dataclass(frozen=True, slots=True)
class State:
    """A sign with its word, the verdict whose colour it has, and what it means here."""

    sign: str
    word: str
    verdict: str
    because: str

    def __str__(self) -> str:
        """Return sign and word."""
        return f"{self.sign} {self.word}"


SIGNS = (
    ("▲", "exploding", "critical", "its gradient is NaN, infinite, or far above its own past"),
    ("▼", "vanishing", "warning", "its gradient has all but gone"),
    ("○", "dead", "critical", "its gradient is zero or missing, and nothing explains it"),
    ("◇", "deterministic", "", "it always takes the same action: collapsed, or the masks leave no choice"),
    ("◐", "partly masked", "ok", "it learns at the steps where the masks leave it a choice"),
    ("●", "ok", "ok", "it learns"),
)
"""Sign, word, verdict (empty: that of what made it so) and meaning, the worst first."""


def state_of(head: HeadFrame) -> State:
    """Return how ``head`` stands at the end of the run; what was wrong on the way is told by its sentence."""
    for found in (_broken(head), _open(head), _expected(head)):
        if found is not None:
            return found
    share = head.learnable.last
    if head.zero_explained is None and head.grad_norm.last is None:
        return State("–", "not measured", "no_data", "no gradient was measured")
    if share is not None and np.isfinite(share) and share < _ALL:
        return State("◐", "partly masked", "ok", f"a choice at {100 * share:.0f} % of the steps")
    return State("●", "ok", "ok", "learning")


def _broken(head: HeadFrame) -> State | None:
    if head.grad_state == "nonfinite" or _last_broken(head):
        return State("▲", "exploding", "critical", "its gradient is NaN or infinite")
    if head.zero_explained == "unexplained":
        what = "missing" if head.grad_state == "missing" else "zero"
        return State("○", "dead", "critical", f"its gradient is {what}, and nothing explains it")
    return None


def _last_broken(head: HeadFrame) -> bool:
    last = head.grad_norm.last
    return last is not None and not np.isfinite(last)


def _open(head: HeadFrame) -> State | None:
    standing = {incident.rule: incident for incident in head.incidents if incident.ended == "open"}
    if "gradient_explosion" in standing:
        return State("▲", "exploding", "critical", _since(standing["gradient_explosion"]))
    collapse = standing.get("head_entropy_collapse")
    if collapse is not None:
        return State("◇", "deterministic", collapse.peak_verdict, f"entropy collapsed, {_since(collapse)}")
    if "gradient_vanishing" in standing:
        return State("▼", "vanishing", "warning", _since(standing["gradient_vanishing"]))
    if "gradient_missing" in standing:
        return State("○", "dead", "critical", _since(standing["gradient_missing"]))
    return None


def _since(incident: Incident) -> str:
    return f"since update {incident.start:,}"


def _expected(head: HeadFrame) -> State | None:
    if head.zero_explained == "frozen":
        return State("○", "frozen", "not_applicable", "nothing of it is trainable")
    if head.zero_explained == "irrelevant":
        return State("◇", "irrelevant", "not_applicable", "never mattered for the action taken")
    if head.zero_explained == "masked" or head.learnable.last == 0:
        return State("◇", "deterministic", "not_applicable", "the masks leave it no choice")
    return None


def zeros_told(head: HeadFrame) -> str:
    """Say of every zero or missing gradient why it was, most often first."""
    if not head.zeros:
        return "never zero" if head.grad_norm.finite.any() else "–"
    named = {"masked": "masked, expected", "irrelevant": "irrelevant, expected", "frozen": "frozen, expected"}
    told = [f"{many(count, 'update')} {named.get(word, word)}" for word, count in head.zeros.items()]
    return "; ".join(told)


def brief(value: float | None, *, share: bool = False) -> str:
    """Return a cell's number: a share in percent."""
    if value is not None and share and np.isfinite(value):
        return f"{100 * value:.0f} %"
    return number(value)
