"""Policy cells: ratio, KL, clip fraction, entropy and losses of ``updates``, ``steps`` and ``heads``."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from esper_analyze.schema.constants import TINY_STD
from esper_analyze.schema.row_types import HeadsRow, StepsColumns, UpdatesRow
from esper_analyze.storage.block import Block, nullable
from recorder.capture.batch import LOSSES
from recorder.measure import Numbers, entropy, gaussian, ratios
from recorder.reduce.norms import Flags
from recorder.reduce.update import MinibatchNumbers, summary

_RATIO = {name: index for index, name in enumerate(ratios.FIELDS)}
_HEAD = {name: index for index, name in enumerate(entropy.HEAD_FIELDS + gaussian.STD_FIELDS)}
_JOINT = {name: index for index, name in enumerate(entropy.JOINT_FIELDS)}

LEAST_CHANGE = 1e-5
"""Standard deviation of log-ratios, in nats, up to which they are the rounding of float32 log-probs: no change."""
SLACK = 0.01
"""Absolute and relative excess of an entropy over its bounds that half precision may cause."""


def _mean_correlation(covariance: Numbers, variances: Numbers, counts: Numbers, chosen: Flags) -> float | None:
    """Return the mean correlation of the ``chosen`` minibatches that have samples, weighted by them; None without."""
    chosen = chosen & (counts > 0)
    if not chosen.any():
        return None
    by_minibatch = np.clip(covariance[chosen] / np.sqrt(variances[chosen]), -1.0, 1.0)
    return float(np.average(by_minibatch, weights=counts[chosen]))


class PolicyNumbers:
    """Policy statistics of an update, reduced over its minibatches."""

    def __init__(self, minibatches: MinibatchNumbers) -> None:
        self.minibatches = minibatches
        self.ratio = summary(minibatches.ratio, minibatches.ratio[_RATIO["count"]])
        self.heads = summary(minibatches.heads, minibatches.heads[_HEAD["count"]])
        self.joint = (
            None
            if minibatches.joint is None
            else summary(minibatches.joint[:, None], minibatches.joint[None, _JOINT["count"]])
        )

    def contradicted(self, sizes: Mapping[int, int]) -> list[int]:
        """Return the indices of heads whose entropy lies outside 0 … ln(size); ``sizes``: by index of the head."""
        if not self.minibatches.entropy_known:
            return []
        least, most = self.heads.smallest[_HEAD["entropy_min"]], self.heads.largest[_HEAD["entropy_max"]]
        return [
            head
            for head, size in sizes.items()
            if self.heads.count[head] > 0
            and (least[head] < -SLACK or most[head] > math.log(size) * (1 + SLACK) + SLACK)
        ]

    def update_cells(self, *, hooked: bool) -> UpdatesRow:
        """Return the policy cells of the ``updates`` row. ``hooked``: optimizer steps are recorded."""
        minibatches, ratio = self.minibatches, self.ratio
        has_samples = ratio.count[0] > 0
        counts = minibatches.nonfinite.sum(axis=1).tolist()
        cells: UpdatesRow = {
            "minibatches": minibatches.count,
            "epochs": len(np.unique(minibatches.epoch)),
            "inner_loop_measurable": bool(minibatches.steps[:-1].any()) if hooked else minibatches.count > 1,
            "ratio_nonfinite": int(ratio.total[_RATIO["nonfinite"]][0]),
            "nonfinite_minibatches": int(np.count_nonzero(minibatches.nonfinite.sum(axis=0))),
            "nonfinite_sources": ", ".join(
                f"{name}: {int(count)}" for name, count in zip(minibatches.sources, counts, strict=True) if count
            )
            or None,
        }
        for name in LOSSES:
            cells[name] = float(minibatches.losses[name].mean()) if name in minibatches.losses else None
        cells |= self._loss_cells()
        if has_samples:
            cells |= self._ratio_cells()
        return cells | self._entropy_cells()

    def _loss_cells(self) -> UpdatesRow:
        """Return how far the losses that were passed are from PPO's formulas; null where undefined."""
        counted = self.minibatches.ratio[_RATIO["count"], 0] > 0
        losses = {name: numbers[counted] for name, numbers in self.minibatches.losses.items()}
        cells = UpdatesRow()
        if "surrogate_loss" in losses and counted.any():
            size, apart = losses["surrogate_size"].mean(), losses["policy_loss"] - losses["surrogate_loss"]
            cells["policy_loss_error"] = float(np.sqrt(np.square(apart).mean()) / size) if size != 0 else None
        if "squared_error" in losses and counted.any():
            expected = losses["squared_error"].mean()
            cells["value_loss_factor"] = float(losses["value_loss"].mean() / expected) if expected != 0 else None
        return cells

    def _ratio_cells(self) -> UpdatesRow:
        minibatches, ratio = self.minibatches, self.ratio
        last = (minibatches.epoch == minibatches.epoch[-1]) & (minibatches.ratio[_RATIO["count"], 0] > 0)
        mean, std = self._pooled()
        k1, k2, k3 = (ratio.weighted[_RATIO[name]][0] for name in ("k1", "k2", "k3"))
        cells: UpdatesRow = {
            "samples": int(ratio.count[0]),
            "ratio_max": ratio.largest[_RATIO["ratio_max"]][0],
            "ratio_min": ratio.smallest[_RATIO["ratio_min"]][0],
            "ratio_mean": mean,
            "ratio_std": std,
            "ess_fraction": mean * mean / (mean * mean + std * std),
            "clamped_fraction": ratio.total[_RATIO["clamped"]][0] / ratio.count[0],
            "kl_k1": k1,
            "kl_k2": k2,
            "kl_k3": k3,
            "advantage_alignment": self._alignment(0),
            "minibatch_advantage_consistency": self._consistency(),
            "kl_k3_last_epoch": float(minibatches.ratio[_RATIO["k3"], 0, last].mean()) if last.any() else None,
        }
        if minibatches.ratio[_RATIO["count"], 0, 0] > 0:
            cells["first_ratio_error"] = float(minibatches.ratio[_RATIO["log_ratio_abs_max"], 0, 0])
        if minibatches.clip_known:
            cells["clip_fraction"] = ratio.mean[_RATIO["clip_fraction"]][0]
            cells["clip_fraction_positive"] = ratio.mean[_RATIO["clip_positive"]][0]
            cells["clip_fraction_negative"] = ratio.mean[_RATIO["clip_negative"]][0]
        return cells

    def _alignment(self, row: int) -> float | None:
        """Return the correlation of log-ratio and raw advantage over the last epoch; ``row``: 0 the joint, 1 + head.

        Mean over the minibatches in which it is defined, weighted by samples; None without any.
        """
        minibatches = self.minibatches
        counts, change, mean, spread, covariance = (
            minibatches.ratio[_RATIO[name], row]
            for name in ("count", "log_ratio_var", "advantage_mean", "advantage_var", "covariance")
        )
        chosen = minibatches.advantages_known & (minibatches.epoch == minibatches.epoch[-1])
        chosen &= ~(change <= LEAST_CHANGE**2) & ~(spread <= np.square(TINY_STD * mean))  # NaN is a number to record
        return _mean_correlation(covariance, change * spread, counts, chosen)

    def _consistency(self) -> float | None:
        """Return the correlation of the advantages in the loss with the raw ones: mean over minibatches, by samples."""
        counts, mean, used, raw_mean, raw, covariance = (
            self.minibatches.ratio[_RATIO[name], 0]
            for name in ("count", "used_mean", "used_var", "raw_mean", "raw_var", "used_covariance")
        )
        chosen = self.minibatches.used_known & ~(used <= np.square(TINY_STD * mean))
        return _mean_correlation(covariance, used * raw, counts, chosen & ~(raw <= np.square(TINY_STD * raw_mean)))

    def _pooled(self) -> tuple[float, float]:
        """Return mean and population standard deviation of the joint ratio over all minibatches (Chan et al. 1983)."""
        counts, means, variances = (
            self.minibatches.ratio[_RATIO[name], 0] for name in ("count", "ratio_mean", "ratio_var")
        )
        mean = self.ratio.weighted[_RATIO["ratio_mean"]][0]
        spread = np.where(counts > 0, (variances + (means - mean) ** 2) * counts, 0.0)
        return mean, math.sqrt(variance) if (variance := float(spread.sum() / counts.sum())) >= 0 else math.nan

    def _entropy_cells(self) -> UpdatesRow:
        joint = self.joint
        if joint is None or not joint.count[0] > 0:
            return {}
        cells: UpdatesRow = {
            "entropy": joint.weighted[_JOINT["entropy"]][0],
            "choices_unknown": self.minibatches.unsized,
        }
        if self.minibatches.joint_choices_known:
            choices = joint.total[_JOINT["choices"]][0]
            cells["choice_samples"] = int(choices)
            cells["choice_fraction"] = choices / joint.count[0]
            cells["entropy_norm"] = joint.total[_JOINT["norm_sum"]][0] / choices if choices > 0 else None
        return cells

    def head_cells(self, head: int) -> HeadsRow:
        """Return the ratio and entropy cells of one ``heads`` row; ``head``: its index."""
        ratio, heads = self.ratio, self.heads
        row = 1 + head if len(ratio.count) > 1 + head else 0
        cells: HeadsRow = {"relevant_samples": int(ratio.count[row]), "samples": int(heads.count[head])}
        if ratio.count[row] > 0:
            cells["ratio_max"] = ratio.largest[_RATIO["ratio_max"]][row]
            cells["ratio_min"] = ratio.smallest[_RATIO["ratio_min"]][row]
            cells["kl_k3"] = ratio.weighted[_RATIO["k3"]][row]
            cells["advantage_alignment"] = self._alignment(row)
            cells["clip_fraction"] = (
                ratio.weighted[_RATIO["clip_fraction"]][row] if self.minibatches.clip_known else None
            )
        if not heads.count[head] > 0:
            return cells
        cells["log_prob_min"] = heads.smallest[_HEAD["log_prob_min"]][head]
        cells["log_prob_max"] = heads.largest[_HEAD["log_prob_max"]][head]
        if self.minibatches.entropy_known:
            cells["entropy"] = heads.weighted[_HEAD["entropy"]][head]
        if self.minibatches.std_known[head]:
            cells |= self._std_cells(head)
        chances = heads.total[_HEAD["choices"]][head]
        if self.minibatches.choices_known[head]:
            cells["choice_samples"] = int(chances)
        if self.minibatches.choices_known[head] and chances > 0:
            cells["entropy_conditional"] = heads.total[_HEAD["conditional_sum"]][head] / chances
            cells["entropy_norm"] = heads.total[_HEAD["norm_sum"]][head] / chances
        return cells

    def _std_cells(self, head: int) -> HeadsRow:
        heads, numbers = self.heads, self.minibatches.heads[:, head]
        smallest = np.where(numbers[_HEAD["count"]] > 0, numbers[_HEAD["std_min"]], np.inf)
        return {
            "std_min": heads.smallest[_HEAD["std_min"]][head],
            "std_mean": heads.weighted[_HEAD["std_mean"]][head],
            "std_max": heads.largest[_HEAD["std_max"]][head],
            "std_nonpositive_fraction": heads.weighted[_HEAD["std_nonpositive"]][head],
            "std_min_dimension": int(numbers[_HEAD["std_min_dimension"], np.argmin(smallest)]),
        }


def step_block(minibatches: MinibatchNumbers, update: int, *, hooked: bool) -> Block:
    """Return the rows of ``steps``; ``stepped`` is null without an optimizer hook."""
    joint = dict(zip(ratios.FIELDS, minibatches.ratio[:, 0], strict=True))
    counted = joint["count"] > 0
    entropy_rows = None if minibatches.joint is None else minibatches.joint[_JOINT["entropy"]]
    cells: StepsColumns = {
        "update": update,
        "epoch": minibatches.epoch,
        "minibatch": np.arange(minibatches.count),
        "samples": joint["count"].astype(np.int64),
        "kl_k1": nullable(joint["k1"], counted),
        "kl_k2": nullable(joint["k2"], counted),
        "kl_k3": nullable(joint["k3"], counted),
        "ratio_max": nullable(joint["ratio_max"], counted),
        "ratio_min": nullable(joint["ratio_min"], counted),
        "clip_fraction": nullable(joint["clip_fraction"], counted) if minibatches.clip_known else None,
        "entropy": None if entropy_rows is None else nullable(entropy_rows, counted),
        "policy_loss": minibatches.losses.get("policy_loss"),
        "value_loss": minibatches.losses.get("value_loss"),
        "grad_norm_pre_clip": nullable(minibatches.pre_clip, minibatches.pre_clip_known),
        "grad_norm_post_clip": nullable(minibatches.post_clip, minibatches.post_clip_known),
        "stepped": minibatches.steps > 0 if hooked else None,
    }
    return Block(minibatches.count, cells)
