"""Rule ``update_skipped``: an update did not do its work because something was not finite, or was cut short."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.deferral_guards import DeferralGuard, same, until
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, Statistic, limit
from esper_analyze.detector.signals import Frame, choice_code
from esper_analyze.detector.streaks import streak, zeros
from esper_analyze.detector.verdict import Bounds, Judgement, settle

_SKIPPED = choice_code("updates", "status", "nonfinite_skipped")
_UNUSABLE = choice_code("updates", "status", "no_usable_steps")
_INTERRUPTED = choice_code("updates", "status", "interrupted")


@dataclass(frozen=True, slots=True)
class UpdateSkippedLimits(Limits):
    """How many skipped updates in a row are critical."""

    critical_updates: int = limit(3, "3 in a row (set by design)", at_least=1)


def judge(frame: Frame, memory: Memory, limits: UpdateSkippedLimits) -> list[Judgement]:
    """Judge the status of each update. An interrupted one is a warning: it may have been stopped on purpose."""
    status = frame["status"]
    skipped = status.equals(_SKIPPED) | status.equals(_UNUSABLE)
    length = streak(skipped, ~skipped & ~status.null, memory["skipped"])
    bounds = Bounds(
        warning=skipped | status.equals(_INTERRUPTED),
        critical=length >= limits.critical_updates,
        critical_at=float(limits.critical_updates),
    )
    return [settle("status", status, bounds, judged=length.astype(np.float64))]


def guard(frame: Frame, memory: Memory, limits: UpdateSkippedLimits) -> DeferralGuard:
    """Defer while the status stays the same."""
    return DeferralGuard(until(memory["skipped"], limits.critical_updates), {"status": same(frame["status"])})


RULE = Rule(
    name="update_skipped",
    table="updates",
    figures=("timeline",),
    columns=("status",),
    limits=UpdateSkippedLimits,
    judge=judge,
    guard=guard,
    title="Update not completed",
    meaning="The update made no step because something was NaN or infinite or because the optimizer was not called, or "
    "was cut short by an exception or the end of the process. The value is how many were skipped in a row.",
    look_first="skip_reason of that row; after an exception, the training's own traceback.",
    reference="Loops that test gradients for NaN and Inf skip the step, as torch.amp.GradScaler does",
    examples=(
        Example("performed", "ok", {"status": "performed"}),
        Example("stopped by target_kl", "ok", {"status": "kl_stopped"}),
        Example("skipped", "warning", {"status": "nonfinite_skipped"}),
        Example("minibatches, and not one optimizer step", "warning", {"status": "no_usable_steps"}),
        Example("cut short", "warning", {"status": "interrupted"}),
        Example("three in a row", "critical", {"status": "nonfinite_skipped"}, updates=3),
        Example("no row", "no_data", {"status": None}),
    ),
    memory={"skipped": zeros},
    causes=("numerical_instability",),
    statistics={"status": Statistic("number of skipped updates running")},
    revision=2,
    restated=("value",),
)
