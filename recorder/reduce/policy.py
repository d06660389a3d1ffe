"""Policy cells: ratio, KL, clip fraction, entropy and losses of ``updates``, ``steps`` and ``heads``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recorder.minibatch import LOSSES
from recorder.reduce.update import Cells, Numbers, Step, known_mean, weighted_mean


def policy_cells(steps: Sequence[Step]) -> Cells:
    """Return the policy cells of the ``updates`` row; every cell is null when no minibatch was seen."""
    if not steps:
        return {}
    joint = _row(steps, 0)
    weights = joint["count"]
    mean, std = _pooled(joint["ratio_mean"], joint["ratio_var"], weights)
    last = [step for step in steps if step.epoch == steps[-1].epoch]
    cells: Cells = {
        "minibatches": len(steps),
        "inner_loop_measurable": len(steps) > 1,
        "ratio_max": _extreme(joint["ratio_max"], weights, largest=True),
        "ratio_min": _extreme(joint["ratio_min"], weights, largest=False),
        "ratio_mean": mean,
        "ratio_std": std,
        "ratio_nonfinite": int(joint["nonfinite"].sum()),
        "clamped_fraction": float(joint["clamped"].sum() / weights.sum()) if weights.sum() else None,
        "first_ratio_error": float(joint["log_ratio_abs_max"][0]),
        "ess_fraction": None if mean is None or std is None else _ess(mean, std),
        "kl_k3_last_epoch": known_mean([float(step.ratio["k3"][0]) for step in last]),
        "nonfinite_minibatches": sum(bool(step.nonfinite) for step in steps),
        "nonfinite_sources": _sources(steps),
    }
    for name in ("k1", "k2", "k3"):
        cells[f"kl_{name}"] = weighted_mean(joint[name], weights)
    if steps[0].clip_known:
        cells["clip_fraction"] = float(np.mean(joint["clip_fraction"]))
        cells["clip_fraction_positive"] = float(np.mean(joint["clip_positive"]))
        cells["clip_fraction_negative"] = float(np.mean(joint["clip_negative"]))
    for place, name in enumerate(LOSSES):
        cells[name] = known_mean([step.losses[place] for step in steps])
    return cells | _entropy_cells(steps)


def step_rows(steps: Sequence[Step], update: int, *, hooked: bool) -> list[Cells]:
    """Return the rows of ``steps``; without an optimizer hook nobody knows whether a step was taken."""
    rows = []
    for place, step in enumerate(steps):
        joint = {name: float(row[0]) for name, row in step.ratio.items()}
        rows.append(
            {
                "update": update,
                "epoch": step.epoch,
                "minibatch": place,
                "samples": step.samples,
                "kl_k1": joint["k1"],
                "kl_k2": joint["k2"],
                "kl_k3": joint["k3"],
                "ratio_max": joint["ratio_max"],
                "ratio_min": joint["ratio_min"],
                "clip_fraction": joint["clip_fraction"] if step.clip_known else None,
                "entropy": None if step.joint is None else step.joint["entropy"],
                "policy_loss": step.losses[0],
                "value_loss": step.losses[1],
                "grad_norm_pre_clip": step.pre_clip,
                "grad_norm_post_clip": step.post_clip,
                "stepped": step.steps > 0 if hooked else None,
            }
        )
    return rows


def head_policy_cells(steps: Sequence[Step], head: int) -> Cells:
    """Return the ratio and entropy cells of one ``heads`` row; ``head`` is its place among the heads."""
    if not steps:
        return {}
    own = _row(steps, 1 + head) if steps[0].ratio["count"].shape[0] > 1 + head else _row(steps, 0)
    weights = own["count"]
    cells: Cells = {
        "ratio_max": _extreme(own["ratio_max"], weights, largest=True),
        "ratio_min": _extreme(own["ratio_min"], weights, largest=False),
        "kl_k3": weighted_mean(own["k3"], weights),
        "clip_fraction": weighted_mean(own["clip_fraction"], weights) if steps[0].clip_known else None,
    }
    entropy = {name: np.array([step.heads[name][head] for step in steps]) for name in steps[0].heads}
    cells["log_prob_min"] = float(entropy["log_prob_min"].min())
    cells["log_prob_max"] = float(entropy["log_prob_max"].max())
    if steps[0].entropy_known:
        cells["entropy"] = weighted_mean(entropy["entropy"], entropy["count"])
    if steps[0].choices_known:
        chances = entropy["choices"].sum()
        if chances > 0:
            cells["entropy_conditional"] = float(entropy["conditional_sum"].sum() / chances)
            cells["entropy_norm"] = float(entropy["norm_sum"].sum() / chances)
    return cells


def _entropy_cells(steps: Sequence[Step]) -> Cells:
    joint = [step.joint for step in steps if step.joint is not None]
    if not joint:
        return {}
    columns = {name: np.array([row[name] for row in joint]) for name in joint[0]}
    cells: Cells = {"entropy": weighted_mean(columns["entropy"], columns["count"])}
    if steps[0].joint_choices_known:
        choices = columns["choices"].sum()
        cells["choice_fraction"] = float(choices / columns["count"].sum())
        cells["entropy_norm"] = float(columns["norm_sum"].sum() / choices) if choices > 0 else None
    return cells


def _row(steps: Sequence[Step], place: int) -> dict[str, Numbers]:
    return {name: np.array([step.ratio[name][place] for step in steps]) for name in steps[0].ratio}


def _extreme(values: Numbers, weights: Numbers, *, largest: bool) -> float | None:
    counted = values[weights > 0]
    if not len(counted):
        return None
    return float(counted.max() if largest else counted.min())


def _pooled(means: Numbers, variances: Numbers, weights: Numbers) -> tuple[float | None, float | None]:
    """Join minibatch means and variances (Chan et al. 1983), population."""
    mean = weighted_mean(means, weights)
    if mean is None:
        return None, None
    variance = weighted_mean(variances + (means - mean) ** 2, weights)
    return mean, None if variance is None else float(np.sqrt(variance))


def _ess(mean: float, std: float) -> float:
    return mean * mean / (mean * mean + std * std)


def _sources(steps: Sequence[Step]) -> str | None:
    total: dict[str, int] = {}
    for step in steps:
        for name, number in step.nonfinite.items():
            total[name] = total.get(name, 0) + number
    return ", ".join(f"{name}: {number}" for name, number in total.items()) or None
