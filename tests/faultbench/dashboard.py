"""The fixed thresholds that people put on a dashboard of PPO's usual curves, each debounced by three updates.

Where the numbers come from: Spinning Up stops an update at 1.5 times a target KL that is "usually small, 0.01 or
0.05"; the documentation of Stable-Baselines3 calls an explained variance below 0 worse than predicting zero, and shows
a training in good order with a clip fraction of 0.24, so that 0.5 is the round number above; 10 % of the first entropy
is rl-doctor's floor; a pre-clip gradient norm of 100 is two hundred times the usual bound of 0.5. A mean return is the
one that Stable-Baselines3 logs, of the last 100 episodes; it has fallen where it is below half-way from its first value
to its best. What is not a number is told at once, and is the only thing that is critical.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from esper_analyze.replay.recall import AlarmSpan
from tests.faultbench.alarms import Check, stretches
from tests.faultbench.recording import Recording, Row, updates_of

KL, CLIP_FRACTION, EXPLAINED_VARIANCE, ENTROPY_SHARE, GRADIENT_NORM = 0.05, 0.5, 0.0, 0.1, 100.0
DEBOUNCE = 3

_LOSSES = ("policy_loss", "value_loss", "total_loss")
_CURVES = (*_LOSSES, "approx_kl", "clip_fraction", "entropy", "explained_variance", "grad_norm_pre_clip", "reward_mean")


def judge(recording: Recording) -> tuple[AlarmSpan, ...]:
    """Return the alarms of a training."""
    return stretches(_checks(recording))


def _checks(recording: Recording) -> Iterator[Check]:
    beyond: Counter[str] = Counter()
    entropies, returns = _Entropy(), _Returns()
    for update, row in zip(updates_of(recording.rows), recording.rows, strict=True):
        crossed = {
            "approx_kl": _above(row["approx_kl"], KL),
            "clip_fraction": _above(row["clip_fraction"], CLIP_FRACTION),
            "explained_variance": _below(row["explained_variance"], EXPLAINED_VARIANCE),
            "entropy": entropies.is_low(row["entropy"]),
            "gradient_norm": _above(row["grad_norm_pre_clip"], GRADIENT_NORM),
            "episode_return": returns.has_fallen(row["recent_return_mean"], row["recent_return_std"]),
        }
        for rule, crosses in crossed.items():
            if crosses is not None:
                beyond[rule] = beyond[rule] + 1 if crosses else 0
        firing = {rule: "warning" for rule, count in beyond.items() if count >= DEBOUNCE}
        yield update, firing | ({"not_finite": "critical"} if _not_finite(row) else {})


def _above(value: float | None, bound: float) -> bool | None:
    return None if value is None else value > bound


def _below(value: float | None, bound: float) -> bool | None:
    return None if value is None else value < bound


def _not_finite(row: Row) -> bool:
    counted = any(row[name] for name in ("nan_grad_count", "inf_grad_count", "nonfinite_minibatches"))
    return counted or any(value is not None and not math.isfinite(value) for value in map(row.get, _CURVES))


class _Entropy:
    first: float | None = None

    def is_low(self, entropy: float | None) -> bool | None:
        """Return whether it is below its share of the first; a first that is not positive has no such share."""
        self.first = entropy if self.first is None else self.first
        if entropy is None or self.first is None or self.first <= 0:
            return None
        return entropy < ENTROPY_SHARE * self.first


class _Returns:
    first: float | None = None
    noise = 0.0
    best = -math.inf

    def has_fallen(self, mean: float | None, std: float | None) -> bool | None:
        """Return whether it is below half-way to its best, once that had risen beyond the first ones' deviation."""
        if mean is None or std is None:
            return None
        if self.first is None:
            self.first, self.noise = mean, std
        self.best = max(self.best, mean)
        return self.best - self.first > self.noise and mean < (self.first + self.best) / 2
