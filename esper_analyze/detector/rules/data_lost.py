"""Rule ``data_lost``: the recorder lost rows."""

from __future__ import annotations

from dataclasses import dataclass

from esper_analyze.detector.deferral_guards import LASTING, DeferralGuard
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.verdict import Bounds, Judgement, settle


@dataclass(frozen=True, slots=True)
class DataLostLimits(Limits):
    """No bounds: any loss is reported."""

    escalate: int = limit(0, "more detail would lose more")


def judge(frame: Frame, memory: Memory, limits: DataLostLimits) -> list[Judgement]:  # noqa: ARG001
    """Judge the rows lost since the update before."""
    lost = frame["dropped_rows"]
    return [settle(lost.name, lost, Bounds(warning=lost.values > 0, warning_at=0.0))]


def guard(frame: Frame, memory: Memory, limits: DataLostLimits) -> DeferralGuard:  # noqa: ARG001
    """Defer while the number of lost rows stays at 0, or above 0."""
    return DeferralGuard(LASTING, {"dropped_rows": (0.0,)})


RULE = Rule(
    name="data_lost",
    table="updates",
    figures=("run",),
    columns=("dropped_rows",),
    limits=DataLostLimits,
    judge=judge,
    guard=guard,
    title="Recorded rows were lost",
    meaning="Rows could not be written since the update before: the queue was full, or the disk refused. What is "
    "missing is counted in losses_of_data; the training itself was not touched.",
    look_first="losses_of_data of that update, free space and speed of the disk.",
    reference="The run format counts lost rows exactly",
    examples=(
        Example("nothing lost", "ok", {"dropped_rows": 0}),
        Example("rows lost", "warning", {"dropped_rows": 12}),
        Example("not recorded", "no_data", {"dropped_rows": None}),
    ),
)
