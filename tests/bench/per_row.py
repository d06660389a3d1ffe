"""What one would write first: a detector that looks at one row after the other, in plain Python.

It is what replay's speed is measured against. It knows the same bounds and streaks, but leaves out most of what makes
the real one exact (excuses by reason, findings as changes, hysteresis), so it does less work a row, not more.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

Row = Mapping[str, Any]


class PerRow:
    """Twenty rules on rows of ``updates`` and three on rows of ``heads``; ``alarms`` counts what they say."""

    def __init__(self) -> None:
        self.alarms = 0
        self.streaks: dict[tuple[str, str], int] = defaultdict(int)
        self.last: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=50))
        self.early: dict[str, list[float]] = defaultdict(list)
        self.typical: dict[str, float] = {}
        self.seen: dict[str, int] = defaultdict(int)

    def say(self, value: float | None, warning: bool) -> None:
        """Count a missing, non-finite or alarming value."""
        if value is None:
            return
        if not math.isfinite(value) or warning:
            self.alarms += 1

    def streak(self, rule: str, subject: str, hit: bool) -> int:
        """Return how many hits running."""
        key = (rule, subject)
        self.streaks[key] = self.streaks[key] + 1 if hit else 0
        return self.streaks[key]

    def level(self, name: str, value: float) -> tuple[float, float]:
        """Return early mean and rolling median of a column, then take the value in."""
        early = self.early[name]
        mean = sum(early) / len(early) if early else math.nan
        if len(early) < 10:
            early.append(value)
        held = self.typical.get(name, math.nan)
        self.last[name].append(value)
        self.seen[name] += 1
        if self.seen[name] % 10 == 0 and self.seen[name] >= 20:
            self.typical[name] = median(self.last[name])
        return mean, held

    def update(self, row: Row) -> None:
        """Judge one row of ``updates``."""
        counts = ("nan_grad_count", "inf_grad_count", "tensors_nonfinite", "ratio_nonfinite", "nonfinite_minibatches")
        for name in counts:
            self.say(row[name], bool(row[name]))
        for name in ("policy_loss", "value_loss", "entropy_loss", "total_loss", "grad_norm_pre_clip"):
            self.say(row[name], False)
        self.say(0.0, row["nonfinite_sources"] is not None)
        self.say(row["dropped_rows"], bool(row["dropped_rows"]))
        self.say(row["first_ratio_error"], row["first_ratio_error"] > 1e-4)
        if row["inner_loop_measurable"]:
            self._movement(row)
        self._critic(row)
        self._advantages(row)
        entropy = row["entropy_norm"]
        if row["choice_fraction"] > 0:
            self.say(entropy, entropy < 0.3)
            self.say(entropy, entropy < 0.1)
        self.say(0.0, self.streak("skipped", "run", row["status"] != "performed") > 0)

    def _movement(self, row: Row) -> None:
        kl, clip = row["kl_k3"], row["clip_fraction"]
        self.last["kl"].append(kl)
        recent = list(self.last["kl"])[-5:]
        self.say(kl, kl > 0.5 or sum(one > 0.1 for one in recent) >= 2)
        over = row["target_kl"] is not None and kl > 1.5 * row["target_kl"]
        self.say(kl, self.streak("target", "run", over) >= 3)
        self.say(kl, self.streak("silent", "run", kl < 1e-6) >= 2 and max(recent) > 1.0)
        self.say(kl, self.streak("still", "run", kl <= 1e-12) >= 3)
        post = row["grad_norm_post_clip_max"]
        self.say(post, post == 0.0 and row["grad_norm_pre_clip_max"] > 0)
        self.say(row["ratio_max"], row["ratio_max"] > 5.0 and (row["ess_fraction"] < 0.8 or kl > 0.1))
        self.say(row["ratio_min"], row["ratio_min"] < 0.1)
        self.say(clip, self.streak("clip", "run", clip > 0.3) >= 3)

    def _critic(self, row: Row) -> None:
        ev, progress = row["explained_variance"], row["progress"]
        varies = not row["ev_low_variance"] and row["return_variance"] > (0.01 * row["return_mean"]) ** 2
        if varies:
            bound = -0.5 if progress < 0.1 else -0.2 if progress < 0.25 else 0.0 if progress < 0.75 else 0.1
            early, level = self.level("ev", ev)
            self.say(ev, self.streak("ev", "run", ev < bound and ev <= early) >= 5)
            self.say(ev, self.streak("constant", "run", abs(ev) < 1e-3) >= 20)
            self.say(ev, level < 0.1 and level <= early + 0.05)
        for name, factor in (("value_nrmse", 3.0), ("bellman_error", 10.0)):
            early, level = self.level(name, row[name])
            self.say(row[name], self.streak(name, "run", row[name] > factor * max(level, early)) >= 3)
        early, level = self.level("norm", row["grad_norm_pre_clip"])
        always = self.streak("always", "run", row["clip_active_fraction"] > 0.9) >= 20
        self.say(row["clip_active_fraction"], always and level > 10 * early)

    def _advantages(self, row: Row) -> None:
        spread = row["advantage_std"]
        early, _ = self.level("spread", spread)
        self.say(spread, self.streak("narrow", "run", spread < 0.1 * early) >= 5)
        outlier = max(abs(row["advantage_min"]), abs(row["advantage_max"])) / spread
        self.say(outlier, outlier > 10)
        returns = self.last["return"]
        returns.append(row["episode_return_mean"])
        self.seen["return"] += 1
        if len(returns) >= 40 and self.seen["return"] % 5 == 0:
            window = list(returns)[-40:]
            before, now = sum(window[:20]) / 20, sum(window[20:]) / 20
            self.say(now, before - now > 0.3 * abs(before))

    def heads(self, rows: Iterable[Row]) -> None:
        """Judge the rows of ``heads`` of one update."""
        for row in rows:
            head, learnable, entropy = row["head"], row["learnable_fraction"], row["entropy_norm"]
            self.say(learnable, learnable is not None and learnable < 0.05)
            if row["kind"] == "categorical" and learnable:
                self.say(entropy, self.streak("low", head, entropy < 0.1) >= 3)
            self.say(0.0, row["zero_explained"] == "unexplained" or row["grad_state"] == "missing")
