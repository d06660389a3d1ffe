"""What ratio, KL, clip fractions, entropy and losses are, from their definitions, in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.recorder.witness.drawn import Array, DrawnMinibatch, DrawnTraining, DrawnUpdate
from tests.recorder.witness.rollouts import correlated

Cells = dict[str, Any]


@dataclass
class Ratios:
    """Log-ratios of one minibatch, of the joint or of one head, over the samples that count; and raw advantages."""

    raw: Array
    bounded: Array
    clamped: Array
    clip_range: float | None
    advantages: Array | None

    @property
    def ratio(self) -> Array:
        return np.exp(self.bounded)

    @property
    def k3(self) -> Array:
        return self.ratio - 1 - self.bounded

    def alignment(self) -> float | None:
        """Return the correlation of bounded log-ratio and raw advantage; None where either is constant."""
        if self.advantages is None or not len(self.bounded):
            return None
        pair = self.bounded, self.advantages
        if any(np.isfinite(x).all() and np.ptp(x) <= 1e-12 * np.abs(x).max() for x in pair):
            return None
        x, y = (x - x.mean() for x in pair)
        return float((x * y).mean() / math.sqrt((x**2).mean() * (y**2).mean()))

    def outside(self) -> tuple[float, float, float] | None:
        """Return the shares of |r − 1|, r − 1 and 1 − r above the clip range."""
        if self.clip_range is None:
            return None
        away = self.ratio - 1
        shares = np.abs(away) > self.clip_range, away > self.clip_range, -away > self.clip_range
        return float(shares[0].mean()), float(shares[1].mean()), float(shares[2].mean())


def clamp(x: Array, bound: float) -> Array:
    return np.where(np.isnan(x), np.nan, np.clip(x, -bound, bound))


def ratios(drawn: DrawnTraining, one: DrawnMinibatch) -> dict[str, Ratios]:
    """Return the log-ratios of the joint ('') and of each head."""
    raw = {h: one.by_head["log_prob"][h] - one.by_head["old_log_prob"][h] for h in drawn.heads}
    matters = {h: one.relevant.get(h, np.ones(one.samples, bool)) for h in drawn.heads}
    bounded = {h: clamp(raw[h], 20.0) for h in drawn.heads}
    met = {h: (bounded[h] != raw[h]) & ~np.isnan(raw[h]) & matters[h] for h in drawn.heads}
    joint = np.sum([np.where(matters[h], raw[h], 0.0) for h in drawn.heads], axis=0)
    total = np.sum([np.where(matters[h], bounded[h], 0.0) for h in drawn.heads], axis=0)
    if "joint_log_ratio" in one.rows:
        joint = one.rows["joint_log_ratio"]
        total = np.where(np.any(list(met.values()), axis=0) | np.isnan(total), total, joint)
    joint_bounded = clamp(total, 30.0)
    any_met = np.any([*met.values(), (np.abs(total) > 30.0)], axis=0)
    if "joint_log_ratio" in one.rows:
        any_met |= (joint_bounded != joint) & ~np.isnan(joint)
    raw_advantages = one.rows["returns"] - one.rows["old_values"] if "returns" in one.rows else None

    def part(samples: Array, raw: Array, bounded: Array, clamped: Array) -> Ratios:
        advantages = None if raw_advantages is None else raw_advantages[samples]
        return Ratios(raw[samples], bounded[samples], clamped[samples], one.clip_range, advantages)

    parts = {"": part(one.counted, joint, joint_bounded, any_met)}
    for h in drawn.heads:
        parts[h] = part(one.counted & matters[h], raw[h], bounded[h], met[h])
    return parts


def alignment(parts: Sequence[Ratios], now: DrawnUpdate) -> float | None:
    """Return the mean of the last epoch's correlations, weighted by samples."""
    begun = now.minibatches[-1].epoch
    last = [f for f, one in zip(parts, now.minibatches, strict=True) if one.epoch == begun]
    pairs = [(cell, len(f.bounded)) for f in last if (cell := f.alignment()) is not None]
    return sum(cell * n for cell, n in pairs) / sum(n for _, n in pairs) if pairs else None


def consistency(drawn: DrawnTraining, now: DrawnUpdate) -> float | None:
    """Return the mean of the minibatches' correlations of advantages and raw advantages, weighted by samples."""
    pairs = []
    for one in now.minibatches:
        if "returns" in one.rows and one.counted.any():
            returns, values = one.rows["returns"], one.rows["old_values"]
            raw, used = (x[one.counted] for x in (returns - values, one.rows["advantages"]))
            cell = correlated(used, raw, drawn.rounding * np.abs([*returns, *values]).max())
            pairs += [] if cell is None else [(cell, one.counted.sum())]
    return sum(cell * n for cell, n in pairs) / sum(n for _, n in pairs) if pairs else None


def joined(parts: Sequence[Array]) -> Array:
    return np.concatenate([np.zeros(0), *parts])


def choices(drawn: DrawnTraining, one: DrawnMinibatch) -> dict[str, Array]:
    """Return the number of valid actions of each categorical head; without masks its size, or its last layer's."""
    counts = {}
    for h in drawn.heads:
        if h == drawn.gaussian:
            continue
        counts[h] = one.masks[h].sum(1) if h in one.masks else np.full(one.samples, drawn.sizes[h])
    return counts


def joint_entropy(drawn: DrawnTraining, one: DrawnMinibatch) -> Array | None:
    if "joint_entropy" in one.rows:
        return one.rows["joint_entropy"]
    heads = one.by_head["entropy"]
    return np.sum([heads[h] for h in drawn.heads], axis=0) if heads else None


def broken(drawn: DrawnTraining, one: DrawnMinibatch) -> dict[str, int]:
    """Return by source how many numbers are NaN or ±Inf."""
    counts = {
        f"{what}[{h}]": int((~np.isfinite(one.by_head[what][h][one.counted])).sum())
        for what in ("log_prob", "old_log_prob", "entropy")
        if one.by_head[what]
        for h in drawn.heads
    }
    counts["values"] = int((~np.isfinite(one.rows["values"][one.counted])).sum())
    counts |= {
        name.replace("loss", "total_loss") if name == "loss" else name: int(not np.isfinite(x))
        for name, x in one.losses.items()
    }
    return {name: count for name, count in counts.items() if count}


def mean(x: Array | Sequence[float]) -> float | None:
    return float(np.mean(x)) if len(x) else None


def update_cells(drawn: DrawnTraining, now: DrawnUpdate) -> Cells:
    """Return the policy cells of a row of ``updates``."""
    parts = [ratios(drawn, one)[""] for one in now.minibatches]
    bounded, r = joined([f.bounded for f in parts]), joined([f.ratio for f in parts])
    some = [f for f in parts if len(f.bounded)]
    begun = now.minibatches[-1].epoch
    last = [f for f, one in zip(parts, now.minibatches, strict=True) if one.epoch == begun and len(f.bounded)]
    sources: dict[str, int] = {}
    for one in now.minibatches:
        for name, count in broken(drawn, one).items():
            sources[name] = sources.get(name, 0) + count
    cells: Cells = {
        "minibatches": len(now.minibatches),
        "epochs": len({one.epoch for one in now.minibatches}),
        "minibatch_advantage_consistency": consistency(drawn, now),
        "samples": len(r) if len(r) else None,
        "clip_range": now.minibatches[-1].clip_range,
        "ratio_nonfinite": int((~np.isfinite(joined([f.raw for f in parts]))).sum()),
        "nonfinite_minibatches": sum(bool(broken(drawn, one)) for one in now.minibatches),
        "nonfinite_sources": sources or None,
        "ratio_max": float(r.max()) if len(r) else None,
        "ratio_min": float(r.min()) if len(r) else None,
        "ratio_mean": mean(r),
        "ratio_std": float(r.std()) if len(r) else None,
        "ess_fraction": float(r.sum() ** 2 / (len(r) * (r**2).sum())) if len(r) else None,
        "clamped_fraction": mean(joined([f.clamped for f in parts])),
        "first_ratio_error": float(np.abs(parts[0].raw).max()) if len(parts[0].raw) else None,
        "kl_k1": mean(-bounded),
        "kl_k2": mean(bounded**2 / 2),
        "kl_k3": mean(r - 1 - bounded),
        "advantage_alignment": alignment(parts, now),
        "kl_k3_last_epoch": mean([float(f.k3.mean()) for f in last]),
    }
    shares = [f.outside() for f in some]
    for place, name in enumerate(("clip_fraction", "clip_fraction_positive", "clip_fraction_negative")):
        known = [share[place] for share in shares if share is not None]
        cells[name] = mean(known) if len(known) == len(some) else None
    for name in ("policy_loss", "value_loss", "entropy_loss", "total_loss"):
        given = [one.losses.get("loss" if name == "total_loss" else name) for one in now.minibatches]
        known = [loss for loss in given if loss is not None]
        cells[name] = mean(known) if len(known) == len(given) else None
    return cells | loss_cells(drawn, now) | entropy_cells(drawn, now)


def loss_cells(drawn: DrawnTraining, now: DrawnUpdate) -> Cells:
    """Return how far policy and value loss are from PPO's formulas."""
    cells: Cells = dict.fromkeys(("policy_loss_error", "value_loss_factor"))
    some = [one for one in now.minibatches if one.counted.any()]
    if not some:
        return cells
    if all(one.clip_range is not None and "policy_loss" in one.losses for one in now.minibatches):
        sizes, apart = [], []
        for one in some:
            ratio, advantages = np.exp(ratios(drawn, one)[""].raw), one.rows["advantages"][one.counted]
            assert one.clip_range is not None
            held = np.clip(ratio, 1 - one.clip_range, 1 + one.clip_range)
            sizes.append(np.abs(ratio * advantages).mean())
            apart.append(one.losses["policy_loss"] + np.minimum(ratio * advantages, held * advantages).mean())
        cells["policy_loss_error"] = float(np.sqrt(np.square(apart).mean()) / np.mean(sizes))
    if all("returns" in one.rows for one in now.minibatches):
        squares = [((one.rows["values"] - one.rows["returns"])[one.counted] ** 2).mean() for one in some]
        cells["value_loss_factor"] = float(np.mean([one.losses["value_loss"] for one in some]) / np.mean(squares))
    return cells


ENTROPY = ("entropy", "entropy_norm", "choice_fraction", "choice_samples", "choices_unknown")


def entropy_cells(drawn: DrawnTraining, now: DrawnUpdate) -> Cells:
    whole, shares, chosen, count = [], [], 0, 0
    known = True
    for one in now.minibatches:
        entropy, valid = joint_entropy(drawn, one), choices(drawn, one)
        if entropy is None:
            return dict.fromkeys(ENTROPY)
        whole.append(entropy[one.counted])
        count += int(one.counted.sum())
        if drawn.gaussian is not None:
            known = False
            continue
        some = np.any([n > 1 for n in valid.values()], axis=0) & one.counted
        room = np.sum([np.log(n) for n in valid.values()], axis=0)
        shares.append(entropy[some] / room[some])
        chosen += int(some.sum())
    total = joined(whole)
    cells: Cells = dict.fromkeys(ENTROPY) | {"entropy": mean(total), "choices_unknown": False if len(total) else None}
    if known and len(total):
        cells |= {"choice_samples": chosen, "choice_fraction": chosen / count, "entropy_norm": mean(joined(shares))}
    return cells


def step_cells(drawn: DrawnTraining, one: DrawnMinibatch, place: int, *, clip_known: bool) -> Cells:
    """Return the policy cells of a row of ``steps``."""
    f, entropy = ratios(drawn, one)[""], joint_entropy(drawn, one)
    outside = f.outside() if len(f.bounded) else None
    return {
        "epoch": one.epoch,
        "minibatch": place,
        "samples": int(one.counted.sum()),
        "kl_k1": mean(-f.bounded),
        "kl_k2": mean(f.bounded**2 / 2),
        "kl_k3": mean(f.k3),
        "ratio_max": float(f.ratio.max()) if len(f.bounded) else None,
        "ratio_min": float(f.ratio.min()) if len(f.bounded) else None,
        "clip_fraction": outside[0] if outside is not None and clip_known else None,
        "entropy": mean(entropy[one.counted]) if entropy is not None else None,
        "value_loss": one.losses["value_loss"],
    }


def head_cells(drawn: DrawnTraining, now: DrawnUpdate, head: str) -> Cells:
    """Return the policy cells of a row of ``heads``."""
    parts = [ratios(drawn, one)[head] for one in now.minibatches]
    bounded, r = joined([f.bounded for f in parts]), joined([f.ratio for f in parts])
    log_prob = joined([one.by_head["log_prob"][head][one.counted] for one in now.minibatches])
    clip_known = all(one.clip_range is not None for one in now.minibatches)
    away = joined([np.abs(f.ratio - 1) > (f.clip_range or 0.0) for f in parts])
    cells: Cells = {
        "head": head,
        "kind": "gaussian" if head == drawn.gaussian else "categorical",
        "coefficient": drawn.coefficients.get(head),
        "samples": len(log_prob),
        "relevant_samples": len(r),
        "ratio_max": float(r.max()) if len(r) else None,
        "ratio_min": float(r.min()) if len(r) else None,
        "kl_k3": mean(r - 1 - bounded),
        "advantage_alignment": alignment(parts, now),
        "clip_fraction": mean(away) if clip_known else None,
        "log_prob_min": float(log_prob.min()) if len(log_prob) else None,
        "log_prob_max": float(log_prob.max()) if len(log_prob) else None,
    }
    cells |= std_cells(drawn, now, head)
    at_bounds = now.at_bounds if head == drawn.gaussian else None
    cells["action_bound_fraction"] = None if at_bounds is None else float(at_bounds.mean())
    cells |= dict.fromkeys(("entropy", "entropy_conditional", "entropy_norm", "choice_samples"))
    if not now.minibatches[0].by_head["entropy"] or not len(log_prob):
        return cells
    entropies = [one.by_head["entropy"][head] for one in now.minibatches]
    cells["entropy"] = mean(joined([h[one.counted] for h, one in zip(entropies, now.minibatches, strict=True)]))
    valid = [choices(drawn, one) for one in now.minibatches]
    if head == drawn.gaussian:
        return cells
    counts = [one[head] for one in valid]
    inside = [one.counted & (n > 1) for one, n in zip(now.minibatches, counts, strict=True)]
    conditional = joined([h[some] for h, some in zip(entropies, inside, strict=True)])
    room = joined([np.log(n[some]) for n, some in zip(counts, inside, strict=True)])
    return cells | {
        "choice_samples": len(conditional),
        "entropy_conditional": mean(conditional),
        "entropy_norm": mean(conditional / room),
    }


STD = ("std_min", "std_mean", "std_max", "std_nonpositive_fraction", "std_min_dimension")


def std_cells(drawn: DrawnTraining, now: DrawnUpdate, head: str) -> Cells:
    """Return the standard deviations of a Gaussian head over the dimensions and samples that count."""
    if head != drawn.gaussian or any(one.std is None for one in now.minibatches):
        return dict.fromkeys(STD)
    parts = []
    for one in now.minibatches:
        assert one.std is not None
        parts.append(np.broadcast_to(one.std, (one.samples, one.std.shape[-1]))[one.counted])
    std = np.concatenate(parts)
    if not len(std):
        return dict.fromkeys(STD)
    first = next(part for part in parts if len(part) and np.array_equal(part.min(), std.min(), equal_nan=True))
    return {
        "std_min": float(std.min()),
        "std_mean": float(std.mean()),
        "std_max": float(std.max()),
        "std_nonpositive_fraction": float(1 - (std > 0).mean()),
        "std_min_dimension": int(np.argmin(first.min(0))),
    }
