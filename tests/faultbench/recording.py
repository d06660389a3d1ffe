"""The scalars of a recorded run as a logger would have written them, one row an update: what peers are given."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from esper_analyze.runs.run import RecordedRun

Row = Mapping[str, float | None]
"""Values by name; None where nothing was measured, NaN where what was measured was not a number."""

EPISODES = 100
"""Stable-Baselines3's ``rollout/ep_rew_mean`` is the mean of the last 100 episodes."""
COLUMNS = (
    "update", "rollout_s", "optimisation_s", "learning_rate", "ratio_mean", "kl_k3", "kl_k3_last_epoch",
    "clip_fraction", "clip_fraction_negative", "clip_fraction_positive", "entropy", "policy_loss", "value_loss",
    "total_loss", "explained_variance", "advantage_mean", "advantage_std", "grad_norm_pre_clip", "grad_norm_post_clip",
    "nan_grad_count", "inf_grad_count", "nonfinite_minibatches",
)  # fmt: skip


@dataclass(frozen=True)
class Recording:
    """The rows of a run in the order of their updates, and the updates that it was planned to have."""

    rows: tuple[Row, ...]
    total_updates: int | None


def recording(run: RecordedRun) -> Recording:
    """Read a run.

    ``approx_kl`` is the k3 estimate of the last epoch, as Stable-Baselines3 logs it. ``reward_*`` are of the
    undiscounted returns of the episodes that ended in the update; a standard deviation needs two of them.
    ``recent_return_mean`` and ``recent_return_std`` are of the last 100 episodes, None until there are so many.
    """
    updates = run.frame("updates", COLUMNS).sort("update").to_dicts()
    returns: dict[int, list[float]] = {}
    for update, value in run.frame("episodes", ("update", "episode_return")).iter_rows():
        returns.setdefault(update, []).append(value)
    recent: deque[float] = deque(maxlen=EPISODES)
    rows = tuple(_row(cells, returns.get(cells["update"], []), recent) for cells in updates)
    return Recording(rows, run.info.get("total_updates"))


def _row(cells: dict[str, Any], returns: list[float], recent: deque[float]) -> Row:
    recent.extend(returns)
    last_epoch, all_epochs = cells.pop("kl_k3_last_epoch"), cells.pop("kl_k3")
    times = [cells.pop("rollout_s"), cells.pop("optimisation_s")]
    return {
        **cells,
        "approx_kl": all_epochs if last_epoch is None else last_epoch,
        "seconds": None if None in times else sum(times),
        "reward_mean": _statistic(np.mean, returns, 1),
        "reward_std": _statistic(np.std, returns, 2),
        "reward_min": _statistic(np.min, returns, 1),
        "reward_max": _statistic(np.max, returns, 1),
        "recent_return_mean": _statistic(np.mean, recent, EPISODES),
        "recent_return_std": _statistic(np.std, recent, EPISODES),
    }


def _statistic(function: Any, values: Any, least: int) -> float | None:
    return float(function(values)) if len(values) >= least else None


def renamed(row: Row, names: Mapping[str, str]) -> dict[str, float]:
    """Return what the row has under a peer's ``names`` (the peer's → the row's), without what was not measured."""
    return {theirs: value for theirs, name in names.items() if (value := row[name]) is not None}


def updates_of(rows: tuple[Row, ...]) -> Iterator[int]:
    """Yield the number of each row's update."""
    for row in rows:
        assert row["update"] is not None
        yield int(row["update"])
