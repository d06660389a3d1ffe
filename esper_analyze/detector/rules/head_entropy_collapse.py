"""Rule ``head_entropy_collapse``: one head has become deterministic while the joint entropy may look normal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.conditions.applicability import actions_unknown, not_categorical, nothing_learnable
from esper_analyze.detector.conditions.convergence import AT_BEST, EPISODE_RETURN
from esper_analyze.detector.conditions.shared import free, held
from esper_analyze.detector.deferral_guards import FREE, DeferralGuard, Side, same, until
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Sign, limit
from esper_analyze.detector.signals import Floats, Frame
from esper_analyze.detector.streaks import streak, zeros
from esper_analyze.detector.verdict import Bounds, Judgement, settle


@dataclass(frozen=True, slots=True)
class HeadEntropyCollapseLimits(Limits):
    """Bounds on ``heads.entropy_norm`` over steps with a choice."""

    threshold: float = limit(0.1, "for heads without a threshold of their own (set by design)")
    per_head: dict[str, float] = limit({}, "single heads in place of the default")  # noqa: RUF009
    warning_updates: int = limit(3, "3 updates in a row (set by design)", at_least=1)
    critical_updates: int = limit(20, "20 updates in a row (set by design)", at_least=1)
    clear_factor: float = limit(1.5, "clears only above 1.5 × the threshold (set by design)")


def judge(frame: Frame, memory: Memory, limits: HeadEntropyCollapseLimits) -> list[Judgement]:
    """Judge each head's normalised entropy; between the bounds the streak is kept."""
    entropy = frame["entropy_norm"]
    excuses = [not_categorical(frame), nothing_learnable(frame)]
    usable = entropy.finite & ~excuses[0].where & ~excuses[1].where
    threshold = _thresholds(frame.subjects, limits) if limits.per_head else limits.threshold
    low = usable & (entropy.values < threshold)
    clear = usable & (entropy.values > limits.clear_factor * threshold)
    length = streak(low, clear, memory["low"])
    learnt = AT_BEST.holds(frame)
    bound = np.where(low, threshold, limits.clear_factor * threshold)  # between the bounds a low head stays low
    bounds = Bounds(
        info=length >= limits.warning_updates,
        warning=(length >= limits.warning_updates) & ~learnt,
        critical=(length >= limits.critical_updates) & ~learnt,
        warning_at=bound,
        critical_at=bound,
    )
    return [settle("entropy_norm", entropy, bounds, excuses=excuses, unknown=[actions_unknown(frame)])]


def _thresholds(heads: tuple[str, ...], limits: HeadEntropyCollapseLimits) -> Floats:
    return np.array([[limits.per_head.get(name, limits.threshold) for name in heads]])


def guard(frame: Frame, memory: Memory, limits: HeadEntropyCollapseLimits) -> DeferralGuard:
    """Defer while each head stays on the same side of both bounds; returns matter once one has been low for long."""
    threshold = _thresholds(frame.subjects, limits) if limits.per_head else limits.threshold
    lasting = until(memory["low"], limits.warning_updates, limits.critical_updates)
    sides: dict[str, Sequence[Side] | None] = {"entropy_norm": (threshold, limits.clear_factor * threshold)}
    sides |= {"learnable_fraction": (0.0,), "kind": same(frame["kind"]), f"updates.{EPISODE_RETURN}": FREE}
    sides |= {"entropy": (), "choice_samples": ()}
    matters = np.count_nonzero(memory["low"] >= min(limits.warning_updates, limits.critical_updates))
    return DeferralGuard(lasting, {**sides, **(held(frame, AT_BEST) if matters else free(AT_BEST))})


def _cells(
    *values: float | None, learnable: float = 1.0, kind: str = "categorical", returns: object = None
) -> dict[str, object]:
    cells = {"entropy_norm": list(values), "learnable_fraction": learnable, "kind": kind}
    return {**cells, "updates.episode_return_mean": returns}


_RISING = [1.0 + 0.1 * i for i in range(60)]


RULE = Rule(
    name="head_entropy_collapse",
    table="heads",
    panels=("heads.head",),
    sign=Sign("◇", "deterministic", "", "its entropy collapsed"),
    sign_order=1,
    columns=("entropy_norm", "learnable_fraction", "kind", "entropy", "choice_samples"),
    context=("learnable_fraction", "entropy", "choice_samples"),
    limits=HeadEntropyCollapseLimits,
    judge=judge,
    guard=guard,
    title="A head collapsed",
    meaning="This head almost always takes the same action where it had a choice. The joint entropy can hide this "
    "behind the other heads. Where returns rose and stay near their best, it is the result of learning, and "
    "information; else critical when it lasts.",
    look_first="The head's own entropy coefficient and learnable fraction; whether its best action really is always "
    "the same; its ratio and KL in the updates before.",
    reference="A joint entropy hides one head that collapsed among others (entropy is judged per head)",
    examples=(
        Example("exploring", "ok", _cells(0.6), updates=1),
        Example("low for two updates", "ok", _cells(0.05, 0.05), updates=2),
        Example("low for three updates", "warning", _cells(0.05, 0.05, 0.05), updates=3),
        Example("between the bounds the streak is kept", "warning", _cells(0.05, 0.05, 0.05, 0.12), updates=4),
        Example("clear again", "ok", _cells(0.05, 0.05, 0.05, 0.2), updates=4),
        Example("low for twenty updates", "critical", _cells(*[0.01] * 20), updates=20),
        Example(
            "low at last, and returns rose",
            "info",
            _cells(*[0.9 - 0.015 * i for i in range(60)], returns=_RISING),
            updates=60,
        ),
        Example(
            "low within ten updates, and returns rose",
            "info",
            _cells(*[0.9] * 20, *[0.05] * 40, returns=_RISING),
            updates=60,
        ),
        Example("one valid action at every step", "not_applicable", _cells(None, learnable=0.0), updates=1),
        Example("a Gaussian head", "not_applicable", _cells(None, kind="gaussian"), updates=1),
        Example("the number of actions is not known", "no_data", _cells(None) | {"entropy": 1.0}, updates=1),
        Example("not recorded", "no_data", _cells(None), updates=1),
    ),
    memory={"low": zeros},
    beside={"updates": (EPISODE_RETURN,)},
    conditions=(AT_BEST,),
    causes=("numerical_instability", "kl_spike", "entropy_collapse", "mask_collapse"),
    follows=("gradient_explosion",),
    confirmed_by="warning_updates",
    higher_is_worse=False,
    revision=4,
    restated=("threshold", VERDICT),
)
