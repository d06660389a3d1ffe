"""What Stable-Baselines3's PPO logs, in progress.csv and in TensorBoard files alike, and which update it is of.

A row is dumped after a rollout and before the training on it: its ``rollout/`` and ``time/`` are of that update, its
``train/`` of the update before. The last training is never dumped. With ``log_interval`` above 1 only some are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from esper_analyze.interchange.framework import Framework
from esper_analyze.interchange.imported import Imported, Row, regular_interval
from esper_analyze.interchange.sb3_order import EPOCHS, ITERATION, counted, in_order
from esper_analyze.interchange.series import LogRow, Named, ScalarLog, add_head, in_schema, leave_out, mapped_cells

_WINDOW = "mean over the last 100 episodes, not those of the update"

ROLLOUT = {
    "rollout/ep_rew_mean": Named("episode_return_mean", _WINDOW),
    "rollout/ep_len_mean": Named("episode_length_mean", _WINDOW),
    "time/total_timesteps": Named("env_steps"),
}
TRAIN = {
    "train/approx_kl": Named("kl_k3_last_epoch"),
    "train/clip_fraction": Named("clip_fraction"),
    "train/clip_range": Named("clip_range"),
    "train/entropy_loss": Named("entropy_loss"),
    "train/explained_variance": Named("explained_variance"),
    "train/learning_rate": Named("learning_rate"),
    "train/loss": Named("total_loss", "last minibatch, not the mean"),
    "train/policy_gradient_loss": Named("policy_loss"),
    "train/value_loss": Named("value_loss"),
}
EVALUATED = in_schema({"eval/mean_reward": Named("eval_return_mean"), "eval/mean_ep_length": Named("eval_length_mean")})
STD = in_schema({"train/std": Named("std_mean", "mean over dimensions, at the end of the update", table="heads")})
PREFIXES = ("rollout/", "time/", "train/", "eval/")
_REASONS = {
    "rollout/success_rate": "a share of episodes that the task calls a success",
    "eval/success_rate": "the same",
}
_SPARSE = (
    "logged with a log_interval above 1, and not said which: updates are numbered in the order of their rows, in which "
    "what was trained is of the update before the one whose rollout it is"
)


def take(log: ScalarLog, imported: Imported) -> None:
    """Add the updates of ``log`` to ``imported``."""
    imported.facts |= {"framework": "Stable-Baselines3", "algorithm": "PPO"}
    rows = in_order(log.rows(lambda name: name.startswith(PREFIXES), imported), _dumped, imported)
    numbers, behind = _iterations(rows), 1
    if _sparse(rows):
        behind = 0
        imported.facts["notes"] = _SPARSE
    updates: dict[int, Row] = {}
    for row, iteration in zip(rows, numbers, strict=True):
        dumped = _dumped(row)
        before = iteration - 1 - behind if dumped else iteration - 1
        trained = mapped_cells(imported, row, TRAIN)
        if policy := trained | mapped_cells(imported, row, EVALUATED):
            updates.setdefault(before, {}).update(policy)
        if before >= 0:
            add_head(imported, before, mapped_cells(imported, row, STD, "heads"))
        if dumped:
            steps: Row = {"env_steps": row.step} if log.timesteps else {}
            updates.setdefault(iteration - 1, {}).update(steps | mapped_cells(imported, row, ROLLOUT))
    dumps = [iteration for row, iteration in zip(rows, numbers, strict=True) if _dumped(row)]
    _finish(imported, updates, dumps)
    leave_out(imported, log.series, (*TRAIN, *ROLLOUT, *EVALUATED, *STD, ITERATION, EPOCHS), _REASONS)


def _sparse(rows: Sequence[LogRow]) -> bool:
    """Whether not every iteration was dumped and nothing says which: the first dump then tells of a training before."""
    first = next((row for row in rows if _dumped(row)), None)
    return first is not None and ITERATION not in first.cells and first.begins("train/")


def _dumped(row: LogRow) -> bool:
    """Whether the training itself dumped the row: an evaluation dumps within a rollout, and knows no speed."""
    return row.begins("rollout/", "time/fps", ITERATION)


def _finish(imported: Imported, updates: dict[int, Row], dumps: Sequence[int]) -> None:
    """Keep the updates that were trained on for sure: all but the last, unless its training was dumped.

    ``dumps`` are the iterations of the rows that the training dumped: with a log_interval the others are not lost.
    """
    of_training = {named.column for named in TRAIN.values()}
    trained = [number for number, cells in updates.items() if cells.keys() & of_training]
    for last in sorted(number for number in updates if number > max(trained, default=-1)):
        what = "last rollout, whose training Stable-Baselines3 never logs"
        imported.losses.count("unfinished_update", what, f"update {last}", update=last)
        if not any(isinstance(cell, float) and not math.isfinite(cell) for cell in updates[last].values()):
            del updates[last]
    for number in sorted(number for number in updates if number >= 0):
        imported.add("updates", {"update": number, "level": "NORMAL", "status": "performed", **updates[number]})
    logged_every = regular_interval([0, *dumps]) > 1
    imported.count_gaps([0, *dumps] if logged_every else updates, "was not logged")


def _iterations(rows: Sequence[LogRow]) -> list[int]:
    """Return for each row the iterations done when it was dumped: as it says, else by counting.

    A row that something else dumped in the middle of a rollout, an evaluation for one, has the number before it. Where
    ``learn`` was called again, iterations start again at 1.
    """
    iterations, last, before, last_number = [], 0, 0, 0
    first = min((number for row in rows if (number := counted(row.cells, ITERATION)) is not None), default=0)
    for row in rows:
        if _dumped(row):
            number = counted(row.cells, ITERATION)
            if number is not None and last_number >= number == first:
                before = last
            last = last + 1 if number is None else before + number
            last_number = last_number if number is None else number
        iterations.append(last)
    return iterations


SB3 = Framework(
    "stable-baselines3",
    "Stable-Baselines3",
    ("rollout/ep_rew_mean", "rollout/ep_len_mean", "time/iterations", "time/fps", "train/policy_gradient_loss",
     "train/n_updates", "eval/mean_reward", "eval/mean_ep_length"),
    (*TRAIN, *ROLLOUT),
    (*EVALUATED, *STD),
    take,
)  # fmt: skip
