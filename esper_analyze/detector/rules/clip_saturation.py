"""Rule ``clip_saturation``: too many samples are at the clip, update after update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from esper_analyze.detector.conditions.applicability import inner_loop_not_measurable
from esper_analyze.detector.conditions.convergence import AT_BEST, EPISODE_RETURN
from esper_analyze.detector.conditions.shared import free, held
from esper_analyze.detector.conditions.stand_ins import COUNTED, KL_LOG, LAST_EPOCH, LOGGED, movement
from esper_analyze.detector.deferral_guards import FREE, DeferralGuard, Side, same, until
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.streaks import streak, zeros
from esper_analyze.detector.verdict import Bounds, Judgement, settle


@dataclass(frozen=True, slots=True)
class ClipSaturationLimits(Limits):
    """Bounds on ``updates.clip_fraction``."""

    warning: float = limit(0.3, "sound runs lie at 0.05–0.25 (from a review of a PPO code base)", at_least=0.0)
    critical: float = limit(0.5, "half of all samples (set by design)", at_least=0.0)
    moved: float = limit(
        0.05, "kl_k3 below which a narrow clip range is why, nats: half of kl_spike's warning", at_least=0.0
    )
    sustained: int = limit(3, "3 updates in a row (set by design)", at_least=1)


def judge(frame: Frame, memory: Memory, limits: ClipSaturationLimits) -> list[Judgement]:
    """Judge the share of samples whose ratio was beyond the clip range."""
    share = frame["clip_fraction"]
    excuse = inner_loop_not_measurable(frame)
    usable = share.finite & ~excuse.where
    moves = ~(movement(frame).values <= limits.moved) & ~AT_BEST.holds(frame)  # an unknown KL does not excuse it
    high, extreme = usable & (share.values > limits.warning), usable & (share.values > limits.critical)
    long_high = streak(high, usable & ~high, memory["high"]) >= limits.sustained
    bounds = Bounds(
        info=long_high,
        warning=long_high & moves,
        critical=(streak(extreme, usable & ~extreme, memory["extreme"]) >= limits.sustained) & moves,
        warning_at=limits.warning,
        critical_at=limits.critical,
    )
    return [settle(share.name, share, bounds, excuses=[excuse])]


def guard(frame: Frame, memory: Memory, limits: ClipSaturationLimits) -> DeferralGuard:
    """Defer while the share stays on the same side of both bounds."""
    streaks = [memory[name] for name in ("high", "extreme")]
    lasting = min(until(one, limits.sustained) for one in streaks)
    matters = any(np.count_nonzero(one) for one in streaks)
    sides: dict[str, Sequence[Side] | None] = {"clip_fraction": (limits.warning, limits.critical)}
    sides["kl_k3"] = (limits.moved,) if matters else FREE
    sides |= {"inner_loop_measurable": same(frame["inner_loop_measurable"]), EPISODE_RETURN: FREE}
    sides |= {**dict.fromkeys(KL_LOG, FREE), **held(frame, LOGGED)}
    return DeferralGuard(lasting, {**sides, **(held(frame, AT_BEST) if matters else free(AT_BEST))})


def _cells(*values: float | None, measurable: bool = True, kl: float | None = 0.08) -> dict[str, object]:
    return {"clip_fraction": list(values), "inner_loop_measurable": measurable, "kl_k3": kl, COUNTED: 8}


RULE = Rule(
    name="clip_saturation",
    table="updates",
    panels=("policy.clip",),
    columns=("clip_fraction", "inner_loop_measurable", "kl_k3", EPISODE_RETURN, *KL_LOG),
    context=("kl_k3", EPISODE_RETURN, *KL_LOG),
    conditions=(AT_BEST, LOGGED),
    limits=ClipSaturationLimits,
    judge=judge,
    guard=guard,
    title="Most samples are at the clip",
    meaning="A sample beyond the clip range whose advantage points outwards gives no gradient. When a third of the "
    "rollout or more is there in every update, later epochs train on little, and the policy still drifts. Where KL is "
    "small it is information: the clip range is narrow; where returns rise or stay near their best, too: the large "
    "steps pay.",
    look_first="Learning rate, number of epochs, minibatch size; kl_k3 of the same updates.",
    reference="Schulman et al. 2017, section 3; Andrychowicz et al. 2021, section on the clip threshold",
    examples=(
        Example("a sound update", "ok", _cells(0.12)),
        Example("high for two updates", "ok", _cells(0.1, 0.4, 0.4), updates=3),
        Example("high for three updates", "warning", _cells(0.4, 0.35, 0.4), updates=3),
        Example("high, with a KL that is not", "info", _cells(0.6, 0.7, 0.6, kl=0.02), updates=3),
        Example(
            "high, and returns rise",
            "info",
            _cells(*[0.1] * 5, *[0.6] * 5) | {EPISODE_RETURN: [1.0 + i for i in range(10)]},
            updates=10,
        ),
        Example("most samples, for three updates", "critical", _cells(0.6, 0.7, 0.6), updates=3),
        Example("one epoch of one minibatch", "not_applicable", _cells(0.0, measurable=False)),
        Example("not recorded", "no_data", _cells(None)),
        Example(
            "a log's clip range is annealed: its KL is small",
            "info",
            {"clip_fraction": [0.6] * 3, "kl_k3": None, LAST_EPOCH: 0.01, COUNTED: None},
            updates=3,
        ),
    ),
    memory={"high": zeros, "extreme": zeros},
    causes=(
        "setting_changed",
        "observations_changed",
        "optimizer_restarted",
        "first_ratio",
        "numerical_instability",
        "kl_spike",
    ),
    confirmed_by="sustained",
    revision=4,
    restated=(VERDICT,),
)
