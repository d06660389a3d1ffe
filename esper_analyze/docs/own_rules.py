"""A rule of one's own: for ``esper-analyze replay RUN --rules`` and ``Recorder(..., rules=...)``."""

from __future__ import annotations

from dataclasses import dataclass

from esper_analyze.detector.rule import Example, Limits, Memory, Rule, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.streaks import streak, zeros
from esper_analyze.detector.verdict import Bounds, Judgement, settle


@dataclass(frozen=True, slots=True)
class WideRatioLimits(Limits):
    """Bounds on ``updates.ratio_std``."""

    warning: float = limit(0.5, "own runs: sound ones stay below 0.3")
    updates: int = limit(2, "own runs: one wide update comes back by itself", at_least=1)


def judge(frame: Frame, memory: Memory, limits: WideRatioLimits) -> list[Judgement]:
    """Judge the spread of ratios."""
    spread = frame["ratio_std"]
    wide = spread.finite & (spread.values > limits.warning)
    lasting = streak(wide, spread.finite & ~wide, memory["wide"]) >= limits.updates
    return [settle("ratio_std", spread, Bounds(warning=lasting, warning_at=limits.warning))]


RULES = [
    Rule(
        name="wide_ratio",
        table="updates",
        columns=("ratio_std",),
        limits=WideRatioLimits,
        judge=judge,
        title="Ratios spread widely",
        meaning="The policy moves far on many samples at once.",
        look_first="Learning rate and number of epochs.",
        reference="own runs",
        examples=(
            Example("a sound update", "ok", {"ratio_std": 0.1}),
            Example("wide once", "ok", {"ratio_std": [0.1, 0.9]}, updates=2),
            Example("wide twice", "warning", {"ratio_std": [0.9, 0.9]}, updates=2),
            Example("not recorded", "no_data", {"ratio_std": None}),
        ),
        memory={"wide": zeros},
        causes=("kl_spike",),
        confirmed_by="updates",
    )
]
