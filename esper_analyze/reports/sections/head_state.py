"""The state of a head over a whole run, in the signs that every view has: ▲ ▼ ○ ◇ ⊘ ◐ ●."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.detector.rule import Sign
from esper_analyze.reports.sections.signs import UNMEASURED, head_state
from esper_analyze.wording import many, number

if TYPE_CHECKING:
    from esper_analyze.reports.sections.head_frame import HeadFrame

SIGNS = (
    ("▲", "exploding", "critical", "its gradient is NaN, infinite, or far above its own past"),
    ("▼", "vanishing", "warning", "its gradient has all but gone"),
    ("○", "dead", "critical", "its gradient is zero or missing, and nothing explains it"),
    ("◇", "deterministic", "", "it always takes the same action: its entropy collapsed"),
    ("◇", "no choice", "", "the masks leave it one valid action"),
    ("⊘", "removed", "", "the model has none of its parameters any more"),
    ("◐", "partly masked", "ok", "it learns at the steps where the masks leave it a choice"),
    ("●", "ok", "ok", "it learns"),
)
"""Sign, word, verdict (empty: that of what made it so) and meaning, the worst first."""


def state_of(head: HeadFrame) -> Sign:
    """Return how ``head`` stands at the end of the run; what was wrong earlier is in its sentence."""
    if head.ended is not None and head.grad_state != "removed":
        return replace(UNMEASURED, because=head.ending)
    standing = {incident.rule: incident for incident in head.incidents if incident.lasting}
    last = {
        "grad_norm": head.last_norm,
        "learnable_fraction": head.learnable.last,
        "grad_state": head.grad_state,
        "zero_explained": head.zero_explained,
    }
    state = head_state(last, {rule: incident.peak_verdict for rule, incident in standing.items()})
    since = min((incident.start for incident in standing.values()), default=None)
    if head.ended is not None:
        return replace(state, because=head.ending)
    if state.verdict in ("warning", "critical") and since is not None:
        return replace(state, because=f"{state.because}, since update {since:,}")
    share = head.learnable.last
    if state.sign == "◐" and share is not None:
        return replace(state, because=f"a choice at {100 * share:.0f} % of the steps")
    return state


def zeros_explained(head: HeadFrame) -> str:
    """Say of every zero or missing gradient why it was, most often first."""
    if not head.zeros:
        return "never zero" if head.grad_norm.finite.any() else "–"
    named = {"masked": "masked, expected", "irrelevant": "irrelevant, expected", "frozen": "frozen, expected"}
    counts = [f"{many(count, 'update')} {named.get(word, word)}" for word, count in head.zeros.items()]
    return "; ".join(counts)


def brief(value: float | None, *, share: bool = False) -> str:
    """Return a cell's number: a share in percent."""
    if value is not None and share and np.isfinite(value):
        return f"{100 * value:.0f} %"
    return number(value)
