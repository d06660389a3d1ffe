"""Records the cases of rsl_rl: ``python -m tests.interchange.corpus.make.rsl_rl FOLDER``.

With rsl_rl 2 it records those of the older names, whose standard deviation nothing keeps above 0.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rsl_rl.runners import OnPolicyRunner
from tensordict import TensorDict
from torch import Tensor

from tests.interchange.corpus.make.collect import SOUND, Collection, Diagnosis, Names, event_files, event_name
from tests.interchange.corpus.make.points import ENVS, EPISODE, Points

RSL = Collection("rsl_rl", version("rsl-rl-lib"))
OLD = RSL.version.startswith("2.")
VALUE, STD, NOISE = (
    ("value_function", "mean_noise_std", "action noise std") if OLD else ("value", "mean_std", "action std")
)
NAMES = {
    f"Loss/{VALUE}": "value_loss",
    "Loss/surrogate": "policy_loss",
    "Loss/entropy": "entropy",
    f"Policy/{STD}": None,
    "Train/mean_reward": "episode_return_mean",
}
CONSOLE = {
    f"Mean {VALUE} loss": "value_loss",
    "Mean surrogate loss": "policy_loss",
    "Mean entropy loss": "entropy",
    f"Mean {NOISE}": None,
    "Mean reward": "episode_return_mean",
}


class ReachVecEnv(Points):
    """The points as rsl_rl wants them."""

    num_envs, num_actions, max_episode_length, device = ENVS, 2, EPISODE, "cpu"
    cfg = None

    def get_observations(self) -> Any:
        """Return what the agent sees: a dictionary in version 5, in version 2 a tensor and what else there is."""
        if OLD:
            return self.observed(), {"observations": {}}
        return TensorDict({"policy": self.observed()}, [ENVS])

    def step(self, actions: Tensor) -> tuple[Any, Tensor, Tensor, dict[str, Any]]:
        rewards, ended = self.move(actions)
        log = {"Episode_Reward/distance": rewards.mean(), "Episode_Termination/time_out": ended.sum().float()}
        observations = self.observed() if OLD else self.get_observations()
        return observations, rewards, ended.long(), {"time_outs": ended, "log": log, "observations": {}}


def configuration(std_type: str, **algorithm: Any) -> dict[str, Any]:
    settings = {"class_name": "PPO", "num_learning_epochs": 3, "num_mini_batches": 2, "learning_rate": 1e-3}
    common = {"num_steps_per_env": 16, "save_interval": 1000, "algorithm": settings | {"schedule": "fixed"} | algorithm}
    if OLD:
        layers = {"actor_hidden_dims": [32, 32], "critic_hidden_dims": [32, 32], "noise_std_type": std_type}
        return common | {"policy": {"class_name": "ActorCritic", **layers}, "empirical_normalization": False}
    gaussian = {"class_name": "GaussianDistribution", "init_std": 1.0, "std_type": std_type}
    model = {"class_name": "MLPModel", "hidden_dims": [32, 32], "activation": "elu"}
    return common | {
        "check_for_nan": False,
        "obs_groups": {"actor": ["policy"], "critic": ["policy"]},
        "multi_gpu": None,
        "actor": model | {"distribution_cfg": gaussian},
        "critic": dict(model),
    }


def train(
    folder: Path,
    *,
    updates: int = 32,
    seed: int = 1,
    change: tuple[int, Callable[[Any, ReachVecEnv], None]] | None = None,
    std_type: str = "scalar",
    **algorithm: Any,
) -> Path:
    """Train; ``change`` is made before the rollout of its update. What the console shows goes to ``console.txt``."""
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    env = ReachVecEnv()
    with (folder / "console.txt").open("w") as console, contextlib.redirect_stdout(console):
        runner = OnPolicyRunner(env, configuration(std_type, **algorithm), str(folder), "cpu")
        update_of, done = runner.alg.update, iter(range(1, updates + 1))

        def update() -> Any:
            losses = update_of()
            if change is not None and next(done) == change[0]:
                change[1](runner.alg, env)
            return losses

        runner.alg.update = update
        try:
            runner.learn(updates)
        except (RuntimeError, ValueError) as error:
            print(f"{type(error).__name__}: {error}")  # noqa: T201
        (runner.writer if OLD else runner.logger.writer).close()
    return folder


def events(folder: Path, diagnosis: Diagnosis, split: str, names: Names = NAMES) -> None:
    path = f"{folder.name}/{event_name()}"
    RSL.keep([(event_files(folder)[0], path)], path, diagnosis, split=split, names=names)


def console(folder: Path, diagnosis: Diagnosis, split: str) -> None:
    path = f"{folder.name}_console/console.txt"
    text = (folder / "console.txt").read_text()
    start = text.index("#" * 80)  # what the networks are comes before
    (folder / "console.txt").write_text(text[start:])
    RSL.keep([(folder / "console.txt", path)], path, diagnosis, split=split, names=CONSOLE)


def faster(algorithm: Any, _: ReachVecEnv) -> None:
    algorithm.learning_rate *= 100
    for group in algorithm.optimizer.param_groups:
        group["lr"] *= 100


def no_noise(algorithm: Any, _: ReachVecEnv) -> None:
    with torch.no_grad():
        algorithm.actor.distribution.std_param.fill_(1e-6)


def overflow(_: Any, env: ReachVecEnv) -> None:
    env.scale = 1e25


def blocks(folder: Path) -> int:
    """Return how many updates the console shows."""
    return (folder / "console.txt").read_text().count("Learning iteration")


def old(out: Path) -> None:
    folder = train(out / "old_reach", updates=25)
    events(folder, SOUND, "held")
    console(folder, SOUND, "tune")
    words = "the standard deviation falls below 0, and the training ends with 'std >= 0.0' in the update after it"
    for split, coefficient, seed in (("tune", -0.5, 5), ("held", -0.2, 6)):
        settings: dict[str, Any] = {"entropy_coef": coefficient, "learning_rate": 1e-2}
        folder = train(out / f"old_std_nonpositive_{seed}", seed=seed, updates=80, **settings)
        fault = Diagnosis("std_nonpositive", words, blocks(folder) - 1)
        (events if split == "tune" else console)(folder, fault, split)


def new(out: Path) -> None:
    folder = train(out / "reach")
    events(folder, SOUND, "tune")
    fault = Diagnosis("std_runaway", "entropy coefficient so large that the standard deviation runs away", 0)
    runaway: dict[str, Any] = {"entropy_coef": 2.0, "learning_rate": 2e-2, "std_type": "log"}
    folder = train(out / "std_runaway", seed=3, **runaway)
    events(folder, fault, "tune")
    fault = Diagnosis(
        "policy_dead", "standard deviation 1e-6 from update 18 on: no exploration, entropy far below 0", 18
    )
    events(train(out / "policy_dead", seed=7, change=(18, no_noise)), fault, "held")
    fault = Diagnosis("return_fell", "learning rate 100 times too large from update 20 on: the return falls", 20)
    events(train(out / "return_fell", seed=8, change=(20, faster)), fault, "tune")
    fault = Diagnosis("nan", "rewards of 1e25 from update 20 on: the value loss is infinite", 20)
    folder = train(out / "overflow", seed=9, change=(20, overflow), updates=26)
    events(folder, fault, "tune")
    console(folder, fault, "held")


if __name__ == "__main__":
    torch.set_num_threads(1)
    (old if OLD else new)(Path(sys.argv[1]))
