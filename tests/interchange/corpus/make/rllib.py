"""Records the cases of RLlib's new API stack: ``python -m tests.interchange.corpus.make.rllib FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig

from tests.interchange.corpus.make.collect import SOUND, Collection, Diagnosis, event_files, event_name, refused, sound

MODULE = "learners/default_policy"
NAMES = {
    f"{MODULE}/mean_kl_loss": None,
    f"{MODULE}/vf_explained_var": "explained_variance",
    f"{MODULE}/entropy": "entropy",
    f"{MODULE}/vf_loss": "value_loss",
    "env_runners/episode_return_mean": "episode_return_mean",
}
RLLIB = Collection("rllib", ray.__version__)
BATCH = 256


def configured(algorithm: Any, **training: Any) -> Any:
    """Return the configuration: everything in one process, CartPole, two small layers."""
    return (
        algorithm()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=4)
        .learners(num_learners=0)
        .rl_module(model_config={"fcnet_hiddens": [32, 32]})
        .debugging(seed=training.pop("seed", 1))
        .training(**training)
    )


def ppo(**training: Any) -> Any:
    settings = {"train_batch_size_per_learner": BATCH, "minibatch_size": 128, "num_epochs": 4, "gamma": 0.9, "lr": 2e-3}
    return configured(PPOConfig, **settings | training)


def train(folder: Path, config: Any, updates: int = 30) -> Path:
    """Train with Tune, whose loggers write all three files; return the folder of the trial."""
    stop = {"training_iteration": updates}
    run = tune.RunConfig(storage_path=str(folder.resolve()), name="ppo", stop=stop, verbose=0)
    tune.Tuner(config.algo_class, param_space=config, run_config=run).fit()
    return next(folder.rglob("progress.csv")).parent


def csv(folder: Path, case: str, diagnosis: Diagnosis, split: str, names: Any = NAMES) -> None:
    path = f"{case}/progress.csv"
    RLLIB.keep([(folder / "progress.csv", path)], path, diagnosis, split=split, names=names)


def later(update: int, first: float, then: float) -> list[list[float]]:
    """Return a schedule of the learning rate: one rate before ``update``, another from it on."""
    return [[0, first], [update * BATCH - 1, first], [update * BATCH, then], [10**9, then]]


def main(out: Path) -> None:
    csv(train(out / "cartpole", ppo()), "cartpole", SOUND, "tune")
    short = train(out / "short", ppo(seed=2), updates=3)
    result, event = "all_files/result.json", f"all_files/{event_name()}"
    files = [(short / "progress.csv", "all_files/progress.csv"), (short / "result.json", result)]
    files.append((event_files(short)[0], event))
    why = sound("three files of one run: they are to be read as one")
    RLLIB.keep(files, "all_files", why, split="held", names=NAMES)
    RLLIB.keep(files[1:2], result, SOUND, split="held", names=NAMES)
    names = {f"ray/tune/{name}": column for name, column in NAMES.items()}
    RLLIB.keep(files[2:], event, SOUND, split="tune", names=names)
    why = sound("no KL loss is used, and none is logged: it is absent, not 0")
    names = {name: column for name, column in NAMES.items() if "kl" not in name}
    csv(train(out / "no_kl", ppo(use_kl_loss=False, seed=3)), "no_kl_loss", why, "held", names)
    fault = Diagnosis("kl_too_high", "learning rate 100 times too large from update 15 on", 15)
    csv(train(out / "rate", ppo(lr=later(15, 2e-3, 0.2), seed=4)), "rate_too_large", fault, "held")
    fault = Diagnosis("critic_never_learns", "value coefficient 0: the critic is never trained", 0)
    csv(train(out / "critic", ppo(vf_loss_coeff=0.0, seed=6)), "critic_never_learns", fault, "tune")
    dqn = configured(DQNConfig, train_batch_size_per_learner=32)
    csv(train(out / "dqn", dqn, updates=3), "dqn", refused("DQN"), "tune", None)


if __name__ == "__main__":
    settings = {"include_dashboard": False, "log_to_driver": False, "object_store_memory": 200_000_000}
    ray.init(num_cpus=2, configure_logging=False, **settings)
    main(Path(sys.argv[1]))
