"""Policy cells: ratio, KL, clip fraction, entropy and losses of ``updates``, ``steps`` and ``heads``."""

from __future__ import annotations

import numpy as np

from recorder.batch import LOSSES
from recorder.reduce.norms import Numbers
from recorder.reduce.update import Cells, Inner, weighted_mean
from recorder.store.block import Block, nullable


def policy_cells(found: Inner) -> Cells:
    """Return the policy cells of the ``updates`` row."""
    joint = {name: rows[0] for name, rows in found.ratio.items()}
    weights = joint["count"]
    total = float(weights.sum())
    mean, std = _pooled(joint["ratio_mean"], joint["ratio_var"], weights)
    last = found.epoch == found.epoch[-1]
    nonfinite = {name: int(counts.sum()) for name, counts in found.nonfinite.items()}
    broken = np.add.reduce(list(found.nonfinite.values())) > 0
    cells: Cells = {
        "minibatches": found.count,
        "inner_loop_measurable": found.count > 1,
        "ratio_max": _extreme(joint["ratio_max"], weights, largest=True),
        "ratio_min": _extreme(joint["ratio_min"], weights, largest=False),
        "ratio_mean": mean,
        "ratio_std": std,
        "ratio_nonfinite": int(joint["nonfinite"].sum()),
        "clamped_fraction": float(joint["clamped"].sum() / total) if total else None,
        "first_ratio_error": _first(joint),
        "ess_fraction": None if mean is None or std is None else _ess(mean, std),
        "kl_k3_last_epoch": float(joint["k3"][last].mean()),
        "nonfinite_minibatches": int(broken.sum()),
        "nonfinite_sources": ", ".join(f"{name}: {count}" for name, count in nonfinite.items() if count) or None,
    }
    for name in ("k1", "k2", "k3"):
        cells[f"kl_{name}"] = weighted_mean(joint[name], weights)
    if found.clip_known:
        cells["clip_fraction"] = float(joint["clip_fraction"].mean())
        cells["clip_fraction_positive"] = float(joint["clip_positive"].mean())
        cells["clip_fraction_negative"] = float(joint["clip_negative"].mean())
    for name in LOSSES:
        cells[name] = float(found.losses[name].mean()) if name in found.losses else None
    return cells | _entropy_cells(found)


def _first(joint: dict[str, Numbers]) -> float | None:
    return float(joint["log_ratio_abs_max"][0]) if joint["count"][0] > 0 else None


def step_block(found: Inner, update: int, *, hooked: bool) -> Block:
    """Return the rows of ``steps``; without an optimizer hook nobody knows whether a step was taken."""
    joint = {name: rows[0] for name, rows in found.ratio.items()}
    return Block(
        found.count,
        {
            "update": update,
            "epoch": found.epoch,
            "minibatch": np.arange(found.count),
            "samples": joint["count"].astype(np.int64),
            "kl_k1": joint["k1"],
            "kl_k2": joint["k2"],
            "kl_k3": joint["k3"],
            "ratio_max": joint["ratio_max"],
            "ratio_min": joint["ratio_min"],
            "clip_fraction": joint["clip_fraction"] if found.clip_known else None,
            "entropy": None if found.joint is None else found.joint["entropy"],
            "policy_loss": found.losses.get("policy_loss"),
            "value_loss": found.losses.get("value_loss"),
            "grad_norm_pre_clip": nullable(found.pre_clip, found.pre_clip_known),
            "grad_norm_post_clip": nullable(found.post_clip, found.post_clip_known),
            "stepped": found.steps > 0 if hooked else None,
        },
    )


def head_policy_cells(found: Inner, head: int) -> Cells:
    """Return the ratio and entropy cells of one ``heads`` row; ``head`` is its place among the heads."""
    place = 1 + head if found.ratio["count"].shape[0] > 1 + head else 0
    own = {name: rows[place] for name, rows in found.ratio.items()}
    weights = own["count"]
    cells: Cells = {
        "ratio_max": _extreme(own["ratio_max"], weights, largest=True),
        "ratio_min": _extreme(own["ratio_min"], weights, largest=False),
        "kl_k3": weighted_mean(own["k3"], weights),
        "clip_fraction": weighted_mean(own["clip_fraction"], weights) if found.clip_known else None,
    }
    counted = found.heads["count"][head]
    cells["log_prob_min"] = _extreme(found.heads["log_prob_min"][head], counted, largest=False)
    cells["log_prob_max"] = _extreme(found.heads["log_prob_max"][head], counted, largest=True)
    if found.entropy_known:
        cells["entropy"] = weighted_mean(found.heads["entropy"][head], counted)
    if found.choices_known:
        chances = found.heads["choices"][head].sum()
        if chances > 0:
            cells["entropy_conditional"] = float(found.heads["conditional_sum"][head].sum() / chances)
            cells["entropy_norm"] = float(found.heads["norm_sum"][head].sum() / chances)
    return cells


def _entropy_cells(found: Inner) -> Cells:
    if found.joint is None:
        return {}
    cells: Cells = {"entropy": weighted_mean(found.joint["entropy"], found.joint["count"])}
    if found.joint_choices_known:
        choices, count = found.joint["choices"].sum(), found.joint["count"].sum()
        cells["choice_fraction"] = float(choices / count) if count else None
        cells["entropy_norm"] = float(found.joint["norm_sum"].sum() / choices) if choices > 0 else None
    return cells


def _extreme(values: Numbers, weights: Numbers, *, largest: bool) -> float | None:
    if not len(values) or not weights.max() > 0:
        return None
    counted = values if weights.min() > 0 else values[weights > 0]
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
