"""``python -m tests.bench.known_tasks OUT``: Stable-Baselines3 PPO on Gymnasium's small tasks, and what is alarmed.

Sound trainings: settings as people use them, 40 and 150 updates. Broken ones: the same with a learning rate of 0.05 to
0.3. ``--first`` gives other random seeds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from esper_analyze.detector.rules import RULES
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.replay.replay import replay
from esper_analyze.runs.run import open_run
from recorder.adapters.sb3 import RecorderCallback

SHORT, LONG = 40, 150
"""Updates of a training."""


@dataclass(frozen=True)
class TaskSettings:
    """A task and how it is trained; ``normalise``: with ``VecNormalize``."""

    task: str
    environments: int
    settings: dict[str, float | int] = field(default_factory=dict)
    normalise: bool = False


SOUND = (
    TaskSettings(
        "CartPole-v1",
        8,
        {"n_steps": 32, "batch_size": 256, "gamma": 0.98, "gae_lambda": 0.8, "n_epochs": 20, "learning_rate": 1e-3},
    ),
    TaskSettings("CartPole-v1", 1, {"n_steps": 512}),
    TaskSettings("CartPole-v1", 4, {"n_steps": 256}),
    TaskSettings("Acrobot-v1", 8, {"n_steps": 128, "gae_lambda": 0.94, "n_epochs": 4}),
    TaskSettings("Acrobot-v1", 16, {"n_steps": 64, "gae_lambda": 0.94, "n_epochs": 4}, normalise=True),
    TaskSettings("Pendulum-v1", 4, {"n_steps": 256, "gamma": 0.9, "gae_lambda": 0.95, "learning_rate": 1e-3}),
    TaskSettings("Pendulum-v1", 8, {"n_steps": 128, "gamma": 0.95, "learning_rate": 7e-4}, normalise=True),
    TaskSettings("MountainCarContinuous-v0", 4, {"n_steps": 128, "gae_lambda": 0.9}),
    TaskSettings("MountainCar-v0", 16, {"n_steps": 64, "gae_lambda": 0.98, "n_epochs": 4}, normalise=True),
)
BROKEN_RATES = (0.05, 0.1, 0.3)


@dataclass(frozen=True)
class KnownTraining:
    """One training: its name, how long, its random seed, and the learning rate that breaks it (0: sound)."""

    name: str
    how: TaskSettings
    updates: int
    seed: int
    broken_rate: float = 0.0


def trainings(first: int) -> Iterator[KnownTraining]:
    """Yield two short and one long sound training of each task, and a broken one; random seeds from ``first`` on."""
    for index, how in enumerate(SOUND):
        for turn, updates in enumerate((SHORT, SHORT, LONG)):
            yield KnownTraining(f"sound-{index}-{turn}", how, updates, first + 4 * index + turn)
        rate = BROKEN_RATES[index % len(BROKEN_RATES)]
        yield KnownTraining(f"broken-{index}", how, SHORT, first + 4 * index + 3, rate)


def train(training: KnownTraining, out: Path) -> None:
    """Train and record it; a broken training may raise."""
    torch.set_num_threads(1)
    how = training.how
    environments: VecEnv = make_vec_env(how.task, n_envs=how.environments, seed=training.seed)
    if how.normalise:
        environments = VecNormalize(environments, gamma=float(how.settings.get("gamma", 0.99)))
    settings = dict(how.settings) | ({"learning_rate": training.broken_rate} if training.broken_rate else {})
    model = PPO("MlpPolicy", environments, seed=training.seed, device="cpu", **settings)  # type: ignore[arg-type]
    try:
        model.learn(training.updates * how.environments * model.n_steps, callback=RecorderCallback(out, quiet=True))
    except ValueError as error:  # NaN in the parameters of a distribution
        if not training.broken_rate:
            raise
        sys.stderr.write(f"{training.name}: {type(error).__name__}\n")


def judged(out: Path, prefix: str) -> tuple[int, int, list[str]]:
    """Return runs, updates, and each incident in words, of the runs whose name begins with ``prefix``."""
    runs = updates = 0
    alarms = []
    for path in sorted(out.glob(f"{prefix}-*")):
        result = replay(open_run(path), thresholds=Thresholds.defaults(RULES))
        runs, updates = runs + 1, updates + result.updates
        alarms += [
            f"{path.name}: {incident.peak_verdict} {incident.rule} on {incident.subject} at {incident.start}"
            for incident in result.incidents
        ]
    return runs, updates, alarms


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing, judge all, and print it."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.known_tasks", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the runs")
    parser.add_argument("--first", type=int, default=0, help="first random seed (default 0)")
    given = parser.parse_args(arguments)
    for training in trainings(given.first):
        if not (given.out / training.name).exists():
            sys.stderr.write(f"{training.name}: {training.how.task}, {training.updates} updates\n")
            train(training, given.out / training.name)
    runs, updates, alarms = judged(given.out, "sound")
    critical = sum(": critical " in alarm for alarm in alarms)
    lines = [f"sound: {runs} runs, {updates:,} updates, {len(alarms)} incidents, {critical} critical", *alarms]
    runs, _, alarms = judged(given.out, "broken")
    found = {alarm.split(":")[0] for alarm in alarms if ": critical " in alarm}
    lines.append(f"broken: {runs} runs, {len(found)} of them critical")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
