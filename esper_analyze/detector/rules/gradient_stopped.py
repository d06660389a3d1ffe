"""Rule ``gradient_stopped``: a group of parameters had a gradient, or moved, and now it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.deferral_guards import LASTING, DeferralGuard, Side, same, until
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Statistic, limit
from esper_analyze.detector.signals import Bools, Frame
from esper_analyze.detector.streaks import nothing_yet, previous, streak, tally, zeros
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle
from esper_analyze.schema.constants import HEAD_GROUP

RATIO = "update_ratio"


@dataclass(frozen=True, slots=True)
class GradientStoppedLimits(Limits):
    """How long a group is as it was before what changed is news: it has a gradient or not, it moves or not."""

    steady: int = limit(10, "updates with as many tensors without gradient before more are news", at_least=1)
    still: int = limit(
        2, "measured updates in which it did not move: an optimizer may pause (set by design)", at_least=1
    )


def judge(frame: Frame, memory: Memory, limits: GradientStoppedLimits) -> list[Judgement]:
    """Judge how many tensors have no gradient, and whether the group moves; see the rule's meaning."""
    without, tensors = frame["tensors_without_grad"], frame["tensors"]
    counted = without.finite & tensors.finite & (tensors.values > 0)
    none = counted & (without.values >= tensors.values)
    had = tally(counted & ~none, memory["had"]) > 0
    heads = np.array([name.startswith(HEAD_GROUP) for name in frame.subjects], bool)
    bounds = Bounds(
        info=none,
        warning=_more(frame, counted, heads, memory, limits),
        critical=none & had,
        critical_at=tensors.values,
    )
    by_head = Excuse(frame.present & heads, "a head: judged by gradient_missing", quiet=True)
    return [
        settle(without.name, without, bounds, excuses=[by_head], needs=[tensors]),
        _still(frame, memory, limits),
    ]


def _more(frame: Frame, counted: Bools, heads: Bools, memory: Memory, limits: GradientStoppedLimits) -> Bools:
    """Return where more tensors have no gradient than were ever steadily without one, those of heads left out."""
    count = np.where(counted, frame["tensors_without_grad"].values, np.nan)
    equal = counted & (count == previous(count, counted, memory["last"]))
    steady = streak(equal, counted & ~equal, memory["equal"]) >= limits.steady
    line = np.concatenate([memory["least"][None], np.where(steady, count, np.nan)])
    least = np.fmin.accumulate(line, axis=0)
    memory["least"] = least[-1].copy()
    more = np.nan_to_num(np.maximum(count - least[1:], 0.0))
    of_heads = np.where(heads, more, 0.0).sum(axis=1, keepdims=True)
    rose: Bools = more > of_heads
    return rose


def _still(frame: Frame, memory: Memory, limits: GradientStoppedLimits) -> Judgement:
    """Judge groups that have a gradient and moved before, and do not while others do."""
    ratio, norm = frame[RATIO], frame["grad_norm"]
    moves = ratio.finite & (ratio.values > 0.0)
    still = ratio.equals(0.0) & (norm.values > 0.0) & moves.any(axis=1, keepdims=True)
    long = streak(still, ratio.finite & ~still, memory["still"]) >= limits.still
    bounds = Bounds(warning=long & (tally(moves, memory["moved"]) > 0), warning_at=0.0)
    excuses = [
        Excuse(ratio.nonfinite, "non-finite: judged by numerical_instability", quiet=True),
        Excuse(ratio.null & frame.present, "not measured in this update", quiet=True),
    ]
    return settle(RATIO, ratio, bounds, excuses=excuses)


def guard(frame: Frame, memory: Memory, limits: GradientStoppedLimits) -> DeferralGuard | None:
    """Defer while as many tensors are without gradient as now, and the same groups move."""
    if np.count_nonzero(frame[RATIO].nonfinite):
        return None
    sides: dict[str, Sequence[Side] | None] = {name: same(frame[name]) for name in ("tensors_without_grad", "tensors")}
    lasting = min(LASTING, until(memory["still"], limits.still))
    return DeferralGuard(lasting, {**sides, RATIO: (0.0,), "grad_norm": (0.0,)})


def _cells(*without: int | None, tensors: int | None = 4) -> dict[str, object]:
    return {"tensors_without_grad": list(without), "tensors": tensors, "grad_norm": 1.0, RATIO: 0.01}


RULE = Rule(
    name="gradient_stopped",
    table="groups",
    figures=("layers", "drift"),
    columns=("tensors_without_grad", "tensors", RATIO, "grad_norm"),
    context=(RATIO, "grad_norm"),
    limits=GradientStoppedLimits,
    judge=judge,
    guard=guard,
    title="A group gets no gradient any more",
    meaning="Every tensor of the group had its gradient None at some step, although there was one before: it was "
    "frozen, detached from the loss, or its loss is no longer computed. It does not learn. Where there never was one "
    "it is information: it may be frozen on purpose. More tensors without a gradient than there steadily were, those "
    "of heads left out, are a warning.",
    meanings={
        RATIO: "The group has a gradient and its parameters moved before, but now they do not, while those of other "
        "groups do: the optimizer no longer holds them, or holds them at a learning rate of 0."
    },
    look_first="What changed at this update: requires_grad_(False), detach() or no_grad() on the way to the loss, a "
    "loss term that is left out, an optimizer whose zero_grad also sets what nothing fills again; the optimizer's "
    "param_groups and their learning rates.",
    reference="A gradient that is None was never computed, which differs from one of 0.0",
    examples=(
        Example("all have one", "ok", _cells(0, 0), updates=2),
        Example("some have none", "ok", _cells(0, 3), updates=2),
        Example("some have none any more", "warning", _cells(*[0] * 11, 3), updates=12),
        Example("none any more", "critical", _cells(0, 4), updates=2),
        Example("never had one", "info", _cells(4, 4), updates=2),
        Example("not recorded", "no_data", _cells(None) | {RATIO: None}),
    ),
    memory={"had": zeros, "last": nothing_yet, "equal": zeros, "least": nothing_yet, "still": zeros, "moved": zeros},
    causes=("numerical_instability", "setting_changed"),
    statistics={
        "tensors_without_grad": Statistic("tensors without gradient", column="tensors_without_grad"),
        RATIO: Statistic("share of its norm that the group moves", column=RATIO),
    },
    revision=2,
    restated=(VERDICT,),
)
