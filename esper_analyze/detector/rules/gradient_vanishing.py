"""Rule ``gradient_vanishing``: a group's gradients fade to nothing, and no mask explains it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from esper_analyze.detector.baselines import EARLY_MEMORY, early_known, early_level
from esper_analyze.detector.conditions.applicability import RETURNS, returns_hardly_vary, returns_held
from esper_analyze.detector.conditions.convergence import AT_BEST, EPISODE_RETURN
from esper_analyze.detector.conditions.rewards import REWARDS, UNREWARDED
from esper_analyze.detector.conditions.shared import free, held
from esper_analyze.detector.deferral_guards import FREE, DeferralGuard, Side, same, until
from esper_analyze.detector.rule import VERDICT, Example, Limits, Memory, Rule, Sign, Statistic, limit
from esper_analyze.detector.signals import Bools, Frame, Signal, choice_code
from esper_analyze.detector.streaks import streak, zeros
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle
from esper_analyze.schema.constants import HEAD_GROUP

HOLDERS = ("actor", "all")
"""Groups that contain the heads' own tensors."""
ROUNDING = 1e-9
"""Rounding error of a share after an equal one was subtracted."""
NEAR = 2.0
"""Factor within which a norm is too close to its bound for a guard."""
SMALLEST = 1e-290
"""Bound on early levels below which shares cannot be distinguished."""
_EXPLAINED = np.array([choice_code("heads", "zero_explained", word) for word in ("masked", "irrelevant", "frozen")])


@dataclass(frozen=True, slots=True)
class GradientVanishingLimits(Limits):
    """Bounds on ``groups.vanishing_severity``, and on the norm as a share of the group's own early mean."""

    warning: float = limit(0.0, "any tensor (set by design)", at_least=0.0)
    critical: float = limit(0.5, "half of the tensors (set by design)", at_least=0.0)
    faded: float = limit(1e-4, "four orders of magnitude below the group's own early scale", at_least=0.0)
    sustained: int = limit(3, "a single quiet update does not count", at_least=1)
    some_sustained: int = limit(
        5,
        "of fewer than half of the tensors: ReLUs of a sound training of the known half came back after 4",
        at_least=1,
    )
    error: float = limit(
        1.0, "value_nrmse of a critic that knows the mean return: one that is off by more has not fitted", at_least=0.0
    )
    spread: float = limit(0.01, "solved runs: returns within 1 % of their mean are no measure of errors", at_least=0.0)
    early_updates: int = limit(10, "updates whose mean is the group's own early level", at_least=1)
    entropy: float = limit(0.1, "entropy_collapse: a policy below it is deterministic", at_least=0.0)
    choice: float = limit(0.05, "mask_collapse: below this a head has next to nothing to learn", at_least=0.0)


def judge(frame: Frame, memory: Memory, limits: GradientVanishingLimits) -> list[Judgement]:
    """Judge the share of vanished tensors, and the norm relative to its early mean."""
    masked = Excuse(_explained(frame, limits), "masked, irrelevant or frozen: nothing to learn from", quiet=True)
    return [_severity(frame, memory, limits, masked), _norm(frame, memory, limits, masked)]


@lru_cache(maxsize=64)
def _roles(groups: tuple[str, ...]) -> tuple[Bools, Bools, Bools]:
    """Return which groups are a head's own, which contain the heads, and which is the critic."""
    return (
        np.array([name.startswith(HEAD_GROUP) for name in groups], bool),
        np.array([name in HOLDERS for name in groups], bool),
        np.array([name == "critic" for name in groups], bool),
    )


def _explained(frame: Frame, limits: GradientVanishingLimits) -> Bools:
    why, learnable = frame["heads.zero_explained"], frame["heads.learnable_fraction"]
    explained = ~learnable.null & (learnable.values < limits.choice)
    explained |= ~why.null & np.isin(why.values, _EXPLAINED)
    critic = _roles(frame.subjects)[2]
    expected: Bools = explained | (frame["updates.choice_fraction"].equals(0.0) & ~critic)
    return expected


def _unexplained_share(frame: Frame, masked: Bools) -> Signal:
    """Return vanishing_severity without the tensors of masked heads, for the groups that contain the heads."""
    share, tensors = frame["vanishing_severity"], frame["tensors"].values
    heads, holders, _ = _roles(frame.subjects)
    if not np.count_nonzero(masked & heads) or not np.count_nonzero(holders):
        return share
    gone = np.where(masked & heads, share.values * tensors, 0.0)
    expected = np.nan_to_num(np.nansum(gone, axis=1, keepdims=True) / tensors)
    left = share.values - expected
    shared = holders & (expected > 0.0) & np.isfinite(share.values)  # an update without masked heads is left alone
    return Signal(share.name, np.where(shared, np.where(left < ROUNDING, 0.0, left), share.values), share.null)


def _reasons(frame: Frame, share: Signal) -> Signal:
    """Return what says whether a head's vanished tensors are masked: null where the head's row is not there.

    Where a head is unknown, so is a group that holds it.
    """
    why, learnable = frame["heads.zero_explained"], frame["heads.learnable_fraction"]
    heads, holders, _ = _roles(frame.subjects)
    unknown = heads & why.null & learnable.null & share.finite & (share.values > 0.0)
    unknown |= holders & unknown.any(axis=1, keepdims=True) & share.finite & (share.values > 0.0)
    return Signal(why.name, np.where(unknown, np.nan, 0.0), unknown)


def _severity(frame: Frame, memory: Memory, limits: GradientVanishingLimits, masked: Excuse) -> Judgement:
    share = _unexplained_share(frame, masked.where)
    reasons = _reasons(frame, share)
    usable = share.finite & ~masked.where & ~reasons.null
    lengths = limits.some_sustained, limits.sustained
    bounds = sustained_bounds(share, usable, memory, limits.warning, limits.critical, lengths)
    bounds.info = bounds.warning | bounds.critical
    alarming = ~_nothing_to_learn(frame, limits)
    bounds.warning, bounds.critical = bounds.warning & alarming, bounds.critical & alarming
    return settle(share.name, share, bounds, excuses=[masked], needs=[reasons])


def _nothing_to_learn(frame: Frame, limits: GradientVanishingLimits) -> Bools:
    """Return where gradients may be that small: no reward yet, or returns at their best.

    Then a policy must have become deterministic too, and a critic must fit the returns.
    """
    heads, holders, _ = _roles(frame.subjects)
    policy = heads | (holders & (np.array(frame.subjects) != "all"))
    alike = returns_hardly_vary(frame, limits.spread, "updates.").where
    fitted = ~(frame["updates.value_nrmse"].values > limits.error) | alike
    learnt = np.where(policy, frame["updates.entropy_norm"].values < limits.entropy, fitted)
    return UNREWARDED.holds(frame) | (AT_BEST.holds(frame) & learnt)


def sustained_bounds(
    share: Signal, usable: Bools, memory: Memory, warning: float, critical: float, lengths: tuple[int, int]
) -> Bounds:
    """Return the bounds that a share of vanished tensors crosses: above or at each its length of updates in a row."""
    some, half = usable & (share.values > warning), usable & (share.values >= critical)
    return Bounds(
        warning=streak(some, usable & ~some, memory["some"]) >= lengths[0],
        critical=streak(half, usable & ~half, memory["half"]) >= lengths[1],
        warning_at=warning,
        critical_at=critical,
    )


def _norm(frame: Frame, memory: Memory, limits: GradientVanishingLimits, masked: Excuse) -> Judgement:
    norm = frame["grad_norm"]
    usable = norm.finite & ~masked.where
    early = early_level(norm.values, usable, memory, limits.early_updates)
    share = Signal(norm.name, np.where(norm.null, np.nan, norm.values / early), norm.null)
    usable = usable & (early > 0.0)
    low = usable & (share.values < limits.faded)
    bounds = Bounds(info=streak(low, usable & ~low, memory["low"]) >= limits.sustained, warning_at=limits.faded)
    unknown = Excuse(norm.finite & ~usable, "no gradient to begin with: nothing to hold it against", quiet=True)
    broken = Excuse(norm.nonfinite, "non-finite: judged by numerical_instability", quiet=True)
    excuses = [masked, broken, unknown]
    return settle(norm.name, norm, bounds, excuses=excuses, baseline=early, judged=share.values)


def guard(frame: Frame, memory: Memory, limits: GradientVanishingLimits) -> DeferralGuard | None:
    """Defer while shares and norms stay on the same side of the bounds, and heads keep their explanations."""
    share, norm, why = frame["vanishing_severity"], frame["grad_norm"], "heads.zero_explained"
    usable = norm.finite & ~_explained(frame, limits)
    if not early_known(usable, memory, limits.early_updates):
        return None
    returns: Mapping[str, Sequence[Side] | None] | None = dict.fromkeys((f"updates.{name}" for name in RETURNS), FREE)
    if np.count_nonzero(share.values > 0.0):
        returns = returns_held(frame, limits.spread, "updates.")
    if returns is None:
        return None
    early = early_level(norm.values, usable, memory, limits.early_updates)
    far, near = NEAR * limits.faded * early, limits.faded * early / NEAR
    unsure = (norm.values <= far) & (norm.values >= near) | (early < SMALLEST)
    if np.count_nonzero(usable & (early > 0.0) & unsure):
        return None
    sides: dict[str, Sequence[Side] | None] = {share.name: (0.0, limits.warning, limits.critical), "tensors": FREE}
    sides |= {**free(AT_BEST, UNREWARDED), "updates.value_nrmse": FREE, "updates.entropy_norm": FREE}
    if np.count_nonzero(share.values > 0.0):  # what is left of shares depends on others'
        sides |= {share.name: same(share), "tensors": same(frame["tensors"])}
        sides |= {**held(frame, AT_BEST, UNREWARDED), "updates.value_nrmse": (limits.error,)}
        sides["updates.entropy_norm"] = (limits.entropy,)
    sides |= {f"updates.{name}": FREE for name in (EPISODE_RETURN, *REWARDS)} | dict(returns)
    sides |= {norm.name: (far, near), why: same(frame[why])}
    sides |= {"heads.learnable_fraction": (limits.choice,), "updates.choice_fraction": (0.0,)}
    lasting = min(until(memory["some"], limits.some_sustained), until(memory["half"], limits.sustained))
    return DeferralGuard(min(lasting, until(memory["low"], limits.sustained)), sides)


def _cells(
    *share: float | None, norm: object = 1.0, why: object = "not_zero", learnable: object = None
) -> dict[str, object]:
    return {
        "vanishing_severity": list(share),
        "grad_norm": norm,
        "tensors": 4,
        "heads.zero_explained": why,
        "heads.learnable_fraction": learnable,
    }


_UNREWARDED = {f"updates.{name}": 0.0 for name in (EPISODE_RETURN, *REWARDS)}


def _solved(entropy: float) -> dict[str, object]:
    return {f"updates.{EPISODE_RETURN}": [*[1.0] * 5, *[9.0] * 15], "updates.entropy_norm": entropy}


RULE = Rule(
    name="gradient_vanishing",
    table="groups",
    figures=("layers", "drift"),
    panels=("heads.head",),
    sign=Sign("▼", "vanishing", "warning", "its gradient has all but gone"),
    sign_order=2,
    columns=("vanishing_severity", "grad_norm", "tensors"),
    context=("tensors",),
    beside={
        "heads": ("zero_explained", "learnable_fraction"),
        "updates": ("choice_fraction", "value_nrmse", "entropy_norm", EPISODE_RETURN, *REWARDS, *RETURNS),
    },
    conditions=(AT_BEST, UNREWARDED),
    limits=GradientVanishingLimits,
    judge=judge,
    guard=guard,
    title="Gradients vanished",
    meaning="Tensors of the group get gradients below 1e-7 update after update: they no longer learn. Where there is "
    "nothing to learn it is information: no reward in the rollout, or returns that stay near their best with a policy "
    "that has become deterministic, or a critic that fits them. So is a norm below a ten-thousandth of the group's "
    "early mean (the baseline), because a critic that has solved its task fades too.",
    look_first="Whether the entropy collapsed before; saturated activations or gates; a loss term whose weight is 0; "
    "for one head: its learnable fraction.",
    reference="A tensor without a gradient does not learn, whatever the norm of its group (gradient review)",
    examples=(
        Example("healthy", "ok", _cells(0.0)),
        Example("one quiet update", "ok", _cells(0.0, 0.3, 0.0), updates=3),
        Example("some tensors, for five updates", "warning", _cells(*[0.3] * 5), updates=5),
        Example("most tensors, for three updates", "critical", _cells(*[0.8] * 3), updates=3),
        Example("no reward yet", "info", _cells(*[0.8] * 3) | _UNREWARDED, updates=3),
        Example(
            "a deterministic policy, returns at their best", "info", _cells(*[0.8] * 20) | _solved(0.01), updates=20
        ),
        Example("returns at their best, and it is not", "critical", _cells(*[0.8] * 20) | _solved(0.7), updates=20),
        Example(
            "faded from its early level",
            "info",
            _cells(*[0.0] * 14, norm=[*[2.0] * 10, *[1e-5] * 4]),
            updates=14,
        ),
        Example("a masked head", "not_applicable", _cells(*[1.0] * 3, norm=0.0, why="masked"), updates=3),
        Example("a head that hardly ever has a choice", "not_applicable", _cells(0.5, learnable=0.01)),
        Example(
            "no head has a choice",
            "not_applicable",
            _cells(*[1.0] * 3, norm=0.0) | {"updates.choice_fraction": 0.0},
            updates=3,
        ),
        Example("no gradient", "no_data", _cells(None, norm=None)),
        Example("unknown whether the head was masked", "no_data", _cells(*[1.0] * 3, norm=0.0, why=None), updates=3),
    ),
    memory={"some": zeros, "half": zeros, "low": zeros, **EARLY_MEMORY},
    causes=("numerical_instability", "spike_then_silence", "frozen_update", "entropy_collapse"),
    confirmed_by="sustained",
    statistics={
        "vanishing_severity": Statistic("vanishing_severity without the tensors of masked heads"),
        "grad_norm": Statistic("grad_norm as a share of its early mean", baseline="that mean"),
    },
    revision=6,
    restated=("value", "threshold", VERDICT),
)
