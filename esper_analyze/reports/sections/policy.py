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
from esper_analyze.runs.log_source import is_log
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
    "kl_k3_last_epoch",
    "entropy",
    "entropy_norm",
    "first_ratio_error",
    "target_kl",
    "ess_fraction",
    "ratio_nonfinite",
    "clamped_fraction",
    "inner_loop_measurable",
)
_PANELS = (
    ("kl_k3", "kl_k3_last_epoch", "kl_k2", "kl_k1"),
    ("ratio_max",),
    ("clip_fraction",),
    ("ess_fraction",),
    ("entropy_norm", "entropy"),
    ("first_ratio_error",),
)
"""The columns of which each panel needs one."""
_HEIGHTS = (150, 150, 120, 90, 120, 90)
_BOUND_RULES = ("kl_spike", "ratio_explosion", "ratio_collapse", "first_ratio", "entropy_collapse", "clip_saturation")


_LOGGED = {"kl_k3_last_epoch": "k3, last epoch (judged)", "kl_k2": "k2 (judged)", "kl_k1": "k1 (judged)"}
"""What a log has in place of k3, the first that it has, and its name in the figure."""


@dataclass(frozen=True, slots=True)
class PolicyFrame:
    """Columns of ``updates`` by name, the bounds (warning, critical) by rule, and the incidents to shade.

    ``logged``: the column that stands in for ``kl_k3``, empty in a recorded run. ``panels``: indices of those shown.
    """

    columns: dict[str, Series]
    limits: dict[str, tuple[float | None, float | None]]
    incidents: tuple[Incident, ...]
    logged: str = ""
    panels: tuple[int, ...] = ()

    @property
    def movement(self) -> Series:
        """The KL divergence that is judged."""
        return self.columns[self.logged or "kl_k3"]


def frame(evidence: Evidence) -> PolicyFrame | None:
    """Return the policy-change columns, None when no inner loop was ever seen. Of a log, panels without data go."""
    columns = all_series(evidence.run, "updates", _COLUMNS)
    logged = is_log(evidence.run.info) and columns["kl_k3"].empty
    stand_in = next((name for name in _LOGGED if logged and not columns[name].empty), "")
    shown = [panel for panel, names in enumerate(_PANELS) if any(not columns[name].empty for name in names)]
    nothing = all(columns[name].empty for name in ("kl_k3", "ratio_max", "entropy_norm", "clip_fraction"))
    if not shown or (nothing and not is_log(evidence.run.info)):
        return None
    limits = {rule: evidence.bounds(rule) for rule in _BOUND_RULES}
    panels = tuple(shown) if is_log(evidence.run.info) else tuple(range(len(_PANELS)))
    return PolicyFrame(columns, limits, tuple(evidence.replay.single_incidents), stand_in, panels)


def layout(data: PolicyFrame) -> Layout:
    """Up to six panels under each other."""
    return Layout(tuple(_HEIGHTS[panel] for panel in data.panels))


def draw(data: PolicyFrame, axes: Sequence[Axes]) -> None:
    """Draw KL, ratio, clip fraction, effective samples, entropy and the first minibatch's ratio error."""
    drawers = (_draw_kl, _draw_ratio, _draw_clip, _draw_samples, _draw_entropy, _draw_first_ratio)
    for panel, one in zip(data.panels, axes, strict=True):
        drawers[panel](data, one, last=panel == data.panels[-1])


def _draw_samples(data: PolicyFrame, axes: Axes, *, last: bool) -> None:
    line(axes, data.columns["ess_fraction"])
    axes.set_ylim(-0.03, 1.03)
    finish(axes, "Effective sample size: the share of the samples that still count", last=last)


def _draw_entropy(data: PolicyFrame, axes: Axes, *, last: bool) -> None:
    entropy = data.columns["entropy_norm"]
    if data.logged and entropy.empty:
        line(axes, data.columns["entropy"], FIRST)
        finish(axes, "Entropy, nats", last=last)
    else:
        line(axes, entropy, FIRST)
        finish(axes, "Entropy, as a share of the most there could be (valid actions only)", last=last)
        axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))
        bounds(axes, *data.limits["entropy_collapse"])
    incidents_behind(axes, data.incidents, shaded_in("policy.entropy"))


def _draw_first_ratio(data: PolicyFrame, axes: Axes, *, last: bool) -> None:
    error = data.columns["first_ratio_error"]
    line(axes, error, FIRST)
    scale(axes, error, log=True)
    from_zero(axes, error, least=0.02)
    finish(axes, "Ratio error in the first minibatch: rollout and update must agree", last=last)
    incidents_behind(axes, data.incidents, shaded_in("policy.first_ratio"))
    bounds(axes, *data.limits["first_ratio"])


def _draw_kl(data: PolicyFrame, axes: Axes, *, last: bool) -> None:
    columns = data.columns
    if data.logged:
        line(axes, data.movement, FIRST, _LOGGED[data.logged])
    else:
        line(axes, columns["kl_k1"], THIRD, "k1", width=0.9)
        line(axes, columns["kl_k2"], SECOND, "k2", width=0.9)
        line(axes, columns["kl_k3"], FIRST, "k3 (judged)")
    if columns["target_kl"].last is not None:
        line(axes, columns["target_kl"], THIRD, "target", width=0.8)
    scale(axes, *([data.movement] if data.logged else [columns["kl_k3"], columns["kl_k2"]]), floor=1e-3)
    finish(axes, "KL from old to new policy, nats", legend=True, last=last)
    incidents_behind(axes, data.incidents, shaded_in("policy.kl"))
    bounds(axes, *data.limits["kl_spike"])


def _draw_ratio(data: PolicyFrame, axes: Axes, *, last: bool) -> None:
    line(axes, data.columns["ratio_max"], FIRST, "largest")
    line(axes, data.columns["ratio_min"], SECOND, "smallest")
    scale(axes, data.columns["ratio_max"], data.columns["ratio_min"], log=True)
    finish(axes, "Joint probability ratio", legend=True, last=last)
    incidents_behind(axes, data.incidents, shaded_in("policy.ratio"))
    bounds(axes, *data.limits["ratio_explosion"])
    bounds(axes, *data.limits["ratio_collapse"])


def _draw_clip(data: PolicyFrame, axes: Axes, *, last: bool) -> None:
    line(axes, data.columns["clip_fraction"], FIRST, "outside the clip range")
    line(axes, data.columns["clip_fraction_positive"], SECOND, "above", width=0.9)
    line(axes, data.columns["clip_fraction_negative"], THIRD, "below", width=0.9)
    from_zero(axes, data.columns["clip_fraction"], least=0.05)
    finish(axes, "Share of samples clipped", legend=True, last=last)
    incidents_behind(axes, data.incidents, shaded_in("policy.clip"))
    bounds(axes, *data.limits["clip_saturation"])


def words(data: PolicyFrame) -> list[str]:
    """Say where KL and ratio were largest and samples fewest, and what the numbers cannot tell."""
    sentences = _caveats(data)
    kl = "KL" if data.logged else "KL (k3)"
    for series, what in ((data.movement, kl), (data.columns["ratio_max"], "The joint ratio")):
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
