"""What CleanRL's PPO scripts log: one row of ``losses/`` after each update, and each finished episode as it ends.

Losses, entropy and KL are those of the last minibatch. Steps are environment steps: an update is as many as its batch.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from esper_analyze.interchange.framework import Framework
from esper_analyze.interchange.imported import Imported, Row
from esper_analyze.interchange.numbering import by_batches
from esper_analyze.interchange.series import Named, ScalarLog, cell, leave_out, mapped_cells

_LAST = "last minibatch, not the mean"

UPDATES = {
    "losses/value_loss": Named("value_loss", _LAST),
    "losses/policy_loss": Named("policy_loss", _LAST),
    "losses/entropy": Named("entropy", _LAST),
    "losses/old_approx_kl": Named("kl_k1", _LAST),
    "losses/approx_kl": Named("kl_k3_last_epoch", "last minibatch, not the mean over its epoch"),
    "losses/clipfrac": Named("clip_fraction"),
    "losses/explained_variance": Named("explained_variance"),
    "charts/learning_rate": Named("learning_rate"),
}
RETURN, LENGTH = "charts/episodic_return", "charts/episodic_length"


def take(log: ScalarLog, imported: Imported) -> None:
    """Add the updates and episodes of ``log`` to ``imported``."""
    imported.facts |= {"framework": "CleanRL", "algorithm": "PPO"}
    rows = [row for row in log.rows(lambda name: name in UPDATES, imported) if row.begins("losses/")]
    numbers = by_batches(rows, counted=log.timesteps)
    episodes = _episodes(log, imported, [row.step for row in rows])
    for row, number in zip(rows, numbers, strict=True):
        mine = episodes.get(row.step, [])
        for episode in mine:
            imported.add("episodes", {"update": number, **episode})
        clock: Row = {"wall_time": row.wall, "env_steps": row.step if log.timesteps else None}
        head = {"update": number, "level": "NORMAL", "status": "performed"}
        imported.add("updates", head | clock | mapped_cells(imported, row, UPDATES) | _means(mine))
    imported.count_gaps(numbers, "was not logged")
    leave_out(imported, log.series, (*UPDATES, RETURN, LENGTH))


def _episodes(log: ScalarLog, imported: Imported, ends: Sequence[int]) -> dict[int, list[Row]]:
    """Return the episodes by the step of the row of losses that comes at or after their end."""
    returns, lengths = log.series.get(RETURN), log.series.get(LENGTH)
    if returns is None:
        return {}
    usable_lengths = lengths if lengths is not None and lengths.steps == returns.steps else None
    ended: dict[int, list[Row]] = {}
    for index, step in enumerate(returns.steps):
        row: Row = {
            "episode_return": cell(imported, "episodes", "episode_return", returns.values[index], f"{RETURN} at {step}")
        }
        if usable_lengths is not None:
            row["length"] = cell(imported, "episodes", "length", usable_lengths.values[index], f"{LENGTH} at {step}")
        end = bisect_left(ends, step)
        if end < len(ends):
            ended.setdefault(ends[end], []).append(row)
        else:
            imported.losses.count("unfinished_update", "episode after the last update logged", f"step {step}", lost=1)
    return ended


def _means(episodes: Sequence[Row]) -> Row:
    def mean(name: str) -> float | None:
        cells = [value for episode in episodes if isinstance(value := episode.get(name), (int, float))]
        return sum(cells) / len(cells) if cells else None

    return {
        "episodes_finished": len(episodes) or None,
        "episode_return_mean": mean("episode_return"),
        "episode_length_mean": mean("length"),
    }


CLEANRL = Framework(
    "cleanrl", "CleanRL", ("charts/*",), tuple(name for name in UPDATES if name.startswith("losses/")), (), take
)
