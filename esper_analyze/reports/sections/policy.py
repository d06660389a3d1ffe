"""How far each update moved the policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.detector.rules import shaded_in
from esper_analyze.replay.evidence import Evidence
from esper_analyze.reports.render.draw import bounds, finish, from_zero, incidents_behind, line, scale
from esper_analyze.reports.render.section import Layout, Section
from esper_analyze.reports.render.style import FIRST, SECOND, THIRD
from esper_analyze.runs.series import Series, all_series
from esper_analyze.wording import many

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from esper_analyze.detector.incidents import Incident

_COLUMNS = (
    "kl_k1",
    "kl_k2",
    "kl_k3",
    "ratio_max",
    "ratio_min",
    "clip_fraction",
    "clip_fraction_positive",
    "clip_fraction_negative",
    "entropy_norm",
    "first_ratio_error",
    "target_kl",
    "ess_fraction",
    "ratio_nonfinite",
    "clamped_fraction",
    "inner_loop_measurable",
)
_BOUND_RULES = ("kl_spike", "ratio_explosion", "ratio_collapse", "first_ratio", "entropy_collapse", "clip_saturation")


@dataclass(frozen=True, slots=True)
class PolicyFrame:
    """Columns of ``updates`` by name, the bounds (warning, critical) by rule, and the incidents to shade."""

    columns: dict[str, Series]
    limits: dict[str, tuple[float | None, float | None]]
    incidents: tuple[Incident, ...]


def frame(evidence: Evidence) -> PolicyFrame | None:
    """Return the policy-change columns, None when no inner loop was ever seen."""
    columns = all_series(evidence.run, "updates", _COLUMNS)
    if all(columns[name].empty for name in ("kl_k3", "ratio_max", "entropy_norm", "clip_fraction")):
        return None
    limits = {rule: evidence.bounds(rule) for rule in _BOUND_RULES}
    return PolicyFrame(columns, limits, tuple(evidence.replay.single_incidents))


def layout(data: PolicyFrame) -> Layout:  # noqa: ARG001
    """Six panels under each other."""
    return Layout((150, 150, 120, 90, 120, 90))


def draw(data: PolicyFrame, axes: Sequence[Axes]) -> None:
    """Draw KL, ratio, clip fraction, effective samples, entropy and the first minibatch's ratio error."""
    _draw_kl(data, axes[0])
    _draw_ratio(data, axes[1])
    _draw_clip(data, axes[2])
    line(axes[3], data.columns["ess_fraction"])
    axes[3].set_ylim(-0.03, 1.03)
    finish(axes[3], "Effective sample size: the share of the samples that still count")
    entropy, error = data.columns["entropy_norm"], data.columns["first_ratio_error"]
    line(axes[4], entropy, FIRST)
    finish(axes[4], "Entropy, as a share of the most there could be (valid actions only)")
    axes[4].set_ylim(0, max(1.0, axes[4].get_ylim()[1]))
    incidents_behind(axes[4], data.incidents, shaded_in("policy.entropy"))
    bounds(axes[4], *data.limits["entropy_collapse"])
    line(axes[5], error, FIRST)
    scale(axes[5], error, log=True)
    from_zero(axes[5], error, least=0.02)
    finish(axes[5], "Ratio error in the first minibatch: rollout and update must agree", last=True)
    incidents_behind(axes[5], data.incidents, shaded_in("policy.first_ratio"))
    bounds(axes[5], *data.limits["first_ratio"])


def _draw_kl(data: PolicyFrame, axes: Axes) -> None:
    columns = data.columns
    line(axes, columns["kl_k1"], THIRD, "k1", width=0.9)
    line(axes, columns["kl_k2"], SECOND, "k2", width=0.9)
    line(axes, columns["kl_k3"], FIRST, "k3 (judged)")
    if columns["target_kl"].last is not None:
        line(axes, columns["target_kl"], THIRD, "target", width=0.8)
    scale(axes, columns["kl_k3"], columns["kl_k2"], floor=1e-3)
    finish(axes, "KL from old to new policy, nats", legend=True)
    incidents_behind(axes, data.incidents, shaded_in("policy.kl"))
    bounds(axes, *data.limits["kl_spike"])


def _draw_ratio(data: PolicyFrame, axes: Axes) -> None:
    line(axes, data.columns["ratio_max"], FIRST, "largest")
    line(axes, data.columns["ratio_min"], SECOND, "smallest")
    scale(axes, data.columns["ratio_max"], data.columns["ratio_min"], log=True)
    finish(axes, "Joint probability ratio", legend=True)
    incidents_behind(axes, data.incidents, shaded_in("policy.ratio"))
    bounds(axes, *data.limits["ratio_explosion"])
    bounds(axes, *data.limits["ratio_collapse"])


def _draw_clip(data: PolicyFrame, axes: Axes) -> None:
    line(axes, data.columns["clip_fraction"], FIRST, "outside the clip range")
    line(axes, data.columns["clip_fraction_positive"], SECOND, "above", width=0.9)
    line(axes, data.columns["clip_fraction_negative"], THIRD, "below", width=0.9)
    from_zero(axes, data.columns["clip_fraction"], least=0.05)
    finish(axes, "Share of samples clipped", legend=True)
    incidents_behind(axes, data.incidents, shaded_in("policy.clip"))
    bounds(axes, *data.limits["clip_saturation"])


def words(data: PolicyFrame) -> list[str]:
    """Say where KL and ratio were largest and samples fewest, and what the numbers cannot tell."""
    sentences = _caveats(data)
    for name, what in (("kl_k3", "KL (k3)"), ("ratio_max", "The joint ratio")):
        series = data.columns[name]
        if series.finite.any():
            index = series.largest
            sentences.append(f"{what} was largest at update {series.update[index]}: {series.value[index]:.3g}.")
        if series.nonfinite.any():
            first, count = series.update[series.nonfinite][0], many(int(series.nonfinite.sum()), "update")
            sentences.append(f"{what} was NaN or infinite at {count}, first at {first}.")
    return sentences + _samples(data)


def _caveats(data: PolicyFrame) -> list[str]:
    blind = data.columns["inner_loop_measurable"].value == 0.0
    if not blind.any():
        return []
    return [
        f"In {many(int(blind.sum()), 'update')} no minibatch came after an optimizer step: ratio 1, KL 0 and nothing "
        "clipped come out by construction and say nothing."
    ]


def _samples(data: PolicyFrame) -> list[str]:
    sentences = []
    ess, clamped, broken = (data.columns[name] for name in ("ess_fraction", "clamped_fraction", "ratio_nonfinite"))
    if ess.finite.any():
        least = int(np.where(ess.finite, ess.value, np.inf).argmin())
        sentences.append(f"Fewest samples counted at update {ess.update[least]}: {ess.value[least]:.0%} of them.")
    for series, what in (
        (clamped, "Log-ratios were clamped"),
        (broken, "Single samples had a NaN or infinite log-ratio"),
    ):
        some = series.finite & (series.value > 0)
        if some.any():
            sentences.append(f"{what} in {many(int(some.sum()), 'update')}, first {series.update[some][0]}.")
    return sentences


SECTION = Section(
    name="policy",
    title="Policy change",
    asks="How far did each update move the policy, and did rollout and update agree to begin with?",
    without="No minibatch of an inner loop was seen, so there is no ratio, KL or entropy: rec.minibatch() records "
    "them.",
    frame=frame,
    layout=layout,
    draw=draw,
    words=words,
)
