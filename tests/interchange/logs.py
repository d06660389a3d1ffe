"""Logs as Stable-Baselines3 and CleanRL write them, made up."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from esper_analyze.interchange.event_file import event_file

Cells = dict[str, float]
STEPS = 64
"""Environment steps of an update."""


def trained(update: int) -> Cells:
    """What Stable-Baselines3 logs of the training of ``update``."""
    return {
        "train/approx_kl": 0.001 * (update + 1),
        "train/loss": 10.0 + update,
        "train/explained_variance": 0.5,
        "train/clip_fraction": 0.1,
        "train/std": 1.0,
    }


def sb3_rows(updates: int, *, interval: int = 1, evaluate: int | None = None) -> list[tuple[int, Cells]]:
    """Return (environment steps, row) of each dump; during the rollout ``evaluate`` an evaluation dumps too."""
    rows: list[tuple[int, Cells]] = []
    waiting: Cells = {}
    for update in range(updates):
        if update == evaluate:
            rows.append((update * STEPS + 10, {"eval/mean_reward": 9.0, "time/total_timesteps": 0.0, **waiting}))
            waiting = {}
        if (update + 1) % interval == 0:
            steps = (update + 1) * STEPS
            clock = {"time/iterations": update + 1, "time/total_timesteps": steps, "time/fps": 100}
            rows.append((steps, {"rollout/ep_rew_mean": float(update), **clock, **waiting}))
            waiting = {}
        waiting = trained(update)
    return rows


def write_csv(path: Path, rows: Iterable[Mapping[str, object]]) -> Path:
    """Write ``rows`` under the names of all."""
    listed = list(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in listed for name in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(listed)
    return path


def write_events(folder: Path, rows: Sequence[tuple[int, Mapping[str, float]]]) -> Path:
    """Write an event file into ``folder``; what Stable-Baselines3 keeps out of TensorBoard is left out."""
    hidden = ("time/iterations", "time/total_timesteps", "train/n_updates")
    events = [
        (step, 1.7e9 + step, [(tag, value) for tag, value in row.items() if tag not in hidden]) for step, row in rows
    ]
    folder.mkdir()
    (folder / "events.out.tfevents.1700000000.x.0").write_bytes(event_file(events, 1.7e9))
    return folder


def cleanrl_rows(updates: int) -> list[tuple[int, Cells]]:
    """Return (environment steps, row) as a CleanRL script logs; two environments end an episode at one step."""
    rows: list[tuple[int, Cells]] = []
    for update in range(updates):
        rows += [
            (update * STEPS + 20, {"charts/episodic_return": 10.0 * update + env, "charts/episodic_length": 20.0})
            for env in range(2)
        ]
        losses = {"losses/approx_kl": 0.004, "losses/value_loss": 0.5 + update, "losses/clipfrac": 0.1}
        rows.append(((update + 1) * STEPS, {"charts/learning_rate": 3e-4, **losses}))
    return rows
