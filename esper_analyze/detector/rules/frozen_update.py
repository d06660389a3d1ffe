"""Rule ``frozen_update``: optimizer steps are taken and change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.conditions.applicability import inner_loop_not_measurable
from esper_analyze.detector.conditions.convergence import AT_BEST, EPISODE_RETURN
from esper_analyze.detector.conditions.shared import free, held
from esper_analyze.detector.conditions.stand_ins import (
    COUNTED,
    KL_LOG,
    KL_LOGGED,
    LAST_EPOCH,
    LOGGED,
    apart,
    kl_logged,
    movement,
    only_of_log,
    stands_in,
)
from esper_analyze.detector.deferral_guards import FREE, LASTING, DeferralGuard, Side, same, until
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Statistic, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.streaks import latest, nothing_yet, streak, tally, zeros
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle

POST_CLIP, NORM = "grad_norm_post_clip_max", "grad_norm_pre_clip"
"""The norm that the optimizer got; what stands in for it in a log."""


@dataclass(frozen=True, slots=True)
class FrozenUpdateLimits(Limits):
    """Bounds on what counts as no movement."""

    still: float = limit(1e-12, "k3 of log-ratios at float32 noise (1e-6) is 5e-13; nats")
    logged_still: float = limit(
        1e-7, "float32's rounding in r − 1 − log r, which logs of other tools have: up to 6e-8, nats", at_least=0.0
    )
    sustained: int = limit(3, "one still update may be a schedule that ended", at_least=1)
    moving: float = limit(
        1e-6,
        "a KL from which a policy does not come to rest in one update by itself, nats (set by design)",
        at_least=0.0,
    )
    moved: int = limit(5, "updates in a row that moved it so, before the first that does not", at_least=1)
    escalate: int = limit(20, "as numerical instability: the cause is mostly an overflow")


def judge(frame: Frame, memory: Memory, limits: FrozenUpdateLimits) -> list[Judgement]:
    """Judge the gradient left after clipping, and whether the policy moved at all."""
    idle = Excuse(frame["optimizer_steps"].equals(0.0), "no optimizer step was taken")
    judged = [_gradient(frame, limits, idle), *_movement(frame, memory, limits, idle)]
    used = stands_in(frame, POST_CLIP)
    if used is None:
        return judged
    norm = frame[NORM]
    none = used & norm.equals(0.0)
    long = streak(none, used & norm.finite & ~none, memory["no_gradient"]) >= limits.sustained
    bounds = Bounds(info=long, warning=long & ~AT_BEST.holds(frame), info_at=0.0, warning_at=0.0)
    return [*judged, only_of_log(settle(NORM, norm, bounds, excuses=[idle]), used)]


def _gradient(frame: Frame, limits: FrozenUpdateLimits, idle: Excuse) -> Judgement:
    pre, post, kl = frame["grad_norm_pre_clip_max"], frame["grad_norm_post_clip_max"], frame["kl_k3"]
    wiped = post.equals(0.0) & (pre.values > 0.0)
    measurable = ~inner_loop_not_measurable(frame).where
    still = measurable & kl.finite & (kl.values <= limits.still)
    broken = pre.nonfinite & ~post.equals(0.0)
    bounds = Bounds(
        warning=wiped,
        critical=pre.nonfinite | (wiped & still),
        warning_at=0.0,
        critical_at=np.where(broken, np.nan, 0.0),
    )
    no_clip = frame["max_grad_norm"].null & pre.null & ~post.null
    unclipped = Excuse(no_clip, "no clip call: nothing can take the gradient away")
    left = np.where(broken, pre.values, post.values)
    needs = [frame["optimizer_steps"], pre]
    return settle(post.name, post, bounds, excuses=[idle, unclipped], needs=needs, judged=left)


def _movement(frame: Frame, memory: Memory, limits: FrozenUpdateLimits, idle: Excuse) -> list[Judgement]:
    kl, logged, choice = movement(frame), kl_logged(frame), frame["choice_fraction"]
    excuses = [inner_loop_not_measurable(frame), Excuse(choice.equals(0.0), "no head had a choice at any step"), idle]
    judged = kl.finite
    for excuse in excuses:
        judged = judged & ~excuse.where
    bound = np.where(frame["kl_k3"].null, limits.logged_still, limits.still) if logged else limits.still
    still = judged & (kl.values <= bound)
    if logged:  # a log does not say whether one minibatch makes KL 0 by construction
        still &= ~frame["kl_k3"].null | (
            tally(judged & (kl.values > limits.moving) & frame["kl_k3"].null, memory["moves"]) > 0
        )
    length = streak(still, judged & ~still, memory["still"])
    moving = judged & (kl.values > limits.moving)
    carried = memory["moving"].copy()
    moved = np.concatenate([carried[None], streak(moving, judged & ~moving, memory["moving"])])[:-1]
    before = latest(moved.astype(np.float64), still & (length == 1), memory["moved"])
    stuck, learnt = length >= limits.sustained, AT_BEST.holds(frame)
    stopped = still & (before >= limits.moved)
    if logged:
        stopped &= ~frame["kl_k3"].null | stuck
    bounds = Bounds(info=stuck, warning=stopped | (stuck & ~learnt), info_at=bound, warning_at=bound)
    return apart(settle(kl.name, kl, bounds, excuses=excuses), logged)


def guard(frame: Frame, memory: Memory, limits: FrozenUpdateLimits) -> DeferralGuard:
    """Defer while norms, KL and steps stay on the same side of their bounds."""
    sides: dict[str, Sequence[Side] | None] = dict.fromkeys(_cells(None, None, None), (0.0,))
    measurable = same(frame["inner_loop_measurable"])
    watched = sides | {"kl_k3": (limits.still, limits.moving), "inner_loop_measurable": measurable, "max_grad_norm": ()}
    watched |= {**dict.fromkeys((EPISODE_RETURN, NORM, *KL_LOG), FREE), **held(frame, LOGGED)}
    if not np.count_nonzero(memory["still"]):
        return DeferralGuard(LASTING, {**watched, **free(AT_BEST)})
    return DeferralGuard(until(memory["still"], limits.sustained), {**watched, **held(frame, AT_BEST)})


def _cells(pre: float | None, post: float | None, kl: object, steps: int | None = 8) -> dict[str, object]:
    return {
        "grad_norm_pre_clip_max": pre,
        "grad_norm_post_clip_max": post,
        "kl_k3": kl,
        "max_grad_norm": 0.5,
        "optimizer_steps": steps,
        "inner_loop_measurable": True,
        "choice_fraction": 1.0,
        EPISODE_RETURN: None,
        NORM: pre,
        **dict.fromkeys(KL_LOGGED),
        COUNTED: 8,
    }


RULE = Rule(
    name="frozen_update",
    table="updates",
    figures=("losses", "clipping"),
    panels=("policy.kl", "clipping.norm"),
    columns=tuple(_cells(None, None, None)),
    context=("max_grad_norm", "choice_fraction", EPISODE_RETURN, NORM, *KL_LOG),
    conditions=(AT_BEST, LOGGED),
    limits=FrozenUpdateLimits,
    judge=judge,
    guard=guard,
    title="The optimizer steps, and nothing moves",
    meaning="Every gradient at the optimizer step was exactly zero although the loss had one: a norm that overflowed "
    "float32 makes the clip factor 0, and learning stops without an exception (critical; a warning while the "
    "optimizer's momentum still moves the policy). Or the policy has not moved at all for several updates.",
    look_first="grad_norm_pre_clip of the first such update; a loss or reward that became huge; the learning rate; "
    "whether the optimizer has the policy's parameters.",
    reference="torch.nn.utils.clip_grad_norm_ multiplies by max_norm / (norm + 1e-6), which is 0 for an infinite norm",
    examples=(
        Example("a sound update", "ok", _cells(3.0, 0.5, 0.01)),
        Example("overflow: the clip left nothing", "critical", _cells(float("inf"), 0.0, 0.0)),
        Example("clipped away, momentum coasts", "warning", _cells(3.0, 0.0, 0.01)),
        Example("clipped away, no movement", "critical", _cells(3.0, 0.0, 0.0)),
        Example("nothing has moved for three updates", "warning", _cells(3.0, 0.5, [0.0] * 3), updates=3),
        Example("no step was taken", "not_applicable", _cells(None, None, 0.0, steps=0)),
        Example("not recorded", "no_data", _cells(None, None, None)),
        Example(
            "the last epochs of a log do not move",
            "warning",
            {"kl_k3": None, LAST_EPOCH: [0.01, 0.0, 0.0, 0.0], COUNTED: None},
            updates=4,
        ),
        Example("a log: no gradient in three updates", "warning", {NORM: [0.0] * 3, COUNTED: None}, updates=3),
    ),
    memory={"no_gradient": zeros, "moves": zeros, "still": zeros, "moving": zeros, "moved": nothing_yet},
    causes=("setting_changed", "numerical_instability", "spike_then_silence", "kl_spike"),
    follows=("gradient_explosion",),
    higher_is_worse=False,
    meanings={
        "grad_norm_post_clip_max": "Every gradient that the optimizer got was exactly zero although the loss had one: "
        "a norm that overflowed float32 makes the clip's factor 0, and learning stops without an exception.",
        NORM: "The gradient norm of a log is exactly 0 in several updates: the loss has no gradient, as where all "
        "rewards of a group are equal, or the parameters are not in the loss.",
        "kl_k3": "Optimizer steps were taken, but the policy has not moved at all, from one update to the next or for "
        "several: a learning rate of 0, an optimizer without the policy's parameters, or gradients of 0. Where it came "
        "to rest slowly while returns rose and stay near their best, it is the end of learning, and information.",
    },
    statistics={
        NORM: Statistic("gradient norm", column=NORM),
        "grad_norm_post_clip_max": Statistic(
            "largest gradient norm after clipping (before it, where only that is not finite)"
        ),
    },
    revision=5,
    restated=("value", "threshold", VERDICT),
)
